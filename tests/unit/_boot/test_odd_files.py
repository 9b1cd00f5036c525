"""No foreign file stops a run, unless the message names it and what it is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from board import CRYPTO, Board
from test_initramfs import SETTINGS, TOOLS, host

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

RELEASE = os.uname().release
# What is read of files that others wrote, whether or not this host has them.
FOREIGN = [
    "/boot/config-" + RELEASE,
    "/etc/crypttab",
    "/etc/dracut.conf",
    "/etc/dracut.conf.d/local.conf",
    "/etc/driverctl.d/platform-b000000.crypto",
    "/etc/fstab",
    "/etc/initramfs-tools/conf.d/resume",
    "/etc/kernel/entry-token",
    "/etc/machine-id",
    "/etc/modprobe.d/local.conf",
    "/etc/modules-load.d/local.conf",
    "/etc/netplan/local.yaml",
    "/etc/network/interfaces",
    "/etc/NetworkManager/system-connections/local",
    "/etc/os-release",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/systemd/network/local.network",
    "/etc/systemd/system/srv.mount",
    "/etc/udev/rules.d/99-local.rules",
    "/lib/modules/6.1/modules.builtin",
    "/lib/modules/6.1/modules.dep",
    f"/lib/modules/{RELEASE}/modules.alias",
    f"/lib/modules/{RELEASE}/modules.dep",
]
DIRECTORIES = [
    "/boot/efi/EFI/Linux",
    "/etc/driverctl.d",
    "/etc/netplan",
    "/etc/systemd/system",
    "/lib/modules/6.1",
    "/run/modprobe.d",
    "/run/modules-load.d",
    "/run/udev/rules.d",
    "/usr/lib/dracut/dracut.conf.d",
    "/usr/lib/udev/rules.d",
]


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "content").touch()


def _bind(path: Path) -> None:
    # The path of a socket is short.
    with socket.socket(socket.AF_UNIX) as server:
        home = Path.cwd()
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(home)


SKIPPED: dict[str, Callable[[Path], None]] = {
    "directory": _directory,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "circle of links": lambda path: path.symlink_to(path.name),
    "link through a file": lambda path: path.symlink_to("/etc/passwd/conf"),
    "name that is too long": lambda path: path.symlink_to("x" * 300),
    "link to /dev/null": lambda path: path.symlink_to("/dev/null"),
    "empty file": lambda path: path.touch(),
    "bytes that are no text": lambda path: path.write_bytes(bytes(range(256)) * 3),
}
NAMED: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a socket": _bind,
    "a device node": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(params=sorted(TOOLS))
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    return host(tmp_path, *TOOLS[request.param])


def put(board: Board, path: str, make: Callable[[Path], None]) -> None:
    file = board.files_root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.unlink()
    make(file)


def refusal(board: Board) -> str | None:
    """Return why a host is not inspected or a list is not applied to it; None if both are done."""
    try:
        device_info.inspections(board.inspect(None))
        assert board.apply([CRYPTO], **SETTINGS, takes_over=True).is_changed
    except PolicyError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", FOREIGN)
@pytest.mark.parametrize("kind", SKIPPED)
def test_what_its_reader_skips_stops_no_run(board: Board, path: str, kind: str) -> None:
    put(board, path, SKIPPED[kind])
    if kind == "directory" and path.startswith("/etc/driverctl.d"):
        assert "It is a directory, which driverctl reads as no driver" in (refusal(board) or "")
    else:
        assert refusal(board) is None


@pytest.mark.parametrize("path", FOREIGN)
@pytest.mark.parametrize("kind", NAMED)
def test_what_would_not_end_is_skipped_or_named(board: Board, path: str, kind: str) -> None:
    put(board, path, NAMED[kind])
    named = f"Cannot read {path}: it is {kind}, not a regular file. Remove it, and run again"
    assert refusal(board) in (None, named)


@pytest.mark.parametrize("path", DIRECTORIES)
@pytest.mark.parametrize("kind", ["circle of links", "dangling link", "empty file"])
def test_what_is_no_directory_has_no_files(board: Board, path: str, kind: str) -> None:
    put(board, path, SKIPPED[kind])
    assert refusal(board) is None


@pytest.mark.parametrize(
    "name", ["/dev/" + "x" * 5000, "/dev/disk/by-id/" + "y" * 300, "LABEL=a/b"]
)
def test_a_name_in_fstab_that_no_file_can_have_is_of_no_disk(board: Board, name: str) -> None:
    (board.files_root / "etc").mkdir(exist_ok=True)
    board.write_file("/etc/fstab", f"{name} /srv ext4 defaults 0 2\n")
    assert refusal(board) is None


def test_a_file_of_a_gigabyte_is_named(board: Board) -> None:
    path = "/etc/modprobe.d/huge.conf"
    put(board, path, lambda file: file.touch())
    os.truncate(board.files_root / path[1:], 1 << 30)
    assert (refusal(board) or "").startswith(f"Cannot read {path}: it is longer than ")
