# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCI functions as devices, as drivers/pci/probe.c and bus.c of Linux 6.12 make them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from posixpath import dirname

from .description import Carried, Driver, Function, Topology, VirtualFunctions
from .device import Device
from .kernel import Kernel
from .kstrtox import kstrtoul
from .pci_files import ResetMethods, show_config, show_identity
from .pci_ids import PciAddress
from .pci_topology import Buses, virtual_function
from .sriov import Sriov
from .tree import File, failure

_NO_GROUP = "none"
# The files of these names in drivers/pci/pci-sysfs.c.
_MODE_OF_RESCAN = 0o200
_MODE_OF_REMOVE = 0o220


@dataclass(frozen=True)
class Surroundings:
    """What else a board has for a function: its node, and what it provides while it is bound.

    No driver is bound to a function whose node is not ``is_available``.
    """

    of_path: str | None = None
    of_properties: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    is_available: bool = True
    acpi_home: str | None = None
    hid: str | None = None
    carries: tuple[Carried, ...] = ()


class HostBridge:
    """A host bridge, below which functions exist while the driver of its device is bound.

    ``home`` is the directory of its root bus, and the nodes are the targets of links there.
    """

    def __init__(
        self,
        pci: Pci,
        home: str,
        functions: Sequence[Function],
        *,
        of_node: str | None = None,
        firmware_node: str | None = None,
    ) -> None:
        self._pci = pci
        self._home = home
        self._functions = functions
        self._of_node = of_node
        self._firmware_node = firmware_node

    def appear(self, driver: Driver | None = None) -> None:
        """Scan the root bus, unless the driver is VFIO's."""
        if driver and self._pci.is_of_vfio(driver):
            return
        tree = self._pci.tree
        tree.make_directory(self._home)
        if self._of_node:
            tree.point(f"{self._home}/of_node", self._of_node)
        if self._firmware_node:
            tree.point(f"{self._home}/firmware_node", self._firmware_node)
            tree.point(f"{self._firmware_node}/physical_node", self._home)
        self._pci.add(self._functions, self._home)

    def vanish(self, driver: Driver) -> None:
        if not self._pci.is_of_vfio(driver):
            self._pci.remove(self._functions)
            self._pci.tree.remove(self._home)


