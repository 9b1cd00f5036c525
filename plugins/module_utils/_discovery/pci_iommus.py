# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether there is an IOMMU in front of a PCI function that no driver was probed for. Reads only.

Before Linux 7 such a function has no IOMMU group: pci_dma_configure in drivers/pci/pci-driver.c is
called by the first probe. It goes by the host bridge, so other functions behind that tell.
"""

from __future__ import annotations

import functools

from .._model.buses import PCI
from .._model.device import Identity
from .._system.sysfs import Sysfs
from .devices import sysfs_dir

_DEVICES = "bus/%s/devices" % PCI


class PciIommus:
    """What the functions of a host show; all are read once, when the first question comes."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def is_missing_for(self, function: Identity) -> bool:
        """Return whether a function without an IOMMU group surely gets none."""
        if not self._has_any:
            return True
        return _host_bridge(self._sysfs, sysfs_dir(function)) in self._bridges_without

    @functools.cached_property
    def _has_any(self) -> bool:
        return bool(self._sysfs.names("class/iommu"))

    @functools.cached_property
    def _bridges_without(self) -> set[str]:
        """The host bridges behind which a function was probed and has no group."""
        paths = ["%s/%s" % (_DEVICES, name) for name in self._sysfs.names(_DEVICES)]
        return {
            _host_bridge(self._sysfs, path)
            for path in paths
            if self._sysfs.exists(path + "/driver")
            and not self._sysfs.exists(path + "/iommu_group")
        }


def _host_bridge(sysfs: Sysfs, path: str) -> str:
    """Return the directory of the nearest host bridge above, ".../pci0000:00"; empty if unknown."""
    parts = (sysfs.link(path) or "").split("/")
    while parts and not (parts[-1].startswith(PCI) and ":" in parts[-1]):
        parts.pop()
    return "/".join(parts)
