# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The devices that each entry of a list matched when it was applied: header lines. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Sequence

from .._model.device import Identity

MARK = "# matched: "
# udev skips a file that has a line of 16 KiB (UDEV_LINE_SIZE in systemd's udev-rules.c). Firmware
# can have long names, and JSON has up to twelve characters for one of theirs.
_MOST_DEVICES, _MOST_IDS = 32, 4
_LONGEST_NAME, _LONGEST_PATH = 128, 256


class MatchedDevice(NamedTuple):
    """A device as it was when a list was applied.

    ``name`` is that on its bus ("platform/b000000.crypto"), ``path`` that in the device tree or in
    ACPI, None if it has none. ``ids`` are what it is: its compatibles, the most specific first, its
    ACPI or its PCI id.
    """

    name: str
    path: str | None = None
    ids: tuple[str, ...] = ()


def matched_device(device: Identity) -> MatchedDevice:
    """Return what is recorded of a device."""
    ids = device.compatible or tuple(filter(None, (device.acpi_hid,))) or device.pci_id[-1:]
    return MatchedDevice(
        device.name_on_bus[:_LONGEST_NAME],
        (device.dt_path or device.acpi_path or "")[:_LONGEST_PATH] or None,
        tuple(name[:_LONGEST_NAME] for name in ids[:_MOST_IDS]),
    )


def matched_devices(devices: Sequence[Identity]) -> list[MatchedDevice]:
    """Return what is recorded of the devices that an entry matches: the first of them."""
    return [matched_device(device) for device in devices[:_MOST_DEVICES]]


def to_lines(devices: Sequence[MatchedDevice] = ()) -> list[str]:
    """Return the lines of the header that follow the entry which matched the devices."""
    return [MARK + json.dumps(_to_mapping(device)) for device in devices]


def parse(lines: Sequence[str], entry_mark: str) -> Sequence[Sequence[MatchedDevice]]:
    """Return the devices of each entry; nothing if none are recorded, as by earlier versions.

    ``entry_mark`` is how the line of an entry begins. ValueError if a line is damaged.
    """
    matched: list[list[MatchedDevice]] = []
    for line in lines:
        if line.startswith(entry_mark):
            matched.append([])
        elif line.startswith(MARK) and matched:
            # Without an entry above it, a line says nothing.
            matched[-1].append(_parsed(json.loads(line[len(MARK) :])))
    return matched if any(matched) else ()


def _to_mapping(device: MatchedDevice) -> dict[str, Any]:
    mapping: dict[str, Any] = {"name": device.name}
    if device.path is not None:
        mapping["path"] = device.path
    if device.ids:
        mapping["ids"] = list(device.ids)
    return mapping


def _parsed(record: Any) -> MatchedDevice:
    if not isinstance(record, dict) or not {"name"} <= set(record) <= {"name", "path", "ids"}:
        raise ValueError("%r is not a record of a device" % (record,))
    ids = record.get("ids", [])
    if not isinstance(ids, list):
        raise ValueError("%r is not a list of ids" % (ids,))
    texts = [record["name"], record.get("path", ""), *ids]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("%r is not a record of a device" % (record,))
    return MatchedDevice(record["name"], record.get("path"), tuple(ids))
