# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices and boards as firmware and the kernel describe them. Pure data."""

from __future__ import annotations

from typing import NamedTuple

from .. import _text
from .buses import PCI


class Board(NamedTuple):
    """What firmware calls this machine: the device tree's root or, with ACPI, the DMI table."""

    compatible: tuple[str, ...] = ()
    product_name: str | None = None
    board_name: str | None = None

    @property
    def names(self) -> list[str]:
        """All names, as results show them: what is not printable is an escape."""
        names = [*self.compatible, *filter(None, (self.product_name, self.board_name))]
        return [_text.printable(name, 0) for name in names]


class Identity(NamedTuple):
    """What a device is called by firmware, hardware and kernel; unset is None or empty.

    ``pci_id`` is vendor and device, without and with those of the subsystem. With ACPI,
    ``compatible`` are those of the device's _DSD; ``acpi_uid`` is its _UID.
    """

    bus: str
    name: str
    dt_path: str | None = None
    compatible: tuple[str, ...] = ()
    acpi_path: str | None = None
    acpi_hid: str | None = None
    pci_id: tuple[str, ...] = ()
    acpi_uid: str | None = None

    @property
    def reset_compatible(self) -> str | None:
        """What VFIO looks for a reset function by; None if by a method of ACPI, or by nothing."""
        return None if self.acpi_path or not self.compatible else self.compatible[0]

    @property
    def pci_address(self) -> str | None:
        return self.name if self.bus == PCI else None

    @property
    def stable_name(self) -> str:
        """What the device is called at every boot, as far as firmware gives it such a name."""
        return self.dt_path or self.acpi_path or self.name_on_bus

    @property
    def name_on_bus(self) -> str:
        """What the device is called at this boot."""
        return "%s/%s" % (self.bus, self.name)

    @property
    def label(self) -> str:
        """How messages call the device: by what stays the same from boot to boot."""
        stable = self.dt_path or self.acpi_path
        own = "%s device %s" % (self.bus, self.name)
        return _text.printable("%s (%s)" % (stable, own) if stable else own, 0)


class State(NamedTuple):
    """What drives a device at one moment; unset is None."""

    driver: str | None = None
    driver_override: str | None = None
    iommu_group: str | None = None
    vfio_nodes: tuple[str, ...] = ()

    @property
    def binding(self) -> str:
        """Driver and override in words."""
        return "bound to %s with driver_override %s" % (
            self.driver or "no driver",
            self.driver_override or "unset",
        )

    def is_bound_as(self, other: State) -> bool:
        """Return whether driver and override are the same."""
        return (self.driver, self.driver_override) == (other.driver, other.driver_override)


class Native(NamedTuple):
    """The driver that takes a device without an override, as far as it can be known.

    ``driver`` is None if no driver claims the device. ``module`` has to be loaded first for it,
    or is None. It ``was_bound`` when the device was taken from it; otherwise it is what the
    device's modalias promises, and its probe may still decline.
    """

    driver: str | None = None
    module: str | None = None
    was_bound: bool = False
