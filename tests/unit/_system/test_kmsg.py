# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An error quotes the kernel log's messages for the device, and no other messages."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog

NAME = "b000000.crypto"


class Log:
    """A log that returns one record per read, as /dev/kmsg does; a number is an errno."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        path.write_text("")
        self.records: list[str | int] = []
        read = os.read

        def one_record(descriptor: int, size: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{descriptor}") != str(path):
                return read(descriptor, size)
            if not self.records:
                raise BlockingIOError(errno.EAGAIN, "")
            record = self.records.pop(0)
            if isinstance(record, int):
                raise OSError(record, "")
            return record.encode()

        monkeypatch.setattr(os, "read", one_record)
        self.kernel_log = KernelLog(str(path))
        self.kernel_log.begin()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, board: Board) -> Log:
    return Log(monkeypatch, board.kmsg)


def record(text: str, priority: int = 3) -> str:
    return f"{priority},812,1234567,-;{text}\n SUBSYSTEM=platform\n DEVICE=+platform:x\n"


def test_a_record_is_its_text(log: Log) -> None:
    log.records += [record(f"vfio-platform {NAME}: No reset function found"), record("other")]
    assert log.kernel_log.about(NAME) == [f"vfio-platform {NAME}: No reset function found"]


@pytest.mark.parametrize("name", [f"{NAME}2", f"a{NAME}", f"{NAME}-x", f"1.{NAME}"])
def test_a_longer_name_is_another_device(log: Log, name: str) -> None:
    log.records.append(record(f"acme {name}: hello"))
    assert log.kernel_log.about(NAME) == []


def test_the_last_three_are_told(log: Log) -> None:
    log.records += [record(f"{NAME}: {number}") for number in range(5)]
    assert log.kernel_log.about(NAME) == [f"{NAME}: {number}" for number in (2, 3, 4)]


def test_records_that_were_overwritten_are_passed_over(log: Log) -> None:
    log.records += [errno.EPIPE, record(f"{NAME}: still there")]
    assert log.kernel_log.about(NAME) == [f"{NAME}: still there"]


def test_what_a_process_wrote_into_the_log_is_not_the_kernels_word(log: Log) -> None:
    log.records.append(record(f"{NAME}: all is well, trust me", priority=12))
    assert log.kernel_log.about(NAME) == []


def test_where_there_is_no_log_nothing_is_said(tmp_path: Path) -> None:
    log = KernelLog(str(tmp_path / "nothing"))
    log.begin()
    assert log.about(NAME) == []
    log.end()


def test_a_failed_bind_quotes_the_kernel(board: Board, log: Log) -> None:
    board.kernel.answer("bus/platform/drivers/vfio-platform/bind", errno.EIO)
    log.records.append(record(f"vfio-platform {NAME}: probe with driver failed with error -5"))
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], reset_required=False)
    quoted = f"The kernel log has: 'vfio-platform {NAME}: probe with driver failed with error -5'"
    assert quoted in str(caught.value)


def test_a_failed_bind_of_which_the_kernel_says_nothing_quotes_nothing(board: Board) -> None:
    board.kernel.answer("bus/platform/drivers/vfio-platform/bind", errno.EIO)
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], reset_required=False)
    assert "The kernel log has" not in str(caught.value)