class Pci:
    """The PCI functions of a machine; ``surroundings`` are those of a function by its address.

    Functions that are removed by their file ``remove`` stay in the slot, and a rescan finds them.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.surroundings: dict[PciAddress, Surroundings] = {}
        self.tree = kernel.tree
        self._kernel = kernel
        self._devices: dict[PciAddress, Device] = {}
        self._functions: dict[PciAddress, Function] = {}
        self._root_homes: dict[PciAddress, str] = {}
        self._sriov: dict[PciAddress, Sriov] = {}
        self._buses = Buses(Topology())
        self.tree.put("bus/pci/rescan", mode=_MODE_OF_RESCAN, store=self._store_rescan)

    def add(self, functions: Sequence[Function], root_home: str) -> None:
        """Create all functions and then probe each; ``root_home`` is that of their root bus."""
        with self._kernel.changed:
            for function in functions:
                self._functions[function.address] = function
                self._root_homes[function.address] = root_home
            self._buses = Buses(Topology((), tuple(self._functions.values())))
            self._scan()

    def remove(self, functions: Sequence[Function]) -> None:
        """Remove functions with their slots, those below a bridge before it."""
        with self._kernel.changed:
            addresses = [function.address for function in functions]
            self._remove_devices(addresses)
            for address in addresses:
                del self._functions[address], self._root_homes[address]

    def is_of_vfio(self, driver: Driver) -> bool:
        return any(subsystem.claims(driver) for subsystem in self._kernel.subsystems)

    def _scan(self) -> None:
        """Create and probe the functions that are missing, as pci_rescan_bus.

        The probe ignores drivers_autoprobe of the bus, as that of pci_bus_add_device does.
        """
        added = []
        # A bridge comes before what is below it.
        for address in sorted(self._functions):
            above = self._buses.bridge_above(address)
            if address in self._devices or (above and above.address not in self._devices):
                continue
            home = self._devices[above.address].home if above else self._root_homes[address]
            self._create(self._functions[address], home, above)
            added.append(address)
        for address in added:
            self._kernel.attach(self._devices[address])

    def _remove_devices(self, addresses: Iterable[PciAddress]) -> None:
        for address in sorted(self._devices.keys() & set(addresses), reverse=True):
            if address in self._sriov:
                self._sriov.pop(address).disable()
            self._kernel.remove_device(self._devices.pop(address))

    def _store_rescan(self, data: bytes) -> None:
        """rescan_store in drivers/pci/pci-sysfs.c."""
        if _is_asked(data):
            with self._kernel.changed:
                self._scan()

    def _store_remove(self, address: PciAddress, data: bytes) -> None:
        """remove_store in drivers/pci/pci-sysfs.c."""
        if _is_asked(data):
            with self._kernel.changed:
                below = [other for other in self._devices if self._is_below(other, address)]
                self._remove_devices([address, *below])

    def _is_below(self, address: PciAddress, bridge: PciAddress) -> bool:
        above = self._buses.bridge_above(address)
        return above is not None and (
            above.address == bridge or self._is_below(above.address, bridge)
        )

    def _create(self, function: Function, home: str, above: Function | None) -> None:
        device = self._build(function, home)
        remove = File(mode=_MODE_OF_REMOVE, store=partial(self._store_remove, function.address))
        device.files = {**device.files, "remove": remove}
        device.refuse_vfio = partial(_refuse_bridge, function)
        if function.virtual:
            self._add_sriov(function, function.virtual, device, above)
        self._register(function, device, above)
        self._devices[function.address] = device

    def _add_sriov(
        self,
        function: Function,
        capability: VirtualFunctions,
        device: Device,
        above: Function | None,
    ) -> None:
        create = partial(self._create_virtual, function, above)
        sriov = self._sriov[function.address] = Sriov(self._kernel, device, capability, create)
        device.files = {**device.files, **sriov.files()}
        device.refuse_vfio = sriov.refuse_vfio
        device.offspring = sriov

    def _create_virtual(self, physical: Function, above: Function | None, index: int) -> Device:
        """Return a new virtual function, whose parent is that of the physical one."""
        function = virtual_function(physical, index)
        sriov = self._sriov[physical.address]
        device = self._build(function, dirname(sriov.physical.home), is_virtual=True)
        device.refuse_probe = partial(sriov.refuse_probe, device)
        self._register(function, device, above)
        return device

    def _register(self, function: Function, device: Device, above: Function | None) -> None:
        if is_grouped(function):
            device.find_peer = partial(self._peer, function, above)
        self._kernel.create_device(device)

    def _build(self, function: Function, home: str, *, is_virtual: bool = False) -> Device:
        around = self.surroundings.get(function.address, Surroundings())
        address = str(function.address)
        identity = function.identity
        device = Device(
            address,
            "pci",
            f"{home}/{address}",
            identity.modalias,
            compatible=around.compatible,
            of_path=around.of_path,
            of_properties=around.of_properties,
            acpi_path=function.acpi_path,
            acpi_home=around.acpi_home,
            hid=around.hid,
            carries=around.carries,
            is_matchable=around.is_available,
            # pci_uevent in drivers/pci/pci-driver.c
            bus_properties=(
                f"PCI_CLASS={identity.class_code:04X}",
                f"PCI_ID={identity.vendor:04X}:{identity.device:04X}",
                f"PCI_SUBSYS_ID={identity.subsystem_vendor:04X}:{identity.subsystem_device:04X}",
                f"PCI_SLOT_NAME={address}",
            ),
        )
        device.files = self._files(function, device, is_virtual=is_virtual)
        return device

    def _files(self, function: Function, device: Device, *, is_virtual: bool) -> dict[str, File]:
        last_bus = self._buses.last_bus(function)
        first = function.address.devfn & ~7
        slot = [function.address._replace(devfn=first + number) for number in range(8)]
        files = {
            **show_identity(function, last_bus),
            **ResetMethods(function.resets).files(),
            "config": show_config(
                function,
                last_bus,
                is_virtual=is_virtual,
                is_multifunction=not is_virtual and len(self._functions.keys() & slot) > 1,
            ),
            "power_state": File(partial(self._show_power, function, device)),
        }
        if function.identity.is_vga:
            files["boot_vga"] = File(b"1\n" if self._is_first_vga(function) else b"0\n")
        return files

    def _show_power(self, function: Function, device: Device) -> bytes:
        """Return the state: unknown at boot and after pci_device_remove."""
        if device.driver is None:
            return b"unknown\n"
        is_low = function.has_power_management and self._kernel.is_idle(device)
        return b"D3hot\n" if is_low else b"D0\n"

    def _is_first_vga(self, function: Function) -> bool:
        vga = [other.address for other in self._functions.values() if other.identity.is_vga]
        return function.address == min(vga)

    def _peer(self, function: Function, above: Function | None) -> Device | None:
        """Return a device whose group it shares, as pci_device_group in drivers/iommu/iommu.c."""
        if function.iommu_group is not None:
            return self._first(lambda other: other.iommu_group == function.iommu_group)
        top = function
        while above is not None and not self._is_isolated_up_to(above):
            top = above
            bridge = self._devices[above.address]
            if bridge.group:
                return bridge
            above = self._buses.bridge_above(above.address)
        if top.has_acs:
            return None
        slot = top.address.slot
        return self._first(lambda other: other.address.slot == slot and not other.has_acs)

    def _is_isolated_up_to(self, bridge: Function | None) -> bool:
        """Return whether a bridge and all above it have ACS, as pci_acs_path_enabled."""
        while bridge is not None:
            if not bridge.has_acs:
                return False
            bridge = self._buses.bridge_above(bridge.address)
        return True

    def _first(self, condition: Callable[[Function], bool]) -> Device | None:
        """Return the first device in a group whose function meets a condition."""
        for address, device in self._devices.items():
            if device.group and condition(self._functions[address]):
                return device
        return None


def _is_asked(data: bytes) -> bool:
    """Return whether a write is a number other than 0; raise EINVAL if it is no number."""
    number = kstrtoul(data)
    if number is None:
        raise failure(errno.EINVAL)
    return number != 0


def is_grouped(function: Function) -> bool:
    """Return whether a function is in an IOMMU group."""
    return function.iommu_group != _NO_GROUP


def _refuse_bridge(function: Function) -> int:
    """vfio_pci_core_register_device refuses all but headers of type 0."""
    return errno.EINVAL if function.identity.is_bridge else 0
