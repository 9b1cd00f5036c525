# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices an IOMMU translates for, by ACPI's table IORT. Reads only."""

from __future__ import annotations

import struct

from .._system.sysfs import Sysfs

_TABLES = "firmware/acpi/tables/"
# include/acpi/actbl2.h: the table's own header after the common one; the head of each node.
_HEADER = struct.Struct("<II")
_COMMON = 36
_NODE = struct.Struct("<BHBIII")
_NAMED_COMPONENT = 1
# Flags, memory properties and the address limit stand before a component's name.
_NAME_OFFSET = _NODE.size + 4 + 8 + 1


def translates(sysfs: Sysfs, acpi_path: str) -> bool | None:
    """Return whether an IOMMU translates for the device; None if another table may say so."""
    if sysfs.exists(_TABLES + "VIOT"):
        return None
    return acpi_path in _named_components(sysfs.read_long(_TABLES + "IORT") or b"")


def _named_components(table: bytes) -> list[str]:
    """Return the ACPI paths of all devices with a mapping to an IOMMU, as the kernel compares them.

    iort_match_node_callback in drivers/acpi/arm64/iort.c.
    """
    paths = []
    try:
        count, offset = _HEADER.unpack_from(table, _COMMON)
        for _index in range(count):
            kind, length, _revision, _identifier, mappings, _offset = _NODE.unpack_from(
                table, offset
            )
            if length < _NODE.size:
                # The kernel warns of such a table, and ends there as well (iort_scan_node).
                break
            if kind == _NAMED_COMPONENT and mappings:
                name = table[offset + _NAME_OFFSET : offset + length]
                paths.append(name.partition(b"\0")[0].decode("ascii", "replace"))
            offset += length
    except struct.error:
        # A table that is not there, or cut short.
        return paths
    return paths
