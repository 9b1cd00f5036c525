# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Translates addresses of nodes to CPU addresses, as drivers/of/address.c of Linux 6.12 does."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .devicetree import Node
from .nodes import address_cells, base_name, cells_of

_MOST_ADDRESS_CELLS = 4
_ALL_ONES = (1 << 64) - 1
# A generic bus with this number of address cells has flags in the first one.
_CELLS_WITH_FLAGS = 3
# The values of device_type that Linux takes for a PCI host bridge.
_PCI_TYPES = {"pci", "pciex", "vci", "ht"}


class _NoTranslationError(Exception):
    """The address has no translation to a CPU address."""


@dataclass(frozen=True)
class _Bus:
    """The format of the addresses of a node's children; the first cells may be flags."""

    address_cells: int
    size_cells: int
    flag_cells: int = 0
    same_space: Callable[[int, int], bool] = operator.eq

    def offset(self, address: Sequence[int], window: Sequence[int], outer: _Bus) -> int | None:
        """Return the offset of an address in an entry of ``ranges``, or None if it is outside."""
        if self.flag_cells and not self.same_space(address[0], window[0]):
            return None
        own = self.address_cells
        start = _number(window[self.flag_cells : own])
        size = _number(window[own + outer.address_cells :])
        wanted = _number(address[self.flag_cells :])
        inside = start <= wanted < (start + size) & _ALL_ONES
        return wanted - start if inside else None

    def moved(self, address: Sequence[int], offset: int) -> list[int]:
        """Return the address plus an offset."""
        flags, number = address[: self.flag_cells], address[self.flag_cells :]
        total = (_number(number) + offset) & _ALL_ONES
        low = [total >> 32, total & 0xFFFFFFFF][-len(number) :]
        return [*flags, *[0] * (len(number) - len(low)), *low]


def translate(node: Node) -> int | None:
    """Return the first address in ``reg`` as the processor sees it; of_translate_address()."""
    try:
        address = _translated(node)
    except _NoTranslationError:
        return None
    return None if address == _ALL_ONES else address


def resource(node: Node) -> tuple[int, int] | None:
    """Return the first address and its size; of_address_to_resource() with index 0."""
    if node.parent is None:
        return None
    bus = _bus(node.parent)
    reg = node.cells("reg")
    if len(reg) < bus.address_cells + bus.size_cells:
        return None
    start = translate(node)
    size = reg[bus.address_cells : bus.address_cells + bus.size_cells]
    return None if start is None else (start, _number(size))


def _translated(node: Node) -> int:
    parent = node.parent
    if parent is None:
        raise _NoTranslationError
    bus = _usable(_bus(parent))
    address = list(node.cells("reg")[: bus.address_cells])
    if len(address) < bus.address_cells:
        raise _NoTranslationError
    while parent.parent:
        outer = _usable(_bus(parent.parent))
        address = _one_level_up(parent, bus, outer, address)
        parent, bus = parent.parent, outer
    return _number(address)


def _one_level_up(parent: Node, bus: _Bus, outer: _Bus, address: list[int]) -> list[int]:
    if "ranges" not in parent.properties:
        raise _NoTranslationError
    if not parent.properties["ranges"]:
        flags = (address + [0] * outer.address_cells)[: outer.flag_cells]
        start = [*flags, *[0] * (outer.address_cells - len(flags))]
        return outer.moved(start, _number(address))
    ranges = parent.cells("ranges")
    width = bus.address_cells + outer.address_cells + bus.size_cells
    for index in range(0, len(ranges) - width + 1, width):
        window = ranges[index : index + width]
        offset = bus.offset(address, window, outer)
        if offset is not None:
            begin = window[bus.address_cells :][: outer.address_cells]
            return outer.moved(begin, offset)
    raise _NoTranslationError


def _usable(bus: _Bus) -> _Bus:
    if not 0 < bus.address_cells <= _MOST_ADDRESS_CELLS or not bus.size_cells:
        raise _NoTranslationError
    return bus


def _bus(node: Node) -> _Bus:
    """Return the bus of a node's children, as of_match_bus() does."""
    name = base_name(node)
    if name == "pcie" or _PCI_TYPES.intersection(node.strings("device_type")[:1]):
        return _Bus(3, 2, 1, _same_pci_space)
    if name == "isa":
        return _Bus(2, 1, 1, _same_isa_space)
    own = address_cells(node)
    size = cells_of(node, "#size-cells", 1)
    if own == _CELLS_WITH_FLAGS:
        return _Bus(own, size, 1, operator.eq)
    return _Bus(own, size)


def _same_isa_space(ours: int, theirs: int) -> bool:
    return not (ours ^ theirs) & 1


def _same_pci_space(ours: int, theirs: int) -> bool:
    # 32-bit and 64-bit memory are the same address space.
    return min(ours >> 24 & 3, 2) == min(theirs >> 24 & 3, 2)


def _number(cells: Sequence[int]) -> int:
    total = 0
    for cell in cells:
        total = total << 32 | cell
    return total & _ALL_ONES
