# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A device tree as nodes; dtb.py reads one from a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Iterator


@dataclass(eq=False, repr=False)
class Node:
    """A node; its properties are raw bytes. Both they and its children are in file order."""

    name: str
    path: str = "/"
    parent: Node | None = None
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Node {self.path}>"

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a property's list of strings; empty if there is no such property."""
        value = self.properties.get(name)
        if not value:
            return ()
        return tuple(_text(value[:-1] if value.endswith(b"\0") else value).split("\0"))

    def cells(self, name: str) -> tuple[int, ...]:
        """Return a property's list of 32-bit numbers; empty if there is no such property."""
        value = self.properties.get(name, b"")
        return struct.unpack_from(f">{len(value) // 4}I", value)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all nodes below it, in the order of the file."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
