# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes that become devices at boot, as in drivers/of/platform.c and device.c of Linux 6.12.

Devices that a driver creates during its probe are not among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .address import resource, translate
from .devicetree import Node
from .early import taken_early
from .nodes import base_name, child, is_available, is_compatible

Bus = Literal["platform", "amba"]

# of_default_bus_match_table
_BUSES = frozenset({"simple-bus", "simple-mfd", "isa", "arm,amba-bus"})
# of_skipped_node_table
_SKIPPED = frozenset({"operating-points-v2"})
# reserved_mem_matches, which Linux looks for in the whole tree
_RESERVED_MEMORY = frozenset(
    {
        "phram",
        "qcom,rmtfs-mem",
        "qcom,cmd-db",
        "qcom,smem",
        "ramoops",
        "nvmem-rmem",
        "google,open-dice",
    }
)


@dataclass(frozen=True, eq=False)
class Planned:
    """A device to create; without a parent, it is directly in /sys/devices/platform."""

    node: Node
    bus: Bus
    name: str
    parent: Planned | None = None


def population(root: Node) -> list[Planned]:
    """Return the devices, in the order in which Linux creates them."""
    return _Population(root).devices


class _Population:
    """What of_platform_default_populate_init() does, step by step."""

    def __init__(self, root: Node) -> None:
        self.devices: list[Planned] = []
        self._taken_nodes = taken_early(root)
        self._taken_names: set[tuple[object, str]] = set()
        self._taken_registers: list[range] = []
        self._add_all(root)

    def _add_all(self, root: Node) -> None:
        for node in root.walk():
            if is_compatible(node, _RESERVED_MEMORY):
                self._add_platform_device(node)
        firmware = child(root, "firmware")
        if firmware:
            self._add_children(firmware)
        framebuffer = _framebuffer(root)
        if framebuffer:
            self._add_platform_device(framebuffer)
        self._add_children(root, done=firmware)

    def _add_children(
        self, node: Node, parent: Planned | None = None, done: Node | None = None
    ) -> None:
        for below in node.children:
            if below is not done:
                self._add(below, parent)

    def _add(self, node: Node, parent: Planned | None) -> None:
        """of_platform_bus_create()."""
        if "compatible" not in node.properties or is_compatible(node, _SKIPPED):
            return
        if is_compatible(node, {"arm,primecell"}):
            self._add_amba_device(node, parent)
            return
        device = self._add_platform_device(node, parent)
        if device and is_compatible(node, _BUSES):
            self._add_children(node, device)

    def _add_platform_device(self, node: Node, parent: Planned | None = None) -> Planned | None:
        """of_platform_device_create_pdata()."""
        return self._take(node, "platform", parent) if self._is_free(node) else None

    def _add_amba_device(self, node: Node, parent: Planned | None) -> None:
        """of_amba_device_create(); amba_device_add() refuses registers that overlap."""
        registers = resource(node)
        if not registers or not self._is_free(node):
            return
        start, size = registers
        wanted = range(start, start + size)
        if not wanted or any(_overlap(wanted, taken) for taken in self._taken_registers):
            return
        if self._take(node, "amba", parent):
            self._taken_registers.append(wanted)

    def _is_free(self, node: Node) -> bool:
        return is_available(node) and node not in self._taken_nodes

    def _take(self, node: Node, bus: Bus, parent: Planned | None) -> Planned | None:
        """Create a device, unless its bus or directory already has one of the same name."""
        name = device_name(node)
        names = {(bus, name), (parent, name)}
        if names & self._taken_names:
            return None
        device = Planned(node, bus, name, parent)
        self.devices.append(device)
        self._taken_nodes.add(node)
        self._taken_names |= names
        return device


def device_name(node: Node) -> str:
    """Return the name, with an address or the ancestors, as of_device_make_bus_id() does."""
    parts: list[str] = []
    while node.parent:
        address = translate(node)
        if address is not None:
            mask = "".join(f"{_first_bit(cell):x}." for cell in node.cells("mask")[:1])
            parts.insert(0, f"{address:x}.{mask}{base_name(node)}")
            break
        parts.insert(0, node.name)
        node = node.parent
    return ":".join(parts)


def _first_bit(mask: int) -> int:
    # The kernel prints ffs() - 1 as an unsigned number of 32 bits.
    return (mask & -mask).bit_length() - 1 & 0xFFFFFFFF


def _framebuffer(root: Node) -> Node | None:
    chosen = child(root, "chosen") or child(root, "chosen@0")
    screens = chosen.children if chosen else []
    return next((node for node in screens if is_compatible(node, {"simple-framebuffer"})), None)


def _overlap(first: range, second: range) -> bool:
    return first.start < second.stop and second.start < first.stop
