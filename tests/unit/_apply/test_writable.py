# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run on a host with read-only or full file systems fails before its first change."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from board import CRYPTO, LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import symlinks
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.journal import Journal
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    driverctl,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    PREVIOUS,
    UNFINISHED,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system import file_writes
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

SETTINGS = {"reset_required": False}
DRIVERCTL = f"{driverctl.DIRECTORY}/platform-b000000.crypto"
CHANGES = [
    pytest.param(path, entries, settings, id=path.rpartition("/")[2])
    for path, entries, settings in (
        (last_applied.RULES, LIST, {}),
        (last_applied.MODPROBE, LIST, {}),
        (last_applied.MODULES_LOAD, LIST, {}),
        (PREVIOUS, LIST, {"rollout": "first"}),
        (UNFINISHED, LIST, {"rollout": "first"}),
        (last_applied.WAITS_FOR_BOOT, LIST, {"runtime": False}),
        (DRIVERCTL, [CRYPTO], {"takes_over": True}),
    )
]


@pytest.fixture(autouse=True)
def _with_directories(board: Board) -> None:
    (board.files_root / DRIVERCTL[1:]).parent.mkdir(parents=True)
    (board.files_root / "run").mkdir()
    (board.files_root / "var/lib").mkdir(parents=True)


@pytest.fixture
def read_only(board: Board, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a directory read-only; "/.." is the directory of the board."""
    statvfs, access = os.statvfs, os.access
    mounted: list[str] = []

    def is_below(path: Any) -> bool:
        return any(f"{path}/".startswith(f"{mount_point}/") for mount_point in mounted)

    def status(path: str) -> Any:
        real = statvfs(path)
        fields = {name: getattr(real, name) for name in dir(real) if name.startswith("f_")}
        if is_below(path):
            fields["f_flag"] |= os.ST_RDONLY
        return SimpleNamespace(**fields)

    def mount(directory: str) -> None:
        mounted.append(os.path.normpath(str(board.files_root) + directory))

    monkeypatch.setattr(os, "statvfs", status)
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: access(path, mode) and not (mode & os.W_OK and is_below(path)),
    )
    return mount


def everything_in(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if path.relative_to(root) != Path("run/lock") and not path.is_symlink()
    }


def refused(board: Board, mode: str, entries: list[dict[str, Any]], **settings: Any) -> str:
    """Return the message of a run that fails without a change."""
    before = everything_in(board.root)
    options = {**SETTINGS, **settings, "check_mode": mode == "check"}
    message = board.refusal(entries, **options)
    after = everything_in(board.root)
    assert after == before or after == {**before, "run": None}
    assert "Not everything could be rolled back" not in message
    # The next run has no interrupted run to roll back.
    assert board.journal().read_interrupted() is None
    return message


@pytest.mark.parametrize(("path", "entries", "settings"), CHANGES)
@pytest.mark.parametrize("mode", ["check", "apply"])
def test_a_read_only_file_system_is_known_before_and_in_check_mode(
    board: Board,
    read_only: Callable[[str], None],
    path: str,
    entries: list[dict[str, Any]],
    settings: dict[str, Any],
    mode: str,
) -> None:
    if settings.get("takes_over"):
        board.write_file(DRIVERCTL, "vfio-platform\n")
    read_only(os.path.dirname(os.path.dirname(path)))
    message = refused(board, mode, entries, **settings)
    assert f"Cannot write {path}: Read-only file system (EROFS, /" in message
    assert "remount it" in message


@pytest.mark.parametrize("mode", ["check", "apply"])
def test_all_files_that_cannot_be_written_are_named_at_once(
    board: Board, read_only: Callable[[str], None], mode: str
) -> None:
    read_only("/etc")
    lines = refused(board, mode, LIST).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"Cannot write {path}" for path in last_applied.PATHS
    ]


def test_a_release_is_refused_too(board: Board, read_only: Callable[[str], None]) -> None:
    board.apply([CRYPTO], **SETTINGS)
    board.kernel.writes.clear()
    board.kmod.calls.clear()
    read_only("/etc")
    assert last_applied.RULES in refused(board, "apply", [])


def test_nothing_to_do_needs_nothing_that_can_be_written(
    board: Board, read_only: Callable[[str], None]
) -> None:
    board.apply([CRYPTO], **SETTINGS)
    read_only("")
    assert not board.apply([CRYPTO], **SETTINGS).is_changed


@pytest.mark.parametrize(("path", "entries", "settings"), CHANGES[:-1])
@pytest.mark.parametrize("code", ["EROFS", "ENOSPC", "EDQUOT", "EACCES", "EPERM", "EIO"])
def test_what_only_writing_shows_is_found_before_the_first_device(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    entries: list[dict[str, Any]],
    settings: dict[str, Any],
    code: str,
) -> None:
    """Quota, inodes or disk space are exhausted."""
    parent = str(board.files_root) + path.rpartition("/")[0]
    mkstemp = tempfile.mkstemp

    def fail(prefix: str, dir: str) -> tuple[int, str]:  # noqa: A002 - as mkstemp calls it
        if dir == parent:
            number = getattr(errno, code)
            raise OSError(number, os.strerror(number), parent)
        return mkstemp(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkstemp", fail)
    message = refused(board, "apply", entries, **settings)
    assert f"Cannot write {path}: " in message
    assert "Nothing was changed: all changes of this run were rolled back" in message


def test_a_file_system_that_fills_up_while_the_last_file_is_written(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == len(last_applied.PATHS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    message = refused(board, "apply", LIST)
    assert f"Cannot write {last_applied.MODULES_LOAD}: No space left" in message


@pytest.mark.parametrize("counted", ["f_bfree", "f_ffree"])
def test_a_full_disk_is_known_in_check_mode(
    board: Board, monkeypatch: pytest.MonkeyPatch, counted: str
) -> None:
    full = dict.fromkeys(("f_blocks", "f_bfree", "f_files", "f_ffree", "f_frsize"), 4096)
    full.update({"f_flag": 0, counted: 0})
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**full))
    assert f"Cannot write {last_applied.RULES}: No space left" in refused(board, "check", LIST)


def test_a_file_system_that_counts_nothing_is_not_full(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dict.fromkeys(("f_blocks", "f_bfree", "f_files", "f_ffree", "f_frsize", "f_flag"), 0)
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**nothing))
    assert board.host.files.obstacle(last_applied.RULES, 1) is None


@pytest.mark.parametrize("attribute", [0x10, 0x20], ids=["immutable", "append-only"])
@pytest.mark.parametrize("what", [DRIVERCTL, last_applied.RULES.rpartition("/")[0]])
@pytest.mark.parametrize("mode", ["check", "apply"])
def test_an_attribute_that_keeps_root_out_is_known(
    board: Board, monkeypatch: pytest.MonkeyPatch, attribute: int, what: str, mode: str
) -> None:
    board.write_file(DRIVERCTL, "vfio-platform\n")
    guarded = str(board.files_root) + what

    def flags(descriptor: int, _request: int, content: bytearray) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") == guarded:
            content[0] = attribute
        return 0

    monkeypatch.setattr(file_writes.fcntl, "ioctl", flags)
    message = refused(board, mode, [CRYPTO], takes_over=True)
    assert "Operation not permitted (EPERM, " in message
    assert "lsattr" in message


@pytest.mark.parametrize("mode", ["check", "apply"])
@pytest.mark.parametrize("in_the_way", ["file", "link to nowhere"])
def test_a_path_that_leads_nowhere_is_known(board: Board, in_the_way: str, mode: str) -> None:
    directory = board.files_root / "var/lib/armfleet-vfio"
    if in_the_way == "file":
        directory.write_text("")
    else:
        directory.symlink_to("/nowhere")
    with pytest.raises(PolicyError) as caught:
        getattr(board, mode)(LIST, rollout="first", **SETTINGS)
    assert PREVIOUS in str(caught.value)
    assert "Not a directory (ENOTDIR, " in str(caught.value)
    assert not board.kernel.writes


@pytest.mark.parametrize("mode", ["check", "apply"])
def test_a_file_on_which_something_is_mounted_is_known(
    board: Board, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    board.write_file(DRIVERCTL, "vfio-platform\n")
    mounted = str(board.files_root) + DRIVERCTL
    monkeypatch.setattr(file_writes, "_is_mounted_on", lambda file: file == mounted)
    message = refused(board, mode, [CRYPTO], takes_over=True)
    assert f"Cannot write {DRIVERCTL}: Device or resource busy (EBUSY, " in message


def test_mounts_are_known_by_their_place(tmp_path: Path) -> None:
    assert file_writes._is_mounted_on("/proc")
    assert not file_writes._is_mounted_on(str(tmp_path / "file"))


@pytest.mark.parametrize("mode", ["check", "apply"])
def test_links_and_nodes_that_cannot_be_changed_are_known(
    board: Board, read_only: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    (board.files_root / "dev/vfio").mkdir(exist_ok=True)
    monkeypatch.setattr(board.kernel, "has_node", lambda node: node == symlinks.DEV)
    read_only("/dev")
    message = refused(board, mode, [CRYPTO])
    assert "Cannot link /dev/vfio/by-path/soc:crypto@b000000: Read-only file system" in message


def test_no_room_for_the_journal_is_known_with_its_path(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(_descriptor: int, _offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    message = refused(board, "apply", LIST)
    assert f"Cannot write {board.root}/run/journal: No space left on device (ENOSPC, " in message
    assert asked[0] > sum(
        len(content) for content in (board.file(path) or "" for path in last_applied.PATHS)
    )
    assert os.listdir(board.root / "run") == ["lock"]


@pytest.mark.parametrize("code", ["EOPNOTSUPP", "EINVAL"])
def test_a_file_system_that_cannot_say_whether_it_has_room(
    board: Board, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:

    def fail(*_arguments: int) -> None:
        raise OSError(getattr(errno, code), "")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert board.apply(LIST, **SETTINGS).is_changed


def test_a_lock_that_cannot_be_written_is_told_with_its_path(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_arguments: 0)
    message = refused(board, "apply", LIST)
    assert message.startswith(f"Cannot lock {board.root}/run/lock: No space left on device")


def test_a_run_directory_that_is_read_only_is_known_in_check_mode(
    board: Board, read_only: Callable[[str], None]
) -> None:
    read_only("/..")
    message = refused(board, "check", LIST)
    assert f"Cannot write {board.root}/run/journal: Read-only file system" in message


def test_what_was_never_written_needs_no_undoing(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system becomes read-only after the last device and before the first file."""

    def fail(_source: str, target: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), target)

    rename = os.rename

    def only_ours(source: str, target: str) -> None:
        (rename if "/run/" in target else fail)(source, target)

    def write_atomic(_files: Files, path: str, _content: str | None) -> None:
        pytest.fail(f"{path} is written")

    monkeypatch.setattr(os, "rename", only_ours)
    monkeypatch.setattr(Files, "write_atomic", write_atomic)
    with pytest.raises(PolicyError, match="Nothing was changed: all changes of this run"):
        board.apply([CRYPTO], **SETTINGS)
    assert board.kernel.binding("b000000.crypto") == ("acme-crypto", None)
    assert not list(board.root.rglob(".armfleet-vfio-*"))
    assert board.journal().read_interrupted() is None


def test_what_went_wrong_is_told_though_the_journal_cannot_be_written_any_more(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise PolicyError("Cannot write the journal")

    board.kernel.answer("bus/platform/drivers/vfio-platform/bind", errno.EIO)
    for _attempt in range(2):
        board.kernel.answer(
            ("bus/platform/drivers/acme-crypto/bind", "b000000.crypto"), errno.ENODEV
        )
    monkeypatch.setattr(Journal, "replace", fail)
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], **SETTINGS)
    assert "EIO" in str(caught.value).splitlines()[0]
    assert "Not everything could be rolled back" in str(caught.value)
    assert "Cannot write the journal" in str(caught.value)


def test_directories_that_were_made_for_a_file_go_with_it(tmp_path: Path) -> None:
    staged = Files(str(tmp_path)).stage("/a/b/c", "x")
    assert (tmp_path / "a/b").is_dir()
    staged.discard()
    assert not (tmp_path / "a").exists()
