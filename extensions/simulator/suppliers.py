# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Device links, as fw_devlink of Linux 6.12 (drivers/of/property.c, drivers/base/core.c).

``iommus``, ``iommu-map`` and ``dmas`` create no links there unless fw_devlink.strict is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .devicetree import Node
from .early import set_up_early
from .interrupts import controllers, mapped_controllers
from .nodes import base_name, first_cell, is_available, phandles
from .population import Planned

# of_supplier_bindings: lists of phandles, and the property with the number of cells after each.
_LISTS = {
    "clocks": "#clock-cells",
    "interconnects": "#interconnect-cells",
    "mboxes": "#mbox-cells",
    "io-channels": "#io-channel-cells",
    "io-backends": "#io-backend-cells",
    "power-domains": "#power-domain-cells",
    "hwlocks": "#hwlock-cells",
    "extcon": None,
    "nvmem-cells": "#nvmem-cell-cells",
    "phys": "#phy-cells",
    "wakeup-parent": None,
    **{f"pinctrl-{number}": None for number in range(9)},
    "pwms": "#pwm-cells",
    "resets": "#reset-cells",
    "leds": None,
    "backlight": None,
    "panel": None,
    "msi-parent": "#msi-cells",
    "post-init-providers": None,
    "access-controllers": "#access-controller-cells",
    "pses": "#pse-cells",
    "power-supplies": None,
}
_IGNORED = "post-init-providers"
_ENDPOINT = "remote-endpoint"
_PORTS = ("ports", "in-ports", "out-ports")


class Link(NamedTuple):
    """A link, with the property in which the consumer's node refers to the supplier."""

    consumer: Node
    supplier: Node
    property: str


def suppliers(root: Node, planned: Sequence[Planned]) -> list[Link]:
    """Return device links: a consumer is probed after its supplier, and unbound before it.

    If a supplier is no device, the nearest device above it takes its place, as in Linux once that
    one is bound. References in a cycle delay no probe and create no link.
    """
    return _Links(root, planned).firm()


def sync_state_links(root: Node, planned: Sequence[Planned]) -> list[Link]:
    """Return links that delay no probe (SYNC_STATE_ONLY), until the consumer is first bound.

    A device has them for nodes below it, and for a supplier that itself needs the device.
    """
    return _Links(root, planned).loose()


