# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host has one run at a time, and its journal is read by the next one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import journal as journal_module
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.journal import InterruptedRun
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.operations import UndoRecord
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import MODPROBE
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

HOLDER = """
import sys
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
with RunLock("host_policy", directory=sys.argv[1]).acquire():
    print("held", flush=True)
    sys.stdin.read()
"""
FIRST = UndoRecord("file", MODPROBE, {"path": MODPROBE, "before": None, "after": "text \udcff\n"})
SECOND = UndoRecord("noiommu", "vfio", {"value": "N"}, deferred=True)


def records(interrupted: InterruptedRun) -> list[UndoRecord]:
    return [operation.to_record() for operation in interrupted.operations]


@pytest.fixture
def run_directory(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def hold(run_directory: str) -> subprocess.Popen[str]:
    """Start a process that holds the lock until end of file on its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, run_directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(entry for entry in sys.path if entry)},
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_holds_the_lock(board: Board) -> None:
    holder = hold(str(board.root / "run"))
    message = board.refusal([CRYPTO], reset_required=False)
    assert f"process {holder.pid} (host_policy" in message
    assert "Wait for it or end it, and run again" in message
    holder.communicate()
    board.apply([CRYPTO], reset_required=False)
    assert board.kernel.driver_of("b000000.crypto") == "vfio-platform"


def test_a_check_waits_for_nobody(board: Board) -> None:
    holder = hold(str(board.root / "run"))
    assert board.check([CRYPTO], reset_required=False).is_changed
    holder.communicate()


def test_a_second_run_begins_when_the_first_one_ends(run_directory: str) -> None:
    holder = hold(run_directory)
    assert holder.stdin
    entered = threading.Event()

    def second() -> None:
        with RunLock("vfio_binding", 60, run_directory).acquire():
            entered.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not entered.is_set()
    holder.communicate()
    waiting.join(60)
    assert entered.is_set()


def test_a_killed_run_leaves_no_lock(run_directory: str) -> None:
    holder = hold(run_directory)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunLock("vfio_binding", 0, run_directory).acquire():
        pass


def test_the_lock_does_not_outlive_a_child_that_is_left_behind(board: Board) -> None:
    # A child that hangs in the kernel has closed all inherited descriptors but its pipes.
    run_directory = str(board.root / "run")
    sysfs = _sysfs(board)
    with RunLock("host_policy", 0, run_directory).acquire():
        sysfs.read_locked(["bus/platform/devices/b000000.crypto/driver_override"])
    with RunLock("host_policy", 0, run_directory).acquire():
        pass
    sysfs.close()


def _sysfs(board: Board) -> Sysfs:
    return Sysfs(str(board.root / "sys"))


def test_nobody_but_root_can_hold_the_lock_or_read_the_journal(run_directory: str) -> None:
    lock = RunLock("host_policy", 0, run_directory)
    with lock.acquire():
        lock.journal.append(FIRST)
    assert os.stat(run_directory).st_mode & 0o777 == 0o700
    for name in os.listdir(run_directory):
        assert os.stat(os.path.join(run_directory, name)).st_mode & 0o777 == 0o600


def test_a_lock_that_is_a_link_is_not_followed(run_directory: str, tmp_path: Path) -> None:
    Path(run_directory).mkdir()
    (tmp_path / "victim").write_text("precious")
    (Path(run_directory) / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(PolicyError, match=r"/lock is a symbolic link"), RunLock(
        "x", 0, run_directory
    ).acquire():
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("made", ["link", "group", "world", "file", "owner"])
def test_a_directory_that_others_can_write_to_has_no_journal(
    run_directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    directory = tmp_path / "other" if made == "link" else Path(run_directory)
    RunLock("host_policy", 0, str(directory)).journal.append(FIRST)
    if made == "link":
        Path(run_directory).symlink_to(directory)
    elif made == "file":
        shutil.rmtree(run_directory)
        Path(run_directory).write_text("")
    elif made == "owner":
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    else:
        directory.chmod(0o770 if made == "group" else 0o1777)
    lock = RunLock("host_policy", 0, run_directory)
    for call in (
        lock.has_journal,
        lock.journal.read_interrupted,
        lock.acquire().__enter__,
        lambda: lock.journal.append(SECOND),
    ):
        with pytest.raises(PolicyError, match="a user other than root may have written") as caught:
            call()
        assert str(caught.value).startswith(run_directory)


@pytest.mark.parametrize("name", ["journal", "lock"])
@pytest.mark.parametrize("made", ["link", "fifo", "socket", "world"])
def test_a_journal_or_lock_that_others_may_have_made_is_refused(
    run_directory: str, tmp_path: Path, name: str, made: str
) -> None:
    Path(run_directory).mkdir(mode=0o700)
    path = Path(run_directory) / name
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if made == "link":
        path.symlink_to(victim)
    elif made == "fifo":
        os.mkfifo(path)
    elif made == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path.write_text("")
        path.chmod(0o666)
    lock = RunLock("host_policy", 0, run_directory)
    with pytest.raises(PolicyError, match="a user other than root may have written") as caught:
        (lock.journal.read_interrupted if name == "journal" else lock.acquire().__enter__)()
    assert str(caught.value).startswith(str(path))
    assert victim.read_text() == "precious"


def test_what_was_written_down_is_read_by_the_next_run(run_directory: str) -> None:
    journal = RunLock("host_policy", 0, run_directory).journal
    journal.append(FIRST)
    journal.append(SECOND)
    left = RunLock("later", 0, run_directory).journal.read_interrupted()
    assert left
    assert "host_policy" in left.owner
    assert records(left) == [FIRST, SECOND]
    RunLock("later", 0, run_directory).journal.replace([SECOND], left.owner)
    left = RunLock("still later", 0, run_directory).journal.read_interrupted()
    assert left
    assert "host_policy" in left.owner
    assert records(left) == [SECOND]
    journal.discard()
    assert RunLock("last", 0, run_directory).journal.read_interrupted() is None


def test_a_line_that_was_cut_short_stands_for_a_change_that_was_not_made(
    run_directory: str,
) -> None:
    journal = RunLock("host_policy", 0, run_directory).journal
    journal.append(FIRST)
    with open(journal.path, "a", encoding="ascii") as stream:
        stream.write('["device", "/soc/cry')
    left = journal.read_interrupted()
    assert left
    assert records(left) == [FIRST]


def test_what_was_before_the_last_boot_is_no_more(
    run_directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = RunLock("host_policy", 0, run_directory).journal
    journal.append(FIRST)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(journal_module, "_BOOT_ID", str(tmp_path / "boot_id"))
    assert journal.read_interrupted() is None


def test_an_image_without_proc_has_a_journal_too(
    run_directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_BOOT_ID", str(tmp_path / "nothing"))
    journal = RunLock("host_policy", 0, run_directory).journal
    journal.append(FIRST)
    left = journal.read_interrupted()
    assert left
    assert records(left) == [FIRST]


def test_a_journal_that_cannot_be_read_is_named(run_directory: str) -> None:
    journal = RunLock("host_policy", 0, run_directory).journal
    journal.append(FIRST)
    Path(journal.path).write_text("rubbish\n")
    with pytest.raises(PolicyError, match="/journal, the journal of an interrupted run"):
        journal.read_interrupted()


def test_nothing_is_changed_that_could_not_be_written_down(board: Board) -> None:
    (board.root / "run").mkdir()
    (board.root / "run/journal").mkdir()
    assert "journal" in board.refusal([CRYPTO], reset_required=False)
