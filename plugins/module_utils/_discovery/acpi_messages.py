# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where ACPI's tables MADT and IORT let devices send interrupts by message. Reads only.

Of a table that is damaged nothing is concluded, and no ID is translated: a device may reach an ITS
if any of its mappings may.
"""

from __future__ import annotations

import os
import struct
from typing import Iterable, Mapping, NamedTuple

from .._model.buses import BY_BRIDGE, NO_MESSAGES
from .._system.sysfs import Sysfs

_TABLES = "firmware/acpi/tables/"
_MADT, _IORT = _TABLES + "APIC", _TABLES + "IORT"

# struct acpi_table_header in include/acpi/actbl.h: its length in bytes is that of the whole table.
_LENGTH, _LENGTH_OFFSET = struct.Struct("<I"), 4
_COMMON = 36

# struct acpi_table_madt and enum acpi_madt_type in include/acpi/actbl2.h.
_ENTRIES = _COMMON + 8
_ENTRY = struct.Struct("<BB")
_PROCESSOR, _DISTRIBUTOR, _FRAME, _ITS, _ITS_OF_GICV5 = 11, 12, 13, 15, 29
_VERSION_OFFSET = 20

# struct acpi_table_iort, acpi_iort_node, acpi_iort_id_mapping and enum acpi_iort_node_type there.
_NODES = struct.Struct("<II")
_NODE = struct.Struct("<BHBIII")
_MAPPING = struct.Struct("<IIIII")
_ITS_GROUP, _COMPONENT, _ROOT_COMPLEX = 0, 1, 2
# Memory properties stand before both; flags and the address limit before a component's name.
_NAME_OFFSET = _NODE.size + 4 + 8 + 1
_SEGMENT, _SEGMENT_OFFSET = struct.Struct("<I"), _NODE.size + 8 + 4


class Gic(NamedTuple):
    """ARM's interrupt controller: whether it has an ITS, and frames of a GICv2m.

    ``has_frames`` only of a GICv2, which uses all frames that there are (gic_v2_acpi_init in
    drivers/irqchip/irq-gic.c); a GICv3 does if its hardware knows no messages (gic_init_bases in
    irq-gic-v3.c).
    """

    has_its: bool
    has_frames: bool


class Senders(NamedTuple):
    """Devices of the platform, by path, and segments of PCI, whose messages may reach an ITS."""

    components: frozenset[bytes]
    segments: frozenset[int]

    def has_component(self, acpi_path: str) -> bool:
        """Return whether a device is one, as iort_match_node_callback compares paths."""
        return os.fsencode(acpi_path) in self.components

    def has_function(self, name: str) -> bool:
        """Return whether a PCI function is in a segment that is one: pci_domain_nr."""
        try:
            return int(name.partition(":")[0], 16) in self.segments
        except ValueError:
            # No name that the kernel gives.
            return True


class AcpiMessages:
    """Answers for the devices of a machine that ACPI describes. The tables are read once."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._gic = gic_of(sysfs.read_long(_MADT) or b"")
        self._senders: Senders | None = None
        if self._gic and self._gic.has_its:
            self._senders = _read_senders(sysfs)

    @property
    def has_frames(self) -> bool:
        """Whether the machine surely has an MSI domain of a GICv2m."""
        return self._gic is not None and self._gic.has_frames

    def isolates(self, messages_by: str, path: str) -> bool | None:
        """Return False if the device at a path below /sys surely has no ITS, else None."""
        if self._gic is None:
            return None
        if messages_by == NO_MESSAGES or not self._gic.has_its:
            return False
        if self._senders is None:
            return None
        if messages_by == BY_BRIDGE:
            may_reach = self._senders.has_function(path.rpartition("/")[2])
        else:
            acpi_path = self._sysfs.read(path + "/firmware_node/path")
            may_reach = acpi_path is None or self._senders.has_component(acpi_path)
        return None if may_reach else False


