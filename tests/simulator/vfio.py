# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vfio-platform and vfio-amba: what they ask of a device, and the nodes that they make.

See drivers/vfio/platform/vfio_platform_common.c and drivers/vfio/group.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping

from .description import VFIO_DRIVERS, Driver
from .device import Device
from .iommu import lowest_free
from .kernel import Kernel
from .tree import File, Tree

RESET_REQUIRED = "module/vfio_platform/parameters/reset_required"
NOIOMMU = "module/vfio/parameters/enable_unsafe_noiommu_mode"


class Vfio:
    """VFIO on a kernel; ``reset_functions`` are modules by compatible, ``load`` loads one.

    ``nodes`` is /dev/vfio.
    """

    def __init__(
        self, kernel: Kernel, reset_functions: Mapping[str, str], load: Callable[[str], bool]
    ) -> None:
        self._kernel = kernel
        self._tree = kernel.tree
        self._reset_functions = reset_functions
        self._load = load
        self._numbers: dict[Device, int] = {}
        self.nodes = Tree()

    def claims(self, driver: Driver) -> bool:
        return driver.name == VFIO_DRIVERS[driver.bus]

    def probe(self, driver: Driver, device: Device) -> int:
        """An errno, or 0."""
        if not device.compatible and device.hid is None:
            return errno.EINVAL
        if not self._has_reset(device) and self._needs_reset(driver):
            return errno.ENOENT
        if device.group is None:
            if not self._is_on(NOIOMMU):
                return errno.EINVAL
            self._kernel.groups.join_unsafe(device)
        self._add_nodes(device)
        return 0

    def remove(self, device: Device) -> None:
        """Wait until nobody has the device open, however long that takes."""
        while any(node.opened for node in self._nodes(device)):
            self._kernel.changed.wait()
        self._remove_nodes(device)
        if device.group and device.group.is_noiommu:
            self._kernel.groups.leave(device)

    def is_open(self) -> bool:
        """Whether any device's node is open."""
        return any(node.opened for device in self._numbers for node in self._nodes(device))

    def _has_reset(self, device: Device) -> bool:
        module = self._reset_functions.get(device.compatible[0]) if device.compatible else None
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
        self._tree.make_folder(own)
        if self._has_cdev(device):
            self._tree.put(f"{own}/dev", f"510:{number}\n")
            self.nodes.put(f"devices/vfio{number}", mode=0o600)
        if group.vfio_node is None:
            group.vfio_node = self.nodes.put(group.node, mode=0o600)
            self._tree.make_folder(f"devices/virtual/vfio/{group.node}")
            self._tree.point(f"class/vfio/{group.node}", f"devices/virtual/vfio/{group.node}")

    def _remove_nodes(self, device: Device) -> None:
        number = self._numbers.pop(device)
        self._tree.remove(f"{device.home}/vfio-dev")
        if self._has_cdev(device):
            self.nodes.remove(f"devices/vfio{number}")
            if not self.nodes.names("devices"):
                self.nodes.remove("devices")
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

    def _nodes(self, device: Device) -> Iterator[File]:
        own = self.nodes.find(f"devices/vfio{self._numbers[device]}")
        if isinstance(own, File):
            yield own
        if device.group and device.group.vfio_node:
            yield device.group.vfio_node
