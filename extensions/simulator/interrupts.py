# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the controllers of a node's interrupts, as drivers/of/irq.c of Linux 6.12 does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .devicetree import Node
from .nodes import (
    address_cells,
    cells_of,
    find_interrupt_parent,
    first_cell,
    is_available,
    is_compatible,
)

# of_irq_imap_abusers: only their drivers use this interrupt-map
_OWN_MAP = frozenset(
    {
        "cbea,platform-spider-pic",
        "sti,platform-spider-pic",
        "realtek,rtl-intc",
        "fsl,ls1021a-extirq",
        "fsl,ls1043a-extirq",
        "fsl,ls1088a-extirq",
        "renesas,rza1-irqc",
        "pasemi,rootbus",
    }
)
_EVERY_BIT = 0xFFFFFFFF
# of_irq_parse_one() reads at most this number of cells of a device's reg.
_UNIT_CELLS = 3


class _Hop(NamedTuple):
    """A node on the path of an interrupt, and the interrupt as that node numbers it."""

    node: Node
    unit: Sequence[int]
    specifier: Sequence[int]


def controllers(node: Node, by_phandle: Mapping[int, Node]) -> Iterator[Node]:
    """Yield the controller of each interrupt, up to the first interrupt without one."""
    unit = [*node.cells("reg")[:_UNIT_CELLS], *[0] * _UNIT_CELLS][:_UNIT_CELLS]
    for parent, specifier in _interrupts(node, by_phandle):
        controller = _last(_Hop(parent, unit, specifier), by_phandle)
        if not controller:
            return
        yield controller


def mapped_controllers(node: Node, by_phandle: Mapping[int, Node]) -> Iterator[Node]:
    """Yield the parents that a node's own interrupt-map names."""
    width = first_cell(node, "#interrupt-cells")
    if width is not None:
        for _ours, parent in _entries(node, address_cells(node) + width, by_phandle):
            yield parent.node


def _interrupts(node: Node, by_phandle: Mapping[int, Node]) -> Iterator[tuple[Node, Sequence[int]]]:
    if "interrupts-extended" in node.properties:
        yield from _extended(node.cells("interrupts-extended"), by_phandle)
        return
    parent = find_interrupt_parent(node, by_phandle)
    width = first_cell(parent, "#interrupt-cells") if parent else None
    if parent and width:
        cells = node.cells("interrupts")
        for start in range(0, len(cells) - width + 1, width):
            yield parent, cells[start : start + width]


def _extended(
    cells: Sequence[int], by_phandle: Mapping[int, Node]
) -> Iterator[tuple[Node, Sequence[int]]]:
    while cells:
        parent = by_phandle.get(cells[0])
        width = first_cell(parent, "#interrupt-cells") if parent else None
        if parent is None or width is None or len(cells) <= width:
            return
        yield parent, cells[1 : 1 + width]
        cells = cells[1 + width :]


def _last(hop: _Hop | None, by_phandle: Mapping[int, Node]) -> Node | None:
    """Follow the hops up to a controller, as of_irq_parse_raw() does."""
    seen: set[Node] = set()
    hop = hop and _counted_in(hop)
    while hop and hop.node not in seen:
        seen.add(hop.node)
        has_map = "interrupt-map" in hop.node.properties
        is_controller = "interrupt-controller" in hop.node.properties
        if is_controller and (not has_map or is_compatible(hop.node, _OWN_MAP)):
            return hop.node
        following = _mapped(hop, by_phandle) if has_map else _above(hop, by_phandle)
        if following and following.node is hop.node:
            return hop.node
        hop = following
    return None


def _counted_in(hop: _Hop) -> _Hop:
    width = cells_of(hop.node, "#address-cells", 2)
    return hop._replace(unit=[*hop.unit, *[0] * width][:width])


def _above(hop: _Hop, by_phandle: Mapping[int, Node]) -> _Hop | None:
    parent = find_interrupt_parent(hop.node, by_phandle)
    return hop._replace(node=parent) if parent else None


def _mapped(hop: _Hop, by_phandle: Mapping[int, Node]) -> _Hop | None:
    wanted = [*hop.unit, *hop.specifier]
    given = hop.node.cells("interrupt-map-mask")[: len(wanted)]
    mask = [*given, *[_EVERY_BIT] * (len(wanted) - len(given))]
    for ours, parent in _entries(hop.node, len(wanted), by_phandle):
        compared = zip(wanted, ours, mask)
        if is_available(parent.node) and not any((a ^ b) & bits for a, b, bits in compared):
            return parent
    return None


def _entries(
    node: Node, width: int, by_phandle: Mapping[int, Node]
) -> Iterator[tuple[Sequence[int], _Hop]]:
    """Yield the entries of an interrupt-map, up to the first that is malformed."""
    cells = node.cells("interrupt-map")
    while len(cells) > width + 1:
        parent = by_phandle.get(cells[width])
        specifier = first_cell(parent, "#interrupt-cells") if parent else None
        if parent is None or specifier is None:
            return
        unit = width + 1 + (first_cell(parent, "#address-cells") or 0)
        end = unit + specifier
        if len(cells) < end:
            return
        yield cells[:width], _Hop(parent, cells[width + 1 : unit], cells[unit:end])
        cells = cells[end:]
