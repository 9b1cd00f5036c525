# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PCI functions of a board as they are described: their nodes, and their native drivers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .acpi import node_homes
from .description import Carried, Description, Driver, Function, RootBus
from .device import Device
from .errors import SimulatorError
from .kernel import Kernel, matches_modalias
from .nodes import is_available, of_properties
from .pci import HostBridge, Pci, Surroundings, is_grouped
from .pci_nodes import acpi_nodes, check_paths, device_tree_nodes, host_bridges, root_buses
from .pci_topology import Buses, virtual_functions
from .population import Planned
from .sriov import habit

_DEVICE_TREE = "firmware/devicetree/base"
_BRIDGE_DRIVER = "pcieport"
_NO_DRIVER = "none"


class PciBoard:
    """What a board has of PCI.

    ``acpi_nodes`` are those nodes that no list of devices has, and it ``needs_iommu`` if a list of
    devices has to provide one.
    """

    def __init__(
        self, description: Description, planned: Sequence[Planned], *, has_device_tree: bool
    ) -> None:
        self._topology = topology = description.pci
        check_paths(topology, has_device_tree=has_device_tree)
        self._hosts = host_bridges(topology, planned) if has_device_tree else {}
        self._nodes = device_tree_nodes(topology, self._hosts) if has_device_tree else {}
        self.acpi_nodes = acpi_nodes(topology, description.devices)
        # With a device tree, its nodes decide which IOMMUs there are.
        self.needs_iommu = not has_device_tree and any(map(is_grouped, topology.functions))
        self._hids = {extra.acpi_path: extra.acpi_hid for extra in description.devices}
        self._acpi_homes = node_homes([*description.devices, *self.acpi_nodes])

    @property
    def functions(self) -> Sequence[Function]:
        """Return all functions that are there at boot."""
        return self._topology.functions

    def virtual_functions(self) -> Iterator[Function]:
        """Yield all functions that SR-IOV can create."""
        for function in self.functions:
            yield from virtual_functions(function)

    def companions(self) -> set[str]:
        """Return the paths of ACPI nodes that belong to functions, and so to no other device."""
        return {function.acpi_path for function in self.functions if function.acpi_path is not None}

    def names(self, aliases: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return the name of each function by everything that identifies it in a line."""
        every = [*self.functions, *self.virtual_functions()]
        names = {str(function.address): str(function.address) for function in every}
        for address, node in self._nodes.items():
            names.update(dict.fromkeys([node.path, *aliases.get(node.path, ())], str(address)))
        for function in self.functions:
            if function.acpi_path is not None:
                names[function.acpi_path] = str(function.address)
        return names

    def connect(
        self,
        kernel: Kernel,
        devices: Sequence[Device],
        carried: Mapping[str, Sequence[Carried]],
        aliases: Mapping[str, Sequence[str]],
    ) -> Pci:
        """Let the functions appear: with ACPI now, else with the drivers of their host bridges."""
        pci = Pci(kernel)
        for function in (*self.functions, *self.virtual_functions()):
            surroundings = self._surroundings(function, aliases)
            uses = tuple(carried.get(str(function.address), ()))
            pci.surroundings[function.address] = replace(surroundings, carries=uses)
        by_path = {device.of_path: device for device in devices}
        for root in root_buses(self._topology):
            planned = self._hosts.get(root.bus_key)
            self._connect_root(pci, root, by_path[planned.node.path] if planned else None)
        return pci

    def _connect_root(self, pci: Pci, root: RootBus, device: Device | None) -> None:
        buses = Buses(self._topology)
        below = [function for function in self.functions if buses.root_of(function.address) == root]
        if device:
            node = f"{_DEVICE_TREE}{device.of_path}"
            device.offspring = HostBridge(pci, f"{device.home}/{root.name}", below, of_node=node)
        else:
            node_home = self._acpi_homes.get(root.acpi_path or "")
            HostBridge(pci, f"devices/{root.name}", below, firmware_node=node_home).appear()

    def _surroundings(
        self, function: Function, aliases: Mapping[str, Sequence[str]]
    ) -> Surroundings:
        node = self._nodes.get(function.address)
        if node:
            kind = next(iter(node.strings("device_type")), "(null)")
            return Surroundings(
                of_path=node.path,
                of_properties=tuple(of_properties(node, kind, aliases.get(node.path, ()))),
                compatible=node.strings("compatible"),
                is_available=is_available(node),
            )
        if function.acpi_path is None:
            return Surroundings()
        return Surroundings(
            acpi_home=self._acpi_homes[function.acpi_path], hid=self._hids.get(function.acpi_path)
        )


def native_drivers(board: PciBoard, described: Sequence[Driver]) -> list[Driver]:
    """Return a driver for each function that no described driver matches; raise SimulatorError."""
    drivers: dict[str, Driver] = {}
    of_pci = [driver for driver in described if driver.bus == "pci"]
    for function in (*board.functions, *board.virtual_functions()):
        name = _native_name(function)
        matching = any(matches_modalias(driver, function.identity.modalias) for driver in of_pci)
        if name == _NO_DRIVER or matching:
            continue
        if any(driver.name == name for driver in of_pci):
            raise SimulatorError(
                f"{function.line} has driver={name}, but the driver of this name in `drivers` does "
                "not match it: its pci_ids lack the id of the function"
            )
        known = drivers.get(name, Driver(name, "pci"))
        drivers[name] = replace(known, devices=(*known.devices, str(function.address)))
        if function.virtual:
            drivers[name] = replace(drivers[name], sriov=habit(name))
    return list(drivers.values())


def _native_name(function: Function) -> str:
    if function.driver is not None:
        return function.driver
    identity = function.identity
    return _BRIDGE_DRIVER if identity.is_bridge else f"{identity.vendor:04x}-{identity.device:04x}"
