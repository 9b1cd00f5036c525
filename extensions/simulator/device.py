# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A device, and what depends on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from .description import Carried, Driver
from .tree import File


@dataclass(eq=False)
class Device:
    """A device on the platform or the AMBA bus.

    ``home`` is its directory; ``streams`` are what its node says to ``iommu``; ``held_by`` is the
    thread that has the device's lock.
    """

    name: str
    bus: str
    home: str
    modalias: str
    compatible: tuple[str, ...] = ()
    of_path: str | None = None
    of_properties: tuple[str, ...] = ()
    amba_id: str | None = None
    acpi_path: str | None = None
    hid: str | None = None
    streams: tuple[int, ...] = ()
    iommu: Device | None = None
    carries: tuple[Carried, ...] = ()
    override: str | None = None
    driver: Driver | None = None
    group: Group | None = None
    made: Device | None = None
    held_by: int | None = None
    is_present: bool = True
    suppliers: list[DeviceLink] = field(default_factory=list)
    consumers: list[DeviceLink] = field(default_factory=list)


@dataclass(eq=False)
class DeviceLink:
    """``consumer`` does not probe without ``supplier``, and loses its driver with it.

    One that ``is_relaxed`` makes nobody wait (DL_FLAG_SYNC_STATE_ONLY); while ``is_ending``, the
    consumer loses its driver for the supplier is about to.
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
        """As status_show in drivers/base/core.c, but for what lasts only while a probe runs."""
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
    def folder(self) -> str:
        return f"kernel/iommu_groups/{self.number}"

    @property
    def is_owned(self) -> bool:
        """Whether user space holds the group by its VFIO node."""
        return self.vfio_node is not None and self.vfio_node.opened > 0

    @property
    def node(self) -> str:
        """The name of its VFIO node below /dev/vfio."""
        return f"noiommu-{self.number}" if self.is_noiommu else str(self.number)
