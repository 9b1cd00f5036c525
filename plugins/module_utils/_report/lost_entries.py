# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of the last-applied list that match nothing any more, as after an upgrade. Pure.

A kernel or firmware can give a device another path, name or compatible. The rules then do nothing
at the boot, and nothing else shows it.
"""

from __future__ import annotations

import string
from typing import NamedTuple, Sequence

from .. import _text
from .._boot.last_applied import LastApplied
from .._boot.matched_devices import MatchedDevice, matched_device
from .._model.device import Identity
from .._model.policy_list import Entry

_HEX = frozenset(string.hexdigits)
_SHOWN = 4


class LostEntry(NamedTuple):
    """An entry that matched ``former`` devices when it was applied, and matches none.

    ``now`` are devices that have the compatible or the address of one of them, the likeliest first.
    """

    entry: Entry
    former: Sequence[str]
    now: Sequence[Identity]
    sentence: str


class _Likeness(NamedTuple):
    """What a device has in common with a former one: the address, a compatible or another id."""

    address: str | None
    identifier: str | None

    def sentence(self, device: Identity) -> str:
        """Return the device, and what it has in common."""
        parts = []
        if self.identifier:
            kind = "compatible" if self.identifier in device.compatible else "id"
            parts.append("the %s %s" % (kind, _text.printable(self.identifier)))
        if self.address:
            parts.append("the address %s" % _text.printable(self.address))
        return "%s has %s" % (device.label, " and ".join(parts))


def find_lost_entries(
    last_applied: LastApplied,
    matches: Sequence[Sequence[Identity]],
    devices: Sequence[Identity],
) -> list[LostEntry]:
    """Return the entries that match nothing now; ``matches`` are the devices of each entry."""
    return [
        _lost(entry, former, devices)
        for entry, former, now in zip(last_applied.entries, last_applied.matched, matches)
        if former and not now
    ]


def _lost(entry: Entry, former: Sequence[MatchedDevice], devices: Sequence[Identity]) -> LostEntry:
    known = [(device, _likeness(matched_device(device), former)) for device in devices]
    alike = [(device, likeness) for device, likeness in known if any(likeness)]
    alike.sort(key=lambda pair: (not all(pair[1]), pair[1].address is None))
    names = [_text.printable(device.path or device.name) for device in former]
    if alike:
        present = _text.listed([likeness.sentence(device) for device, likeness in alike], _SHOWN)
    else:
        present = "no device has its compatible, id or address"
    sentence = (
        "%s matches no device now, but matched %s when the list was applied: now %s. The kernel or "
        "the firmware may have changed. Correct the entry, and apply the list again"
    ) % (entry.selector.label, _text.listed(names, _SHOWN), present)
    return LostEntry(entry, names, [device for device, _likeness_of_it in alike], sentence)


def _likeness(device: MatchedDevice, former: Sequence[MatchedDevice]) -> _Likeness:
    """Return what the device has in common with the former ones."""
    bus = device.name.partition("/")[0]
    of_bus = [other for other in former if other.name.partition("/")[0] == bus]
    addresses = {address for other in of_bus for address in _addresses(other)}
    first_ids = {other.ids[0] for other in of_bus if other.ids}
    return _Likeness(
        next((address for address in _addresses(device) if address in addresses), None),
        next((name for name in device.ids if name in first_ids), None),
    )


def _addresses(device: MatchedDevice) -> list[str]:
    """Return the addresses in a device's names: the unit address of its node, that of its name.

    "/soc/ethernet@e0700000" is "b004000.ethernet", and a PCI function has its own.
    """
    name = device.name.partition("/")[2]
    unit = (device.path or "").rpartition("/")[2].partition("@")[2]
    address, dot, _node = name.partition(".")
    parts = [unit, name if name.count(":") > 1 else dot and address]
    return [
        part if ":" in part else part.lstrip("0") or "0"
        for part in parts
        if part and _HEX.issuperset(part.replace(",", "").replace(":", "").replace(".", ""))
    ]
