# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IOMMU groups."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from .description import EPROBE_DEFER
from .device import Device, Group
from .tree import Tree


def lowest_free(taken: Iterable[int]) -> int:
    """Return the lowest free number, which ID allocators of the kernel return next."""
    used = set(taken)
    return next(number for number in range(len(used) + 1) if number not in used)


class Groups:
    """All groups of the machine; ``taken`` are numbers of groups without a simulated device."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._groups: dict[int, Group] = {}
        self.taken: set[int] = set()

    def configure(self, device: Device, *, is_native: bool) -> int:
        """Do as of_dma_configure and iommu_device_use_default_domain; return an errno, or 0."""
        refusal = self.join(device)
        if refusal:
            return refusal
        return errno.EBUSY if is_native and device.group and device.group.is_owned else 0

    def join(self, device: Device) -> int:
        """Add the device to its group, if it is behind an IOMMU; return an errno, or 0."""
        if device.group:
            return 0
        if device.find_peer:
            peer = device.find_peer()
            self._add(device, peer.group if peer and peer.group else self._new())
            return 0
        if device.iommu is None:
            return 0
        if device.iommu.driver is None:
            return EPROBE_DEFER
        shared = self._sharing(device)
        # "stream 512 already in tree": arm_smmu_insert_master in arm-smmu-v3.c.
        if shared and "arm,smmu-v3" in device.iommu.compatible:
            return errno.EINVAL
        self._add(device, shared or self._new())
        return 0

    def join_unsafe(self, device: Device) -> None:
        """Create a no-IOMMU group of VFIO for the device."""
        group = self._new(is_noiommu=True)
        self._tree.put(f"{group.directory}/name", "vfio-noiommu\n")
        self._add(device, group)

    def leave(self, device: Device) -> None:
        group = device.group
        if group is None:
            return
        device.group = None
        group.devices.remove(device)
        self._tree.remove(f"{device.home}/iommu_group")
        self._tree.remove(f"{group.directory}/devices/{device.name}")
        if not group.devices:
            del self._groups[group.number]
            self._tree.remove(group.directory)

    def _sharing(self, device: Device) -> Group | None:
        for group in self._groups.values():
            for other in group.devices:
                is_same = other.iommu is device.iommu
                if is_same and not set(other.streams).isdisjoint(device.streams):
                    return group
        return None

    def _new(self, *, is_noiommu: bool = False) -> Group:
        number = lowest_free({*self._groups, *self.taken})
        self._groups[number] = Group(number, is_noiommu)
        return self._groups[number]

    def _add(self, device: Device, group: Group) -> None:
        device.group = group
        group.devices.append(device)
        self._tree.point(f"{device.home}/iommu_group", group.directory)
        self._tree.point(f"{group.directory}/devices/{device.name}", device.home)
