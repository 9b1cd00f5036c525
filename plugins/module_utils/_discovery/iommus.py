# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IOMMUs that are active, and whether VFIO accepts those in front of devices. Reads only."""

from __future__ import annotations

import struct

from .._model.device import Identity
from .._system.sysfs import Sysfs
from .devices import node_path, sysfs_dir

_CLASS = "class/iommu"
_TREE = "firmware/devicetree/base"
_CELL = struct.Struct(">I")
# arm_smmu_of_match of both drivers and qcom_iommu_of_match in drivers/iommu/arm of Linux 6.12.
SMMU_V3 = frozenset({"arm,smmu-v3"})
SMMU = frozenset(
    {
        *("arm,smmu-v1", "arm,smmu-v2", "arm,mmu-400", "arm,mmu-401", "arm,mmu-500"),
        *("cavium,smmu-v2", "nvidia,smmu-500", "qcom,smmu-v2"),
    }
)
QCOM_IOMMU = frozenset({"qcom,msm-iommu-v1", "qcom,msm-iommu-v2"})


class Iommus:
    """What is known of the IOMMUs of a host."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self.names = sysfs.names(_CLASS)
        self._by_phandle = {
            phandle: _TREE + path
            for name in self.names
            for path in [node_path(sysfs, "%s/%s/device" % (_CLASS, name))]
            for phandle in [self._first_cell(_TREE + path + "/phandle") if path else None]
            if path and phandle
        }

    def is_active_for(self, device: Identity) -> bool:
        """Return whether an IOMMU that the device's node names is active."""
        phandle = self._first_cell(sysfs_dir(device) + "/of_node/iommus")
        # The node of an IOMMU can be without one that is shown.
        return phandle is not None and (phandle in self._by_phandle or not self._by_phandle)

    def is_coherent(self, device: Identity) -> bool | None:
        """Return whether the device's IOMMU has IOMMU_CAP_CACHE_COHERENCY, which VFIO requires.

        __vfio_register_dev in drivers/vfio/vfio_main.c, since Linux 5.19. None if it is not known
        which IOMMU that is, as with ACPI. What drivers report is as of Linux 6.12:
        arm_smmu_capable of both, qcom_iommu_capable.
        """
        path = sysfs_dir(device)
        iommu = self._by_phandle.get(self._first_cell(path + "/of_node/iommus") or 0)
        if iommu is None:
            return None
        compatible = set(self._sysfs.strings(iommu + "/compatible"))
        if compatible & SMMU_V3:
            return self._is_dma_coherent(iommu)
        if compatible & SMMU:
            node = _TREE + (device.dt_path or "")
            return self._is_dma_coherent(iommu) or self._is_dma_coherent(node)
        return bool(compatible & QCOM_IOMMU)

    def _first_cell(self, path: str) -> int | None:
        content = self._sysfs.read_bytes(path) or b""
        return _CELL.unpack_from(content)[0] if len(content) >= _CELL.size else None

    def _is_dma_coherent(self, node: str) -> bool:
        """As of_dma_is_coherent in drivers/of/address.c."""
        while node.startswith(_TREE):
            if self._sysfs.exists(node + "/dma-coherent"):
                return True
            if self._sysfs.exists(node + "/dma-noncoherent"):
                return False
            node = node.rpartition("/")[0]
        return False
