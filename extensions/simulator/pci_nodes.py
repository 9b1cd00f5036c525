# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes of PCI functions: in the device tree by their reg, in ACPI's namespace by their path.

See drivers/pci/of.c, drivers/pci/pci-acpi.c and drivers/acpi/scan.c of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from .description import Extra, Function, RootBus, Topology
from .devicetree import Node
from .errors import SimulatorError
from .lines import quoted
from .nodes import base_name, first_cell
from .pci_ids import PciAddress
from .pci_topology import Buses
from .population import Planned

_HOST_BRIDGE = "PNP0A08"
# An ACPI node without a hardware ID (acpi_device_set_name).
_NO_ID = "device"


def root_buses(topology: Topology) -> list[RootBus]:
    """Return the root buses that are described or have functions."""
    used = {function.address.bus_key for function in topology.functions}
    roots = Buses(topology).roots
    return [root for key, root in roots.items() if key in used or root in topology.roots]


def host_bridges(topology: Topology, planned: Sequence[Planned]) -> dict[tuple[int, int], Planned]:
    """Return the device of each root bus on a board with a device tree; raise SimulatorError."""
    candidates = {
        device.node.path: device
        for device in planned
        if device.node.strings("device_type")[:1] == ("pci",)
    }
    bridges: dict[tuple[int, int], Planned] = {}
    for root in sorted(root_buses(topology), key=lambda root: root.dt_path is None):
        path = root.dt_path
        if path is None and len(candidates) == 1:
            (path,) = candidates
        if path is None:
            raise SimulatorError(
                f"Root bus {root.name} requires the path of its host bridge, as '{root.name} "
                f"dt_path=PATH', with one of these nodes: {', '.join(candidates) or 'none'}"
            )
        if path not in candidates:
            raise SimulatorError(
                f"{root.line} has dt_path={quoted(path)}, which is no host bridge of the device "
                "tree, or one of another root bus"
            )
        bridges[root.bus_key] = candidates.pop(path)
    return bridges


def check_paths(topology: Topology, *, has_device_tree: bool) -> None:
    """Raise SimulatorError for a path that boards with this firmware do not have."""
    for described in topology.all:
        if has_device_tree and described.acpi_path is not None:
            raise SimulatorError(f"{described.line} has acpi_path=, but the board has no ACPI")
        if isinstance(described, RootBus) and not has_device_tree and described.dt_path:
            raise SimulatorError(f"{described.line} has dt_path=, but the board has no device tree")


def device_tree_nodes(
    topology: Topology, hosts: Mapping[tuple[int, int], Planned]
) -> dict[PciAddress, Node]:
    """Return the nodes of functions, as of_pci_find_child_device does."""
    buses = Buses(topology)
    nodes: dict[PciAddress, Node] = {}
    for function in sorted(topology.functions, key=lambda function: function.address):
        address = function.address
        bridge = buses.bridge_above(address)
        parent = nodes.get(bridge.address) if bridge else hosts[address.bus_key].node
        for node in _children(parent) if parent else ():
            if ((first_cell(node, "reg") or 0) >> 8) & 0xFF == address.devfn and node.cells("reg"):
                nodes.setdefault(address, node)
    return nodes


def _children(parent: Node) -> Iterator[Node]:
    for node in parent.children:
        yield node
        if base_name(node) == "multifunc-device":
            yield from node.children


def acpi_nodes(topology: Topology, devices: Sequence[Extra]) -> list[Extra]:
    """Return the nodes in ACPI's namespace that PCI has beside the listed devices."""
    listed = {device.acpi_path for device in devices}
    taken = {device.name for device in devices}
    nodes: list[Extra] = []
    for described in topology.all:
        path = described.acpi_path
        if path is not None and path not in listed:
            hid = _HOST_BRIDGE if isinstance(described, RootBus) else None
            names = (f"{hid or _NO_ID}:{number:02x}" for number in count())
            name = next(name for name in names if name not in taken)
            taken.add(name)
            nodes.append(Extra(name, acpi_path=path, acpi_hid=hid))
    return nodes


def acpi_addresses(functions: Sequence[Function]) -> dict[str, str]:
    """Return _ADR of the functions' nodes by path: slot and number, 16 bits each."""
    return {
        function.acpi_path: f"0x{function.address.devfn >> 3:04x}{function.address.devfn & 7:04x}"
        for function in functions
        if function.acpi_path is not None
    }
