# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACPI's tables MADT and IORT for tests, as defined in include/acpi/actbl2.h of Linux."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

TABLES = "firmware/acpi/tables"

PROCESSOR, DISTRIBUTOR, MSI_FRAME, REDISTRIBUTOR = 11, 12, 13, 14
TRANSLATOR, ITS_OF_GICV5 = 15, 29
ITS_GROUP, NAMED_COMPONENT, ROOT_COMPLEX, SMMU, SMMU_V3 = range(5)
SINGLE = 1


class Mapping(NamedTuple):
    """A mapping of IDs to those of another node, which is named by its index among the nodes."""

    node: int
    first: int = 0
    count: int = 0
    output: int = 0
    flags: int = 0


class Node(NamedTuple):
    """A node of IORT, by what follows its head, and its mappings."""

    kind: int
    content: bytes = b""
    mappings: Sequence[Mapping] = ()


def with_header(signature: bytes, content: bytes) -> bytes:
    """Return a table with ACPI's common header of 36 bytes."""
    head = struct.pack(
        "<4sIBB6s8sI4sI", signature, 36 + len(content), 5, 0, b"ACME", b"", 1, b"", 1
    )
    return head + content


def madt(*entries: bytes) -> bytes:
    return with_header(b"APIC", bytes(8) + b"".join(entries))


def entry(kind: int, *, version: int = 0) -> bytes:
    """Return an entry of MADT, which has the version of a GIC if it is its distributor."""
    content = bytes(18) + bytes([version]) + bytes(3)
    return bytes([kind, 2 + len(content)]) + content


def gicv2(*others: int) -> bytes:
    return madt(entry(PROCESSOR), entry(DISTRIBUTOR, version=2), *map(entry, others))


def gicv3(*others: int) -> bytes:
    return madt(entry(PROCESSOR), entry(DISTRIBUTOR, version=3), *map(entry, others))


def component(path: str, *mappings: Mapping) -> Node:
    return Node(NAMED_COMPONENT, struct.pack("<IQB", 0, 0, 64) + path.encode() + b"\0", mappings)


def root_complex(segment: int, *mappings: Mapping) -> Node:
    return Node(ROOT_COMPLEX, struct.pack("<QIIB", 0, 0, segment, 64) + bytes(3), mappings)


def its_group() -> Node:
    return Node(ITS_GROUP, struct.pack("<II", 1, 0))


def smmu(*mappings: Mapping) -> Node:
    return Node(SMMU_V3, bytes(52), mappings)


def offsets(nodes: Sequence[Node]) -> list[int]:
    """Return where in the table each node begins."""
    result = [48]
    for node in nodes:
        result.append(result[-1] + 16 + len(node.content) + 20 * len(node.mappings))
    return result


def iort(*nodes: Node) -> bytes:
    starts = offsets(nodes)
    encoded = [struct.pack("<III", len(nodes), starts[0], 0)]
    for node in nodes:
        first = 16 + len(node.content)
        length = first + 20 * len(node.mappings)
        head = struct.pack("<BHBIII", node.kind, length, 1, 0, len(node.mappings), first)
        encoded += [head, node.content]
        for mapping in node.mappings:
            at = starts[mapping.node] if mapping.node < len(nodes) else 0
            ids = (mapping.first, mapping.count, mapping.output)
            encoded.append(struct.pack("<IIIII", *ids, at, mapping.flags))
    return with_header(b"IORT", b"".join(encoded))
