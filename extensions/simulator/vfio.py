# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drivers of VFIO: what they require of a device, and the nodes that they create.

See drivers/vfio/platform/vfio_platform_common.c, drivers/vfio/pci/vfio_pci_core.c and
drivers/vfio/group.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from .description import VFIO_DRIVERS, Driver
from .device import Device
from .iommu import lowest_free
from .kernel import Kernel
from .tree import File, Tree

RESET_REQUIRED = "module/vfio_platform/parameters/reset_required"
NOIOMMU = "module/vfio/parameters/enable_unsafe_noiommu_mode"
INTERRUPTS = "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
IOMMUFD_INTERRUPTS = "module/iommufd/parameters/allow_unsafe_interrupts"
ENABLE_SRIOV = "module/vfio_pci/parameters/enable_sriov"
_DISABLE_IDLE_D3 = "module/vfio_pci/parameters/disable_idle_d3"


class Vfio:
    """VFIO on a kernel; ``reset_functions`` are modules by compatible, ``load`` loads one.

    ``nodes`` is /dev/vfio.
    """

    def __init__(
        self, kernel: Kernel, reset_functions: Mapping[str, str], load: Callable[[str], bool]
    ) -> None:
        self._kernel = kernel
        self._tree = kernel.tree
        self.reset_functions = dict(reset_functions)
        self._load = load
        self._numbers: dict[Device, int] = {}
        self.nodes = Tree()
        if kernel.habits.vfio != "absent":
            # Created at boot, from the devname alias of the module.
            self.nodes.put("vfio", mode=0o666)

    def claims(self, driver: Driver) -> bool:
        return driver.name == VFIO_DRIVERS.get(driver.bus) or bool(driver.vfio_ids)

    def is_idle(self, device: Device) -> bool:
        """Return whether the device is in a low-power state: bound to vfio-pci and not open."""
        if device.bus != "pci" or device not in self._numbers or self._is_on(_DISABLE_IDLE_D3):
            return False
        node = self.nodes.find(f"devices/vfio{self._numbers[device]}")
        return not (isinstance(node, File) and node.opened)

    def probe(self, driver: Driver, device: Device) -> int:
        """Return an errno, or 0."""
        is_platform = driver.bus != "pci"
        refusal = self._refuse_platform(driver, device) if is_platform else device.refuse_vfio()
        if refusal:
            return refusal
        if device.group is None:
            if not self._is_on(NOIOMMU):
                return errno.EINVAL
            self._kernel.groups.join_unsafe(device)
        self._add_nodes(device)
        return 0

    def remove(self, device: Device) -> None:
        """Wait without a timeout until no process has the device open.

        An open group node alone does not delay it.
        """
        node = self._remove_device_node(device)
        while node and node.opened:
            self._kernel.changed.wait()
        self._remove_group_node(device)
        if device.group and device.group.is_noiommu:
            self._kernel.groups.leave(device)

    def is_group_open(self) -> bool:
        """Return whether any group's node is open."""
        return any(device.group and device.group.is_owned for device in self._numbers)

    def _refuse_platform(self, driver: Driver, device: Device) -> int:
        if not device.compatible and device.hid is None:
            return errno.EINVAL
        if not self._has_reset(device) and self._needs_reset(driver):
            return errno.ENOENT
        return 0

    def _has_reset(self, device: Device) -> bool:
        module = self.reset_functions.get(device.compatible[0]) if device.compatible else None
        return module is not None and self._load(module)

    def _needs_reset(self, driver: Driver) -> bool:
        if self._kernel.habits.reset_bug:
            return True
        return driver.bus == "platform" and self._is_on(RESET_REQUIRED)

    def _is_on(self, parameter: str) -> bool:
        return self._tree.read(parameter) == b"Y\n"

    def _add_nodes(self, device: Device) -> None:
        group = device.group
        if group is None:
            return
        number = self._numbers[device] = lowest_free(self._numbers.values())
        own = f"{device.home}/vfio-dev/vfio{number}"
        self._tree.make_directory(own)
        if self._has_cdev(device):
            self._tree.put(f"{own}/dev", f"510:{number}\n")
            self.nodes.put(f"devices/vfio{number}", mode=0o600)
        if group.vfio_node is None:
            group.vfio_node = self.nodes.put(group.node, mode=0o600)
            group.vfio_node.is_exclusive = True
            # vfio_group_fops_open in drivers/vfio/group.c requires CAP_SYS_RAWIO.
            group.vfio_node.is_for_root = group.is_noiommu
            self._tree.make_directory(f"devices/virtual/vfio/{group.node}")
            self._tree.point(f"class/vfio/{group.node}", f"devices/virtual/vfio/{group.node}")

    def _remove_device_node(self, device: Device) -> File | None:
        """Remove the node; return its file, which processes that opened it still hold, or None."""
        number = self._numbers[device]
        self._tree.remove(f"{device.home}/vfio-dev")
        node = self.nodes.find(f"devices/vfio{number}")
        if not isinstance(node, File):
            return None
        self.nodes.remove(f"devices/vfio{number}")
        if not self.nodes.names("devices"):
            self.nodes.remove("devices")
        return node

    def _remove_group_node(self, device: Device) -> None:
        del self._numbers[device]
        group = device.group
        if group and not any(other in self._numbers for other in group.devices):
            group.vfio_node = None
            self.nodes.remove(group.node)
            self._tree.remove(f"class/vfio/{group.node}")
            self._tree.remove(f"devices/virtual/vfio/{group.node}")
            if not self._tree.names("devices/virtual/vfio"):
                self._tree.remove("devices/virtual/vfio")

    def _has_cdev(self, device: Device) -> bool:
        group = device.group
        return self._kernel.habits.device_cdev and not (group and group.is_noiommu)
