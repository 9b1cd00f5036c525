# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether there is an IOMMU in front of a PCI function that no driver was probed for. Reads only.

Before Linux 7 such a function has no IOMMU group: pci_dma_configure in drivers/pci/pci-driver.c is
called by the first probe. It goes by the host bridge, so other functions behind that tell.
"""

from __future__ import annotations

from .._model.buses import PCI
from .._model.device import Identity
from .._system.sysfs import Sysfs
from .devices import sysfs_dir

_DEVICES = "bus/%s/devices" % PCI


def lacks_iommu(sysfs: Sysfs, function: Identity) -> bool:
    """Return whether a function without an IOMMU group surely gets none."""
    if not sysfs.names("class/iommu"):
        return True
    bridge = _host_bridge(sysfs, sysfs_dir(function))
    return any(
        _host_bridge(sysfs, path) == bridge
        for path in ("%s/%s" % (_DEVICES, name) for name in sysfs.names(_DEVICES))
        if sysfs.exists(path + "/driver") and not sysfs.exists(path + "/iommu_group")
    )


def _host_bridge(sysfs: Sysfs, path: str) -> str:
    """Return the directory of the nearest host bridge above, ".../pci0000:00"; empty if unknown."""
    parts = (sysfs.link(path) or "").split("/")
    while parts and not (parts[-1].startswith(PCI) and ":" in parts[-1]):
        parts.pop()
    return "/".join(parts)
