# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices, the links between them, and IOMMU groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .description import Carried, Driver
from .tree import File


class Offspring(Protocol):
    """Devices that the driver of another device creates."""

    def appear(self, driver: Driver) -> None:
        """Act as the driver does at the end of its probe."""

    def vanish(self, driver: Driver) -> None:
        """Act as the driver does in its remove."""


@dataclass(eq=False)
class Device:
    """A device on a bus.

    ``home`` is its directory, ``streams`` are its stream IDs at ``iommu``, and ``held_by`` is the
    thread that holds the device's lock. ``other_modaliases`` are in its file modalias only, not in
    its events. ``acpi_home`` is the directory of its ACPI node, and
    ``native`` the described name of its native driver.

    Its bus adds ``files`` and ``bus_properties`` of its events. ``refuse_probe`` returns the errno
    with which the bus refuses to probe it with any driver, and ``refuse_vfio`` that of the bus's
    VFIO driver, 0 if they do not. One that is not ``is_matchable`` is matched by no driver. If its
    bus decides which IOMMU group it joins, ``find_peer`` returns a device of that group, or None
    for a new group.
    """

    name: str
    bus: str
    home: str
    modalias: str
    compatible: tuple[str, ...] = ()
    of_path: str | None = None
    of_properties: tuple[str, ...] = ()
    amba_id: str | None = None
    other_modaliases: tuple[str, ...] = ()
    acpi_path: str | None = None
    hid: str | None = None
    cids: tuple[str, ...] = ()
    acpi_home: str | None = None
    native: str | None = None
    has_unbind: bool = True
    streams: tuple[int, ...] = ()
    iommu: Device | None = None
    carries: tuple[Carried, ...] = ()
    override: str | None = None
    driver: Driver | None = None
    group: Group | None = None
    made: Device | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    bus_properties: tuple[str, ...] = ()
    refuse_probe: Callable[[], int] = lambda: 0
    refuse_vfio: Callable[[], int] = lambda: 0
    is_matchable: bool = True
    find_peer: Callable[[], Device | None] | None = None
    offspring: Offspring | None = None
    held_by: int | None = None
    is_present: bool = True
    suppliers: list[DeviceLink] = field(default_factory=list)
    consumers: list[DeviceLink] = field(default_factory=list)


@dataclass(eq=False)
class DeviceLink:
    """A device link: ``consumer`` is probed after ``supplier``, and unbound before it.

    One that ``is_relaxed`` does not delay the probe (DL_FLAG_SYNC_STATE_ONLY). While ``is_ending``,
    the consumer is unbound because the supplier is about to be.
    """

    supplier: Device
    consumer: Device
    is_relaxed: bool = False
    is_ending: bool = False

    @property
    def name(self) -> str:
        ends = (self.supplier, self.consumer)
        return "--".join(f"{device.bus}:{device.name}" for device in ends)

    @property
    def status(self) -> str:
        """Return the status as status_show in drivers/base/core.c, but for states of a probe."""
        if self.supplier.driver is None:
            return "dormant"
        if self.is_ending:
            return "supplier unbinding"
        return "active" if self.consumer.driver else "available"

    def show_status(self) -> bytes:
        return f"{self.status}\n".encode()


@dataclass(eq=False)
class Group:
    """An IOMMU group; ``number`` names its directory."""

    number: int
    is_noiommu: bool = False
    vfio_node: File | None = None
    devices: list[Device] = field(default_factory=list)

    @property
    def directory(self) -> str:
        return f"kernel/iommu_groups/{self.number}"

    @property
    def is_owned(self) -> bool:
        """Return whether user space has the VFIO node of the group open."""
        return self.vfio_node is not None and self.vfio_node.opened > 0

    @property
    def node(self) -> str:
        """Return the name of the group's VFIO node below /dev/vfio."""
        return f"noiommu-{self.number}" if self.is_noiommu else str(self.number)
