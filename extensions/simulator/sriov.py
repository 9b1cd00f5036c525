# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SR-IOV: virtual functions that appear and vanish, as in drivers/pci/iov.c of Linux 6.12."""

from __future__ import annotations

import errno
from collections.abc import Callable

from .description import VFIO_DRIVERS, Driver, VirtualFunctions
from .device import Device
from .kernel import Kernel
from .kstrtox import kstrtobool, kstrtou16
from .tree import File, failure
from .vfio import ENABLE_SRIOV

# Drivers whose remove does not call pci_disable_sriov; all of them set pci_sriov_configure_simple.
_KEEPING = frozenset({"ena", "nvme", "pci-pf-stub"})


def habit(driver: str) -> str:
    """Return what a native driver of this name does with virtual functions in its remove."""
    return "kept" if driver in _KEEPING else "removed"


class Sriov:
    """The virtual functions of the function ``physical``.

    ``create`` adds the virtual function of an index, without a probe.
    """

    def __init__(
        self,
        kernel: Kernel,
        physical: Device,
        capability: VirtualFunctions,
        create: Callable[[int], Device],
    ) -> None:
        self._kernel = kernel
        self.physical = physical
        self._capability = capability
        self._create = create
        self._virtual: list[Device] = []
        self._number = 0
        self._autoprobe = True

    def files(self) -> dict[str, File]:
        """Return sriov_pf_dev_attr_group."""
        capability = self._capability
        constants = {
            "sriov_totalvfs": f"{capability.total}",
            "sriov_offset": f"{capability.offset}",
            "sriov_stride": f"{capability.stride}",
            "sriov_vf_device": f"{capability.device:x}",
        }
        return {
            **{name: File(f"{value}\n".encode()) for name, value in constants.items()},
            "sriov_numvfs": File(self._show_number, 0o644, self._store_number),
            "sriov_drivers_autoprobe": File(self._show_autoprobe, 0o644, self._store_autoprobe),
        }

    def refuse_vfio(self) -> int:
        """Return EBUSY while there are virtual functions: vfio_pci_core_register_device."""
        return errno.EBUSY if self._number else 0

    def refuse_probe(self, virtual: Device) -> int:
        """Return an errno if no driver may bind to a virtual function: pci_device_can_probe."""
        return 0 if self._autoprobe or virtual.override is not None else errno.ENODEV

    def appear(self, driver: Driver) -> None:
        """Do nothing: no driver creates virtual functions in its probe."""

    def vanish(self, driver: Driver) -> None:
        if driver.sriov == "removed" or _is_vfio(driver):
            self.disable()

    def disable(self) -> None:
        """Remove all virtual functions; wait for those that user space has open."""
        tree = self._kernel.tree
        for index, virtual in enumerate(self._virtual):
            tree.remove(f"{self.physical.home}/virtfn{index}")
            tree.remove(f"{virtual.home}/physfn")
            self._kernel.remove_device(virtual)
        self._virtual.clear()
        self._number = 0

    def _enable(self, number: int, driver: Driver) -> None:
        tree = self._kernel.tree
        for index in range(number):
            virtual = self._create(index)
            self._virtual.append(virtual)
            tree.point(f"{self.physical.home}/virtfn{index}", virtual.home)
            tree.point(f"{virtual.home}/physfn", self.physical.home)
            self._kernel.announce("change", virtual)
            if _is_vfio(driver):
                # vfio_pci_bus_notifier in drivers/vfio/pci/vfio_pci_core.c
                virtual.override = driver.name
            self._kernel.attach(virtual)
        self._kernel.announce("change", self.physical)
        self._number = number

    def _show_number(self) -> bytes:
        with self._kernel.locked(self.physical):
            return f"{self._number}\n".encode()

    def _store_number(self, data: bytes) -> None:
        number = kstrtou16(data)
        if number is None:
            raise failure(errno.EINVAL)
        if number > self._capability.total:
            raise failure(errno.ERANGE)
        with self._kernel.locked(self.physical):
            if number != self._number:
                self._configure(number)

    def _configure(self, number: int) -> None:
        driver = self.physical.driver
        if driver is None or not self._can_configure(driver):
            raise failure(errno.ENOENT)
        if number == 0:
            self.disable()
        elif self._number:
            raise failure(errno.EBUSY)
        else:
            self._enable(number, driver)

    def _can_configure(self, driver: Driver) -> bool:
        """Return whether the driver has sriov_configure; vfio-pci's needs a parameter."""
        if _is_vfio(driver):
            return self._kernel.tree.read(ENABLE_SRIOV) == b"Y\n"
        return driver.sriov is not None

    def _show_autoprobe(self) -> bytes:
        return b"1\n" if self._autoprobe else b"0\n"

    def _store_autoprobe(self, data: bytes) -> None:
        wanted = kstrtobool(data.decode(errors="replace"))
        if wanted is None:
            raise failure(errno.EINVAL)
        self._autoprobe = wanted


def _is_vfio(driver: Driver) -> bool:
    """Return whether it is the one driver of VFIO that has sriov_configure."""
    return driver.name == VFIO_DRIVERS["pci"]
