"""Devices that processes use are found by number, in each thread, and when only mapped."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._system import descriptors
from ansible_collections.armfleet.vfio.plugins.module_utils._system.descriptors import Descriptors
from ansible_collections.armfleet.vfio.plugins.module_utils._system.processes import (
    VFIO_DEVICE,
    Processes,
)

CLONE_FILES = 0x400
# Device numbers of full(4) and null(4), which are the same on every Linux.
FULL, NULL = "c1:7", "c1:3"


@pytest.fixture
def loner() -> Iterator[int]:
    """Start a thread with its own descriptor table, in which /dev/full is open."""
    is_ready, is_over = threading.Event(), threading.Event()

    def work() -> None:
        ctypes.CDLL(None).unshare(CLONE_FILES)
        descriptor = os.open("/dev/full", os.O_RDONLY)
        is_ready.set()
        is_over.wait()
        os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    is_ready.wait()
    yield thread.native_id or 0
    is_over.set()
    thread.join()


@pytest.mark.parametrize("has_kcmp", [True, False])
@pytest.mark.usefixtures("loner")
def test_a_thread_may_have_descriptors_of_its_own(
    monkeypatch: pytest.MonkeyPatch, has_kcmp: bool
) -> None:
    if not has_kcmp:
        monkeypatch.setattr(descriptors, "_KCMP", {})
    held = Descriptors("/proc").of(str(os.getpid()))
    assert FULL in held.keys
    assert "/dev/full" in held.paths
    own = f"(pid {os.getpid()})"
    assert [holder for holder in Processes().holders("/dev/full") if own in holder]


def test_a_thread_that_shares_them_is_not_read_again(loner: int) -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    share = descriptors._share_descriptors
    assert share(os.getpid(), os.getpid()) in (True, False)
    if share(os.getpid(), os.getpid()):
        assert share(os.getpid(), thread.native_id or 0)
        assert not share(os.getpid(), loner)
    is_over.set()
    thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes nodes")
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_node_of_any_name_is_the_device(tmp_path: Path, is_deleted: bool) -> None:
    node = tmp_path / "other-name"
    try:
        os.mknod(node, 0o20600, os.makedev(1, 7))
        descriptor = os.open(node, os.O_RDONLY)
    except OSError:
        pytest.skip("no nodes can be used here")
    if is_deleted:
        node.unlink()
    held = Descriptors("/proc").of(str(os.getpid()))
    os.close(descriptor)
    assert FULL in held.keys
    assert str(node) in held.paths
    assert str(tmp_path) not in held.keys | held.paths


def test_holders_are_found_by_name_or_number_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"/dev/vfio/3": "c239:3", "/srv/jail/dev/three": "c239:3"}
    monkeypatch.setattr(descriptors, "device_number", lambda _link, target: numbers.get(target))
    for pid, target in ((7, "/dev/vfio/3"), (8, "/srv/jail/dev/three"), (9, "/srv/file")):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text("vmm\n")
        (tmp_path / f"{pid}/fd/0").symlink_to(target)
    holders = Processes(str(tmp_path)).holders("/dev/vfio/3", "c239:3")
    assert sorted(holders) == ["vmm (pid 7)", "vmm (pid 8)"]
    # Without a device number, the node is found by name.
    assert Processes(str(tmp_path)).holders("/dev/vfio/3") == ["vmm (pid 7)"]
    assert Processes(str(tmp_path)).holders("/srv/file", "c0:0") == []


MAPS = b"""\
aaaac000-aaaad000 r-xp 00000000 fe:00 11        /usr/bin/vmm
ffff8000-ffff9000 rw-s 00000000 00:0e 1031      anon_inode:[vfio-device]
ffff9000-ffffa000 rw-s 00000000 00:05 300       /dev/uio0
ffffa000-ffffb000 rw-s 00000000 00:1a 9         /dev/shm/pool
ffffb000-ffffc000 rw-s 00000000 00:05 301       /dev/dri/card0 (deleted)
ffffc000-ffffd000 rw-p 00000000 00:00 0         [stack]
"""


def test_a_mapping_outlives_its_descriptor(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("vmm\n")
    (tmp_path / "7/maps").write_bytes(MAPS)
    processes = Processes(str(tmp_path))
    for node in (VFIO_DEVICE, "/dev/uio0", "/dev/dri/card0"):
        assert processes.holders(node) == ["vmm (pid 7)"]
    assert processes.holders("/dev/shm/pool") == []


def test_without_statx_nodes_in_dev_are_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(descriptors, "_status", lambda: None)
    assert descriptors.device_number("/dev/null", "/dev/null") == NULL
    assert descriptors.device_number("/dev/null", "/srv/null") is None
    with pytest.raises(FileNotFoundError):
        descriptors.device_number("/dev/nowhere", "/dev/nowhere")


def test_what_is_no_device_has_no_number(tmp_path: Path) -> None:
    assert descriptors.device_number("/dev/null", "/dev/null") == NULL
    assert descriptors.device_number(str(tmp_path), str(tmp_path)) is None
    with pytest.raises(FileNotFoundError):
        descriptors.device_number(str(tmp_path / "gone"), "/gone")


def test_a_process_whose_first_thread_has_ended_still_holds_what_it_holds() -> None:
    with leaderless("import os; held = os.open('/dev/full', os.O_RDONLY)") as pid:
        assert FULL in Descriptors("/proc").of(str(pid)).keys


def test_and_what_it_has_mapped(tmp_path: Path) -> None:
    # The kernel shows no mappings for a process whose first thread has ended.
    for task in ("7", "7/task/7", "7/task/8"):
        (tmp_path / task).mkdir(parents=True)
        (tmp_path / task / "maps").write_bytes(b"")
    (tmp_path / "7/comm").write_text("vmm\n")
    (tmp_path / "7/task/8/maps").write_bytes(MAPS)
    assert Processes(str(tmp_path)).holders(VFIO_DEVICE) == ["vmm (pid 7)"]


@contextlib.contextmanager
def leaderless(work: str) -> Iterator[int]:
    """Start a process whose first thread ends after this work, while another one runs."""
    script = f"""