class _Links:
    """The references of devices' nodes, and the resulting links."""

    def __init__(self, root: Node, planned: Sequence[Planned]) -> None:
        self._order = {device.node: number for number, device in enumerate(planned)}
        self._parents = {
            device.node: device.parent.node if device.parent else None for device in planned
        }
        self._early = set_up_early(root)
        self._references = self._read(phandles(root))
        self._needs: dict[Node, list[Node]] = {}
        for consumer, supplier, _name in self._references:
            self._needs.setdefault(consumer, []).append(supplier)
        self._reached: dict[Node, set[Node]] = {}

    def firm(self) -> list[Link]:
        links: dict[tuple[Node, Node], Link] = {}
        for consumer, named, name in self._references:
            supplier = self._device_for(named)
            is_link = consumer in self._order and supplier not in (None, consumer)
            if supplier and is_link and not self._is_cycle(consumer, named):
                links.setdefault((consumer, supplier), Link(consumer, supplier, name))
        return list(links.values())

    def loose(self) -> list[Link]:
        firm = {(link.consumer, link.supplier) for link in self.firm()}
        links: dict[tuple[Node, Node], Link] = {}
        for reference in self._references:
            supplier = reference.supplier
            for device in self._stand_ins(reference) if supplier in self._order else ():
                if device is not supplier and (device, supplier) not in firm:
                    link = Link(device, supplier, reference.property)
                    links.setdefault((device, supplier), link)
        return list(links.values())

    def _stand_ins(self, reference: Link) -> Iterator[Node]:
        """Yield the devices that get a SYNC_STATE_ONLY link for a reference."""
        consumer, supplier, _name = reference
        if consumer in self._order and self._is_cycle(consumer, supplier):
            yield consumer
        above = [node for node in _ancestors(consumer) if node in self._order]
        yield from (node for node in above if self._order[node] > self._order[supplier])
        if consumer not in self._order:
            # The supplier had no consumer when it was added. A device is no consumer of its child.
            yield from (node for node in above[:1] if node not in _ancestors(supplier))

    def _read(self, by_phandle: Mapping[int, Node]) -> list[Link]:
        """Return references of devices and of available nodes below, as of_fwnode_add_links()."""
        links: dict[tuple[Node, Node], Link] = {}
        ignored: set[tuple[Node, Node]] = set()
        for node in self._read_nodes():
            for name in node.properties:
                consumer = _port_parent(node) if name == _ENDPOINT else node
                for supplier in _named(node, name, by_phandle):
                    if consumer and self._is_usable(supplier):
                        links.setdefault((consumer, supplier), Link(consumer, supplier, name))
                    if consumer and name == _IGNORED:
                        ignored.add((consumer, supplier))
        return [link for ends, link in links.items() if ends not in ignored]

    def _read_nodes(self) -> Iterator[Node]:
        seen: set[Node] = set()
        waiting = list(reversed(self._order))
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                yield node
                waiting += filter(is_available, reversed(node.children))

    def _is_usable(self, supplier: Node) -> bool:
        """Return whether the nodes up to the first device are available and not set up early."""
        for node in (supplier, *_ancestors(supplier)):
            if node in self._early:
                return False
            if node in self._order:
                return True
            if not is_available(node):
                return False
        return True

    def _device_for(self, supplier: Node) -> Node | None:
        return next(
            (node for node in (supplier, *_ancestors(supplier)) if node in self._order), None
        )

    def _is_cycle(self, consumer: Node, supplier: Node) -> bool:
        """Return whether supplier or parent need the consumer: __fw_devlink_relax_cycles()."""
        if supplier not in self._reached:
            self._reached[supplier] = self._reach(supplier)
        return consumer in self._reached[supplier]

    def _reach(self, start: Node) -> set[Node]:
        reached = {start}
        waiting = [start]
        while waiting:
            node = waiting.pop()
            device_above = self._parents.get(node) if node in self._order else self._above(node)
            for needed in (*self._needs.get(node, ()), device_above):
                if needed and needed not in reached:
                    reached.add(needed)
                    waiting.append(needed)
        return reached

    def _above(self, node: Node) -> Node | None:
        return next((ancestor for ancestor in _ancestors(node) if ancestor in self._order), None)


def _named(node: Node, name: str, by_phandle: Mapping[int, Node]) -> Iterator[Node]:
    """Return the suppliers in a property up to the first hole, as of_supplier_bindings does."""
    cells = node.cells(name)
    if name in _LISTS:
        return _listed(cells, by_phandle, _LISTS[name], default=0)
    if name in ("interrupts", "interrupts-extended"):
        return controllers(node, by_phandle)
    if name == "interrupt-map":
        return mapped_controllers(node, by_phandle)
    if name == _ENDPOINT:
        parents = (_port_parent(other) for other in _listed(cells[:1], by_phandle))
        return (parent for parent in parents if parent)
    if _is_suffix(name, "-supply"):
        return _listed(cells, by_phandle)
    if _names_gpios(node, name):
        return _listed(cells, by_phandle, "#gpio-cells")
    return iter(())


def _listed(
    cells: Sequence[int],
    by_phandle: Mapping[int, Node],
    counted_by: str | None = None,
    default: int | None = None,
) -> Iterator[Node]:
    index = 0
    while index < len(cells):
        supplier = by_phandle.get(cells[index])
        if not supplier:
            return
        count = first_cell(supplier, counted_by) if counted_by else 0
        count = default if count is None else count
        index += 1 + (count or 0)
        if count is None or index > len(cells):
            return
        yield supplier


def _names_gpios(node: Node, name: str) -> bool:
    if name in ("gpio", "gpios"):
        return "gpio-hog" not in node.properties
    if _is_suffix(name, "-gpios"):
        return not _is_suffix(name, ",nr-gpios")
    return _is_suffix(name, "-gpio")


def _is_suffix(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and name != suffix


def _port_parent(endpoint: Node) -> Node | None:
    """Return the device above the port or list of ports, as of_graph_get_port_parent() does."""
    port = endpoint.parent
    above = port.parent if port else None
    return above.parent if above and base_name(above) in _PORTS else above


def _ancestors(node: Node) -> Iterator[Node]:
    while node.parent:
        node = node.parent
        yield node
