# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A .dtb as a tree of nodes, read by libfdt."""

from __future__ import annotations

import struct
from pathlib import Path

import libfdt

from .devicetree import Node
from .errors import SimulatorError
from .lines import read_limited

_MAGIC = 0xD00DFEED.to_bytes(4, "big")
_HEADER = struct.Struct(">2I")
# FDT_MAX_DEPTH in drivers/of/fdt.c is 64: Linux omits nodes that are deeper than this.
_DEEPEST = 62
# In MiB. Linux on arm64 reads 2 (MAX_FDT_SIZE).
_LARGEST = 16
# Names that a node cannot have, because each is a file name in /sys.
_NO_NAMES = ("", ".", "..")


def read_file(path: Path) -> Node:
    """Return the root of the tree in a .dtb file."""
    blob = read_limited(path, _LARGEST)
    try:
        return read(blob)
    except SimulatorError as error:
        raise SimulatorError(f"{path} {error}") from None


def read(blob: bytes) -> Node:
    """Return the root of the tree; errors are worded to follow the name of the file."""
    _check(blob)
    try:
        root = _unflatten(bytearray(blob))
    except (UnicodeError, SystemError):
        # libfdt's binding raises the latter for a property's name that is not UTF-8.
        raise SimulatorError("is a damaged device tree (a name is not text)") from None
    for node in root.walk():
        _check_names(node)
    return root


def _check(blob: bytes) -> None:
    if not blob:
        raise SimulatorError("is empty")
    if not blob.startswith(_MAGIC[: len(blob)]):
        raise SimulatorError("is not a device tree (its first bytes are not d00dfeed)")
    if len(blob) < _HEADER.size:
        raise SimulatorError(f"is truncated: it has {len(blob)} bytes, less than a header")
    _magic, total_size = _HEADER.unpack_from(blob)
    if total_size > len(blob):
        raise SimulatorError(
            f"is truncated: its header has {total_size} bytes, the file has {len(blob)}"
        )
    problem = libfdt.fdt_check_full(bytearray(blob), len(blob))
    if problem:
        raise SimulatorError(f"is a damaged device tree ({libfdt.strerror(problem)})")


def _unflatten(blob: bytearray) -> Node:
    root = Node("", properties=_properties(blob, 0))
    ancestors = [root]
    offset, depth = libfdt.fdt_next_node(blob, 0, 0)
    while offset >= 0 and depth > 0:
        if depth > _DEEPEST:
            raise SimulatorError(f"has nodes deeper than Linux reads ({_DEEPEST} levels)")
        del ancestors[depth:]
        ancestors.append(_add_child(ancestors[-1], blob, offset))
        offset, depth = libfdt.fdt_next_node(blob, offset, depth)
    return root


def _add_child(parent: Node, blob: bytearray, offset: int) -> Node:
    name, _length = libfdt.fdt_get_name(blob, offset)
    path = f"{parent.path.rstrip('/')}/{name}"
    child = Node(name, path, parent, _properties(blob, offset))
    parent.children.append(child)
    return child


def _properties(blob: bytearray, node: int) -> dict[str, bytes]:
    properties: dict[str, bytes] = {}
    offset = libfdt.fdt_first_property_offset(blob, node)
    while offset >= 0:
        name, value, _length = libfdt.fdt_get_property_by_offset(blob, offset)
        # Linux uses the first of two properties with the same name.
        properties.setdefault(name, bytes(value))
        offset = libfdt.fdt_next_property_offset(blob, offset)
    return properties


def _check_names(node: Node) -> None:
    taken: set[str] = set()
    for name in (*node.properties, *(child.name for child in node.children)):
        if name in _NO_NAMES or "/" in name:
            raise SimulatorError(f"is a damaged device tree ({node.path} has a part {name!r})")
        if name in taken:
            raise SimulatorError(f"is a damaged device tree ({node.path} has {name!r} twice)")
        taken.add(name)