import ctypes, sys, threading
{work}
libc = ctypes.CDLL(None)
def go_on():
    sys.stdin.read()
    libc._exit(0)
threading.Thread(target=go_on, daemon=True).start()
print(flush=True)
libc.pthread_exit(None)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while "Z" not in Path(f"/proc/{process.pid}/task/{process.pid}/stat").read_text().split():
            assert process.poll() is None
        yield process.pid


@pytest.mark.parametrize(
    ("opened", "what"),
    [("/dev/vfio/3", None), ("/dev/vfio/3", "c1:3")],
    ids=["a file", "another device"],
)
def test_a_file_of_somebodys_own_that_is_called_like_the_node_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str, what: str | None
) -> None:
    # In a mount namespace of their own, users can give any file the name of the node.
    monkeypatch.setattr(descriptors, "device_number", lambda _link, _target: what)
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("sleep\n")
    (tmp_path / "7/fd/0").symlink_to(opened)
    assert Processes(str(tmp_path)).holders("/dev/vfio/3", "c239:3") == []


@pytest.mark.parametrize(
    "path", ["/home/eve/x anon_inode:[vfio-device]", "/home/eve/x /dev/vfio/3"]
)
def test_the_path_of_a_mapping_is_all_that_follows_the_numbers(tmp_path: Path, path: str) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("sleep\n")
    (tmp_path / "7/maps").write_text(f"ffff8000-ffff9000 r--s 00000000 fe:00 11     {path}\n")
    processes = Processes(str(tmp_path))
    assert processes.holders(VFIO_DEVICE) == []
    assert processes.holders("/dev/vfio/3") == []


def test_a_file_system_of_a_users_own_has_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_link: str, _target: str) -> str:
        raise PermissionError(errno.EACCES, "statx")

    monkeypatch.setattr(descriptors, "device_number", refuse)
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/fd/0").symlink_to("/dev/vfio/3")
    assert Processes(str(tmp_path)).holders("/dev/vfio/3", "c239:3") == []


def test_a_device_that_does_not_tell_its_number_counts_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("vmm\n")
    (tmp_path / "7/fd/0").symlink_to("/dev/vfio/nowhere")
    holders = Processes(str(tmp_path)).holders("/dev/vfio/nowhere", "c239:3")
    assert holders == ["vmm (pid 7)"]


def test_the_name_of_a_process_is_printable(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_bytes(b"\x1b]0;x\x07\xff\n\n")
    (tmp_path / "7/fd/0").symlink_to("/dev/vfio/nowhere")
    (holder,) = Processes(str(tmp_path)).holders("/dev/vfio/nowhere")
    assert holder == r"\x1b]0;x\x07\xff (pid 7)"
