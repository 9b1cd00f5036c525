# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which numbers of virtual functions a list changes, and which functions there are then."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from .._boot.last_applied import LastApplied
from .._discovery.devices import resolve_all, with_all_ids
from .._discovery.virtual_functions import expected, is_virtual, numvfs, present, why_not
from .._errors import Problems
from .._model.claimed import NumVfs
from .._model.device import Identity
from .._model.policy_list import Entry
from .._model.request import Request
from .._system.sysfs import Sysfs


class PlannedNumVfs(NamedTuple):
    """The changes, and the numbers before the first list that set them, by stable name."""

    changes: Mapping[Identity, NumVfs]
    before: Mapping[str, int]

    @property
    def created(self) -> set[Identity]:
        """The functions that are not there yet."""
        return {device for change in self.changes.values() for device in change.created}

    def devices(self, present_now: Sequence[Identity]) -> list[Identity]:
        """Return the devices once the changes are made, from those that are ``present_now``."""
        removed = {
            device.name_on_bus for change in self.changes.values() for device in change.removed
        }
        created = [device for change in self.changes.values() for device in change.created]
        kept = [device for device in present_now if device.name_on_bus not in removed]
        return kept + created


def plan_numvfs(
    sysfs: Sysfs,
    request: Request,
    earlier: LastApplied,
    devices: Sequence[Identity],
    problems: Problems,
) -> PlannedNumVfs:
    """Return what the list asks for, and gives back of what the list last applied asked for."""
    asked: dict[Identity, int] = {}
    for position, entry in request.by_position:
        for device in _matches(sysfs, entry, devices):
            problem = why_not(sysfs, device, entry.sriov_numvfs or 0)
            if problem:
                problems.add(problem, position=position)
            elif entry.sriov_numvfs is not None:
                asked.setdefault(device, entry.sriov_numvfs)
    recorded = {device: earlier.numvfs_before_of(device) for device in asked}
    before = {
        device.stable_name: (numvfs(sysfs, device) or 0) if number is None else number
        for device, number in recorded.items()
    }
    # What somebody else has set since is left.
    ours = [
        device
        for entry in (earlier.entries if request.is_whole_list else ())
        for device in _matches(sysfs, entry, devices)
        if numvfs(sysfs, device) == entry.sriov_numvfs
    ]
    for device in ours:
        asked.setdefault(device, earlier.numvfs_before_of(device) or 0)
    changes = {
        device: _change(sysfs, device, number, is_ours=device in ours)
        for device, number in asked.items()
    }
    return PlannedNumVfs(
        {device: change for device, change in changes.items() if change.before != change.after},
        before,
    )


def _matches(sysfs: Sysfs, entry: Entry, devices: Sequence[Identity]) -> list[Identity]:
    if entry.sriov_numvfs is None:
        return []
    selector = entry.selector._replace(required=False, expect=None)
    (matches,) = resolve_all(sysfs, [selector], devices).devices
    # Those of an NVMe have the ids of their physical function.
    return [with_all_ids(sysfs, device) for device in matches if not is_virtual(sysfs, device)]


def _change(sysfs: Sysfs, device: Identity, number: int, *, is_ours: bool) -> NumVfs:
    now = numvfs(sysfs, device) or 0
    if now == number:
        return NumVfs(now, number)
    # The kernel changes a number only from and to 0.
    removed, created = present(sysfs, device), expected(sysfs, device, number)
    return NumVfs(now, number, removed, created, is_ours)
