# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The buses of a board's PCI functions: which bridge leads to each, and whether all fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .description import Function, RootBus, Topology
from .errors import SimulatorError
from .pci_ids import PciAddress

_LAST_BUS = 0xFF
_MOST_VIRTUAL = 256 * 256


class Buses:
    """The buses of a topology; ``bridges`` lead to a bus each, by its domain and number."""

    def __init__(self, topology: Topology) -> None:
        self.bridges: dict[tuple[int, int], Function] = {
            (function.address.domain, function.secondary): function
            for function in topology.functions
            if function.secondary is not None
        }
        domains = {function.address.domain for function in topology.functions}
        self.roots: dict[tuple[int, int], RootBus] = {
            (domain, 0): RootBus(domain) for domain in sorted(domains)
        }
        self.roots.update({root.bus_key: root for root in topology.roots})
        self._last = self._last_buses()

    def bridge_above(self, address: PciAddress) -> Function | None:
        return self.bridges.get(address.bus_key)

    def root_of(self, address: PciAddress) -> RootBus | None:
        """Return the root bus of a function, or None if no bridge leads to its bus."""
        bridge = self.bridge_above(address)
        return self.roots.get(address.bus_key) if bridge is None else self.root_of(bridge.address)

    def last_bus(self, bridge: Function | None) -> int:
        """Return the last bus below a bridge, or below a root bus if None."""
        if bridge is None or bridge.secondary is None:
            return _LAST_BUS
        return self._last[bridge.address.domain, bridge.secondary]

    def _last_buses(self) -> dict[tuple[int, int], int]:
        """Return the last bus by the first one of each bridge: as described, or as needed."""
        last: dict[tuple[int, int], int] = {}
        # The buses below a bridge come after its own.
        for key, bridge in sorted(self.bridges.items(), reverse=True):
            needed = max(key[1], last.get(key, 0))
            last[key] = needed if bridge.subordinate is None else bridge.subordinate
            above = bridge.address.bus_key
            last[above] = max(last.get(above, 0), last[key])
        return last


def virtual_function(physical: Function, index: int) -> Function:
    """Return a virtual function, with the ids of pci_iov_add_virtfn in drivers/pci/iov.c.

    It has power management if its physical function has.
    """
    virtual = physical.virtual
    if virtual is None:
        raise IndexError(index)
    return Function(
        virtual.address(physical.address, index),
        replace(physical.identity, device=virtual.device),
        virtual.driver or physical.driver,
        iommu_group="none" if physical.iommu_group == "none" else None,
        has_power_management=physical.has_power_management,
        line=physical.line,
    )


def virtual_functions(physical: Function) -> Iterator[Function]:
    """Yield all virtual functions that a function can have."""
    for index in range(physical.virtual.total if physical.virtual else 0):
        yield virtual_function(physical, index)


def check(topology: Topology) -> None:
    """Raise SimulatorError if a board cannot have these functions."""
    _check_unique(topology)
    buses = Buses(topology)
    for function in topology.functions:
        _check_bus(function, buses)
    _check_bridges(buses)
    _check_slots(topology.functions)
    _check_virtual(topology.functions, buses)


def _check_unique(topology: Topology) -> None:
    taken: dict[str, str] = {}
    for described in topology.all:
        keys = [described.acpi_path] if described.acpi_path is not None else []
        if isinstance(described, RootBus):
            keys.append(f"bus {described.domain:04x}:{described.number:02x}")
        else:
            keys.append(str(described.address))
            if described.secondary is not None:
                keys.append(f"bus {described.address.domain:04x}:{described.secondary:02x}")
        for key in keys:
            if key in taken:
                raise SimulatorError(f"{described.line} describes {key} again, after {taken[key]}")
            taken[key] = described.line


def _check_bus(function: Function, buses: Buses) -> None:
    bus = function.address.bus
    if function.secondary is not None and function.secondary <= bus:
        raise SimulatorError(
            f"{function.line} leads to bus {function.secondary:02x}, which does not come after its "
            f"own bus {bus:02x}"
        )
    if buses.bridge_above(function.address) is None and function.address.bus_key not in buses.roots:
        raise SimulatorError(
            f"{function.line} is on bus {bus:02x}, to which no bridge leads. Describe the bridge "
            f"with bus={bus:02x}, or the root bus pci{function.address.domain:04x}:{bus:02x}"
        )


def _check_bridges(buses: Buses) -> None:
    """Check that the buses of each bridge are below the bridge above it, and of no other."""
    ends: dict[object, tuple[int, Function]] = {}
    for (_domain, first), bridge in sorted(buses.bridges.items()):
        above = buses.bridge_above(bridge.address)
        last = buses.last_bus(bridge)
        if last < first:
            raise SimulatorError(f"{bridge.line} has buses that end before they begin")
        if last > buses.last_bus(above):
            raise SimulatorError(
                f"{bridge.line} leads to bus {last:02x}, which comes after the last bus "
                f"{buses.last_bus(above):02x} of the bridge above it"
            )
        end, other = ends.get(bridge.address.bus_key, (-1, bridge))
        if first <= end:
            raise SimulatorError(
                f"{bridge.line} leads to bus {first:02x}, which is below {other.address}"
            )
        ends[bridge.address.bus_key] = (last, bridge)


def _check_slots(functions: Sequence[Function]) -> None:
    """pci_scan_slot in drivers/pci/probe.c scans a slot only if it has a function 0."""
    addresses = {function.address for function in functions}
    for function in functions:
        first = function.address._replace(devfn=function.address.devfn & ~7)
        if first not in addresses:
            raise SimulatorError(
                f"{function.line} is in a slot without function {first}, in which Linux detects "
                "no other"
            )


def _check_virtual(functions: Sequence[Function], buses: Buses) -> None:
    taken = {function.address: function.line for function in functions}
    total = sum(function.virtual.total for function in functions if function.virtual)
    if total > _MOST_VIRTUAL:
        raise SimulatorError(f"pci has {total} virtual functions, more than {_MOST_VIRTUAL}")
    for function in functions:
        above = buses.bridge_above(function.address)
        last = buses.last_bus(above)
        for number, virtual in enumerate(virtual_functions(function), 1):
            address = virtual.address
            if address.bus > last:
                raise SimulatorError(
                    f"{function.line} has more virtual functions than possible: number {number} "
                    f"would be on bus {address.bus:02x}, after the last bus {last:02x} of the "
                    f"{'bridge' if above else 'root bus'} above it"
                )
            other = taken.get(address)
            bridge = buses.bridge_above(address)
            if other is None and bridge is not above:
                other = bridge.line if bridge else None
            if other is not None:
                raise SimulatorError(
                    f"{function.line} has virtual function {number} at {address}, which is taken "
                    f"by {other}; set vf_offset="
                )
            taken[address] = function.line
