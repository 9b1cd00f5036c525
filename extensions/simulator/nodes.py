# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Queries of device-tree nodes, as in drivers/of/base.c and irq.c of Linux 6.12."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from .devicetree import Node


def is_available(node: Node) -> bool:
    """Return whether the node itself is enabled, regardless of its ancestors."""
    return "status" not in node.properties or node.strings("status")[:1] in (("okay",), ("ok",))


def is_compatible(node: Node, wanted: Collection[str]) -> bool:
    """Return whether any of the node's compatibles is in ``wanted``; Linux ignores case."""
    return any(value.lower() in wanted for value in node.strings("compatible"))


def base_name(node: Node) -> str:
    """Return the name without its unit address."""
    return node.name.partition("@")[0]


def of_properties(node: Node, kind: str, aliases: Sequence[str]) -> Iterator[str]:
    """Yield event properties of a device's node, as of_device_uevent in drivers/of/device.c."""
    compatible = node.strings("compatible")
    yield f"OF_NAME={node.name.partition('@')[0]}"
    yield f"OF_FULLNAME={node.path}"
    if kind != "(null)":
        yield f"OF_TYPE={kind}"
    for number, value in enumerate(compatible):
        yield f"OF_COMPATIBLE_{number}={value}"
    yield f"OF_COMPATIBLE_N={len(compatible)}"
    for number, alias in enumerate(aliases):
        yield f"OF_ALIAS_{number}={alias}"


def first_cell(node: Node, name: str) -> int | None:
    """Return a property's first number."""
    return next(iter(node.cells(name)), None)


def cells_of(node: Node, name: str, default: int) -> int:
    """Return a property's first number, inherited from ancestors as #address-cells in Linux."""
    current: Node | None = node
    while current:
        number = first_cell(current, name)
        if number is not None:
            return number
        current = current.parent
    return default


def address_cells(node: Node) -> int:
    """Return how many cells the addresses of a node's children have."""
    return cells_of(node, "#address-cells", 1)


def child(node: Node, name: str) -> Node | None:
    """Return the child of this full name."""
    return next((candidate for candidate in node.children if candidate.name == name), None)


def phandles(root: Node) -> dict[int, Node]:
    """Return every node that has a phandle, by that number."""
    by_number: dict[int, Node] = {}
    for node in root.walk():
        number = first_cell(node, "phandle") or first_cell(node, "linux,phandle")
        if number:
            by_number.setdefault(number, node)
    return by_number


def find_interrupt_parent(node: Node, by_phandle: Mapping[int, Node]) -> Node | None:
    """Return the interrupt parent of a node, as of_irq_find_parent() does."""
    current: Node | None = node
    seen: set[Node] = set()
    while current and current not in seen:
        seen.add(current)
        phandle = first_cell(current, "interrupt-parent")
        current = current.parent if phandle is None else by_phandle.get(phandle)
        if current and "#interrupt-cells" in current.properties:
            return current
    return None