def gic_of(madt: bytes) -> Gic | None:
    """Return ARM's interrupt controller as a MADT describes it; None if another one, or damaged."""
    try:
        entries = list(_entries(madt))
        versions = {entry[_VERSION_OFFSET] for kind, entry in entries if kind == _DISTRIBUTOR}
    except (struct.error, ValueError, IndexError):
        return None
    kinds = {kind for kind, _entry in entries}
    if _PROCESSOR not in kinds:
        return None
    return Gic(not kinds.isdisjoint((_ITS, _ITS_OF_GICV5)), _FRAME in kinds and versions == {2})


def _entries(table: bytes) -> Iterable[tuple[int, bytes]]:
    """Yield kind and content of each entry; an error if one is damaged."""
    _require_whole(table)
    offset = _ENTRIES
    while offset < len(table):
        kind, length = _ENTRY.unpack_from(table, offset)
        # Less than an entry would let the next one be the same again.
        if length < _ENTRY.size or offset + length > len(table):
            raise ValueError
        yield kind, table[offset : offset + length]
        offset += length


def _read_senders(sysfs: Sysfs) -> Senders | None:
    table = sysfs.read_long(_IORT)
    if table is None and not sysfs.exists(_IORT):
        return Senders(frozenset(), frozenset())
    return senders_of(table or b"")


def senders_of(iort: bytes) -> Senders | None:
    """Return what an IORT connects with an ITS; None if it is damaged.

    iort_get_platform_device_domain and iort_get_device_domain in drivers/acpi/arm64/iort.c.
    """
    try:
        senders = _reaching(dict(_nodes(iort)))
        return Senders(
            frozenset(_name(node.content) for node in senders if node.kind == _COMPONENT),
            frozenset(_segment(node.content) for node in senders if node.kind == _ROOT_COMPLEX),
        )
    except (struct.error, ValueError):
        return None


class _Node(NamedTuple):
    """A node of IORT, and the offsets of those that its mappings lead to."""

    kind: int
    content: bytes
    parents: frozenset[int]


def _nodes(table: bytes) -> Iterable[tuple[int, _Node]]:
    """Yield all nodes with their offsets in the table; an error if one is damaged."""
    _require_whole(table)
    count, offset = _NODES.unpack_from(table, _COMMON)
    for _index in range(count):
        kind, length, _revision, _identifier, mappings, first = _NODE.unpack_from(table, offset)
        end = first + mappings * _MAPPING.size
        # Less than a node would let the next one be the same again.
        if length < _NODE.size or offset + length > len(table) or (mappings and end > length):
            raise ValueError
        content = table[offset : offset + length]
        parents = frozenset(fields[3] for fields in _MAPPING.iter_unpack(content[first:end]))
        yield offset, _Node(kind, content, parents)
        offset += length


def _reaching(nodes: Mapping[int, _Node]) -> list[_Node]:
    """Return the nodes from which mappings lead to an ITS, or to what is no node."""
    children: dict[int, list[int]] = {}
    for offset, node in nodes.items():
        for parent in node.parents:
            children.setdefault(parent, []).append(offset)
    waiting = [offset for offset in children if offset not in nodes]
    waiting += [offset for offset, node in nodes.items() if node.kind == _ITS_GROUP]
    reaching: set[int] = set()
    while waiting:
        offset = waiting.pop()
        if offset not in reaching:
            reaching.add(offset)
            waiting += children.get(offset, ())
    return [nodes[offset] for offset in reaching if offset in nodes]


def _name(content: bytes) -> bytes:
    """Return a component's name; a ValueError if it has no end."""
    return content[_NAME_OFFSET : content.index(b"\0", _NAME_OFFSET)]


def _segment(content: bytes) -> int:
    """Return a root complex's segment; a struct.error if it is too short for one."""
    segment: int = _SEGMENT.unpack_from(content, _SEGMENT_OFFSET)[0]
    return segment


def _require_whole(table: bytes) -> None:
    """Raise an error if the table is not as long as its header says."""
    if _LENGTH.unpack_from(table, _LENGTH_OFFSET) != (len(table),):
        raise ValueError
