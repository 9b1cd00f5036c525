# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The properties of a machine beyond its device tree: drivers, modules, the kernel's behavior.

Users write it as YAML, which description_file.py reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .pci_ids import PciAddress, PciIdentity

# Internal to the kernel: include/linux/errno.h.
EPROBE_DEFER = 517
BUSES = ("platform", "amba", "pci")
VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba", "pci": "vfio-pci"}
CARRIED = ("net", "block", "tty", "dma")
# The reset functions that Linux has (drivers/vfio/platform/reset).
_RESET_FUNCTIONS = {
    "calxeda,hb-xgmac": "vfio_platform_calxedaxgmac",
    "amd,xgbe-seattle-v1a": "vfio_platform_amdxgbe",
    "brcm,iproc-flexrm-mbox": "vfio_platform_bcmflexrm",
}


@dataclass(frozen=True)
class Habits:
    """The configuration of this kernel, and its behavior where kernels differ."""

    groups_at_boot: bool = False
    reset_bug: bool = False
    noiommu: bool = True
    device_cdev: bool = True
    override_locks: bool = False
    vfio: str = "module"


@dataclass(frozen=True)
class Driver:
    """A driver; ``probe`` gives errnos by device name, with "*" for every other device.

    ``remove`` is the duration of its remove in seconds, infinity if it never returns. ``makes``
    names the device that it creates below each device that is bound to it, and ``waits_for`` the
    device without which it defers the probe. ``pci_ids`` and ``vfio_ids`` are what pci_ids.alias
    takes; those of the latter match only by driver_override, and are VFIO's. ``sriov`` is what its
    remove does with virtual functions, "removed" or "kept"; without it, it cannot create any.
    """

    name: str
    bus: str = "platform"
    compatible: tuple[str, ...] = ()
    amba_ids: tuple[str, ...] = ()
    hids: tuple[str, ...] = ()
    pci_ids: tuple[str, ...] = ()
    vfio_ids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    module: str | None = None
    probe: Mapping[str, int] = field(default_factory=dict)
    suppress_bind_attrs: bool = False
    remove: float = 0
    makes: str | None = None
    waits_for: str | None = None
    sriov: str | None = None


@dataclass(frozen=True)
class Module:
    """A kernel module; ``aliases`` are patterns in addition to those of its drivers.

    ``then`` are those that modprobe loads after it (softdep post). A ``loaded`` module is loaded at
    boot, a ``built_in`` one is part of the kernel without a file, and a ``held`` one is always in
    use.
    """

    name: str
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    loaded: bool = False
    built_in: bool = False
    held: bool = False


@dataclass(frozen=True)
class Extra:
    """A device without a node in the device tree.

    ``driver`` is the native driver that is built for it, "none" for no driver; without unbind, that
    driver has no file of this name. Devices of the same ``iommu_group`` share one.
    ``acpi_compatible`` are the compatibles of its _DSD, which the kernel reads with the id PRP0001.
    """

    name: str
    bus: str = "platform"
    acpi_path: str | None = None
    acpi_hid: str | None = None
    acpi_cids: tuple[str, ...] = ()
    acpi_uid: str | None = None
    acpi_compatible: tuple[str, ...] = ()
    driver: str | None = None
    unbind: bool = True
    iommu_group: str | None = None


@dataclass(frozen=True)
class VirtualFunctions:
    """The SR-IOV capability of a function: how many virtual functions it can have, and which.

    ``driver`` is their native driver, that of the function itself if None.
    """

    total: int
    device: int
    offset: int = 1
    stride: int = 1
    driver: str | None = None

    def address(self, physical: PciAddress, index: int) -> PciAddress:
        return physical.moved(self.offset + self.stride * index)


@dataclass(frozen=True)
class Function:
    """A PCI function.

    ``driver`` is its native driver, "none" for no driver. A bridge leads to the buses ``secondary``
    to ``subordinate``. Functions of the same ``iommu_group`` share one, those of "none" have none;
    where it is None, ``has_acs`` decides. ``resets`` are names of reset_method. Without power
    management, it is never in a low-power state.
    """

    address: PciAddress
    identity: PciIdentity
    driver: str | None = None
    secondary: int | None = None
    subordinate: int | None = None
    has_acs: bool = True
    iommu_group: str | None = None
    resets: tuple[str, ...] = ("flr",)
    has_power_management: bool = True
    virtual: VirtualFunctions | None = None
    acpi_path: str | None = None
    line: str = ""


@dataclass(frozen=True)
class RootBus:
    """A PCI bus below no bridge; the paths are those of its host bridge's node."""

    domain: int
    number: int = 0
    dt_path: str | None = None
    acpi_path: str | None = None
    line: str = ""

    @property
    def name(self) -> str:
        return f"pci{self.domain:04x}:{self.number:02x}"

    @property
    def bus_key(self) -> tuple[int, int]:
        return self.domain, self.number


@dataclass(frozen=True)
class Topology:
    """The PCI functions of a board, and its root buses."""

    roots: tuple[RootBus, ...] = ()
    functions: tuple[Function, ...] = ()

    @property
    def all(self) -> tuple[RootBus | Function, ...]:
        return (*self.roots, *self.functions)


@dataclass(frozen=True)
class Carried:
    """What a device provides while it is bound to its native driver; ``kind`` is in CARRIED.

    ``device`` is its name or, in a line, its path or alias. A disk may have a partition, and a
    mount point on either. ``addresses`` of an interface are such as "192.0.2.7/24". A device that a
    ``line`` names must exist.
    """

    device: str
    kind: str
    name: str
    partition: str | None = None
    mount_point: str | None = None
    is_up: bool = True
    addresses: tuple[str, ...] = ()
    has_default_route: bool = False
    is_console: bool = False
    line: str | None = None

    @property
    def needs_interface(self) -> bool:
        """Return whether an interface of the kernel is required, beside its directory in /sys."""
        return bool(self.addresses or self.has_default_route)


@dataclass(frozen=True)
class Description:
    """A whole description; ``dmi`` are names as in /sys/class/dmi/id, of a machine with ACPI."""

    kernel: Habits = Habits()
    natives: str = "each"
    drivers: tuple[Driver, ...] = ()
    modules: tuple[Module, ...] = ()
    devices: tuple[Extra, ...] = ()
    pci: Topology = Topology()
    carries: tuple[Carried, ...] = ()
    reset_functions: Mapping[str, str] = field(default_factory=lambda: dict(_RESET_FUNCTIONS))
    dmi: Mapping[str, str] = field(default_factory=dict)
