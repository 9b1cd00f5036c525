# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that writes nothing reads each file of /sys once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Callable, cast

import pytest
from board import LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import inspect
from ansible_collections.armfleet.vfio.plugins.module_utils._system import read_once as module
from ansible_collections.armfleet.vfio.plugins.module_utils._system.read_once import read_once
from ansible_collections.armfleet.vfio.plugins.module_utils._system.recorded_reads import READS
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

KEPT = sorted(module._READS)


class CountingSysfs:
    """A gateway to /sys that counts its calls."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self.calls: Counter[tuple[Any, ...]] = Counter()

    def __getattr__(self, name: str) -> Any:
        attribute: Callable[..., Any] = getattr(self._sysfs, name)
        if name not in READS["sysfs"]:
            return attribute

        def read(*arguments: Any) -> Any:
            self.calls[(name, *map(str, arguments))] += 1
            return attribute(*arguments)

        return read


@pytest.mark.parametrize("method", KEPT)
def test_a_repeated_read_has_the_answer_of_the_first(tmp_path: Path, method: str) -> None:
    (tmp_path / "device/power").mkdir(parents=True)
    (tmp_path / "device/uevent").write_text("DRIVER=pl011\n")
    (tmp_path / "device/driver").symlink_to("../pl011")
    sysfs = CountingSysfs(Sysfs(str(tmp_path)))
    once = read_once(cast("Sysfs", sysfs))
    for path in ("device", "device/uevent", "device/driver", "nothing"):
        answers = [getattr(once, method)(path) for _time in range(3)]
        assert answers == [getattr(Sysfs(str(tmp_path)), method)(path)] * 3
    assert set(sysfs.calls.values()) == {1}
    assert len(sysfs.calls) == 4


def test_what_takes_the_device_lock_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "driver_override").write_text("(null)\n")
    once = read_once(Sysfs(str(tmp_path), timeout=5))
    assert once.read_locked(["driver_override"]) == ["(null)"]
    (tmp_path / "driver_override").write_text("vfio-platform\n")
    assert once.read_locked(["driver_override"]) == ["vfio-platform"]
    once.close()


@pytest.mark.parametrize("entries", [[], LIST])
def test_device_info_reads_each_file_once(board: Board, entries: list[dict[str, Any]]) -> None:
    board.apply(entries, reset_required=False)
    sysfs = CountingSysfs(board.kernel)
    host = board.host._replace(sysfs=cast("Sysfs", sysfs))
    findings = inspect(host, lambda read: board.usage_by(read.sysfs), None)
    assert all(inspection.candidate for inspection in findings.devices)
    repeated = {call for call, count in sysfs.calls.items() if count > 1}
    assert {name for name, *_arguments in repeated} <= {"read_locked"}
