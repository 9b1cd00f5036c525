# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info returns its last answer again while all that it read is the same.

That is so where it is not asked who uses the devices, as by drift and rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from board import CRYPTO, DMA, Board
from kept_answers import Module, unrecorded_reads

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import last_answer
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    RULES,
    WAITS_FOR_BOOT,
)

OPTIONS = {"candidates": False, "in_use": False}
OTHER = "b001000.crypto"


@pytest.fixture
def module(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Module:
    for directory in ("etc/driverctl.d", "proc", "run"):
        (board.files_root / directory).mkdir(parents=True, exist_ok=True)
    board.write_file("/proc/stat", "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n")
    return Module("device_info", OPTIONS, board, monkeypatch, capsys)


@pytest.fixture
def kept(module: Module, board: Board) -> Module:
    """The module after it was run on a host that is in sync."""
    board.apply([CRYPTO, DMA], reset_required=False)
    assert module.is_run()
    return module


def test_the_second_of_two_runs_gives_the_answer_of_the_first(kept: Module) -> None:
    again = kept()
    assert kept.runs == 1
    assert again == kept(code=None)
    assert again["policy_list"]


def test_nothing_is_written_for_it(kept: Module, board: Board) -> None:
    before, written = board.everything(), kept.kept.stat()
    assert not kept.is_run()
    assert board.everything() == before
    assert kept.kept.stat().st_mtime_ns == written.st_mtime_ns


def test_other_lines_of_proc_stat_do_not_matter(kept: Module, board: Board) -> None:
    board.write_file("/proc/stat", "cpu 9 9 9\nbtime 1700000000\nprocesses 6\n")
    assert not kept.is_run()


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.kernel.put("devices/platform/b000000.crypto/driver_override", "x\n"),
        lambda board: board.kernel.write(
            "bus/platform/drivers/vfio-platform/unbind", "b000000.crypto"
        ),
        lambda board: board.kernel.write("bus/platform/drivers/acme-crypto/unbind", OTHER),
        lambda board: board.write_file("/etc/udev/rules.d/99-x.rules", 'ATTR{driver_override}="x"'),
        lambda board: board.write_file("/etc/modprobe.d/x.conf", "blacklist vfio-platform\n"),
        lambda board: board.write_file("/etc/driverctl.d/platform-x", "vfio-platform\n"),
        lambda board: board.write_file(WAITS_FOR_BOOT, ""),
        lambda board: (board.files_root / RULES[1:]).unlink(),
        lambda board: (board.files_root / MODPROBE[1:]).chmod(0o666),
        lambda board: board.kernel.add_device("d.crypto", "/soc/crypto@d", ("acme,crypto",)),
        lambda board: board.write_file("/proc/stat", "btime 1600000000\n"),
        lambda board: board.write_file("/proc/cmdline", "module_blacklist=vfio"),
    ],
)
def test_a_change_of_the_host_is_seen(
    kept: Module, board: Board, change: Callable[[Board], object]
) -> None:
    change(board)
    asked = kept()
    assert kept.runs == 2
    assert asked == kept(code=None)


@pytest.mark.parametrize("options", [{"candidates": True}, {"in_use": True}], ids=str)
def test_who_uses_devices_is_found_out_each_time(
    module: Module, board: Board, options: dict[str, Any]
) -> None:
    board.apply([CRYPTO, DMA], reset_required=False)
    module(**options)
    assert module.is_run(**options)
    assert not module.all_kept


def test_a_host_that_has_drifted_is_inspected_each_time(kept: Module, board: Board) -> None:
    board.kernel.write("bus/platform/drivers/vfio-platform/unbind", "b000000.crypto")
    for _time in range(2):
        drifting = [device["name"] for device in kept()["devices"] if device["drift"]]
        assert drifting == ["b000000.crypto"]
    assert kept.runs == 3


def test_a_host_without_a_list_stays_without_files(module: Module, board: Board) -> None:
    before = board.everything()
    assert not module()["policy_list"]
    assert module.is_run()
    assert not module.all_kept
    assert board.everything() == before


def test_nothing_is_kept_in_check_mode(module: Module, board: Board) -> None:
    board.apply([CRYPTO, DMA], reset_required=False)
    module(check_mode=True)
    assert not module.all_kept


@pytest.mark.parametrize(
    "options",
    [{}, {"only_claimed": True}, {"devices": [{"name": OTHER}]}, {"devices": []}],
    ids=str,
)
def test_it_reads_nothing_that_is_not_recorded(
    kept: Module, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    is_kept: list[object] = []
    monkeypatch.setattr(
        last_answer.LastAnswer, "keep", lambda *arguments: is_kept.append(arguments)
    )
    with unrecorded_reads(monkeypatch) as strangers:
        assert kept.is_run(code="2", **options)
    assert is_kept
    assert not strangers
