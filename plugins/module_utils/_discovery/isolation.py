# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the kernel isolates the interrupts of devices, which VFIO requires. Reads only.

A device that can write to memory can write the message of any interrupt (MSI). An interrupt
controller that knows which device wrote isolates it: of ARM's, the ITS does. VFIO accepts other
devices only with allow_unsafe_interrupts, and answers EPERM without: vfio_iommu_type1_attach_group
in drivers/vfio/vfio_iommu_type1.c, iommufd_device_bind in drivers/iommu/iommufd/device.c.
"""

from __future__ import annotations

import struct
from typing import Iterable, Sequence

from .._model.buses import BUSES, BY_BRIDGE, BY_NODE, PCI
from .._model.device import Identity
from .._system.files import Files
from .._system.sysfs import Sysfs
from .devices import sysfs_dir
from .kernel_version import running_version

_TREE = "firmware/devicetree/base"
_CONTROLLER = "msi-controller"
_PARENT, _MAP = "msi-parent", "msi-map"
# of_map_id in drivers/of/base.c: id, phandle, first output, length.
_MAP_ENTRY = 4
# Those that set IRQ_DOMAIN_FLAG_ISOLATED_MSI: drivers/irqchip/irq-gic-v3-its.c, irq-gic-v5-its.c.
_ISOLATING = frozenset({"arm,gic-v3-its", "arm,gic-v5-its"})
# its_enable_quirk_socionext_synquacer clears it.
_BREAKS_ISOLATION = "socionext,synquacer-pre-its"
# irq-gic-v2m.c, and irq-gic-v3-mbi.c for messages to the distributor.
_NOT_ISOLATING = frozenset({"arm,gic-v2m-frame", "arm,gic-v3"})
# Before, all controllers of the machine counted, whichever a device uses, if any:
# irq_domain_check_msi_remap in kernel/irq/irqdomain.c.
_SINCE = (6, 3)


class Isolation:
    """Answers for the devices of a host. The device tree is read once, if a device refers to it."""

    def __init__(self, sysfs: Sysfs, files: Files) -> None:
        self._sysfs = sysfs
        self._version = running_version(files)
        self._controllers: dict[int, bool | None] | None = None

    def of_group(self, device: Identity) -> bool | None:
        """Return whether the kernel isolates the interrupts of a device and of its IOMMU group.

        None if only the kernel knows. VFIO takes a group only if all of it is isolated:
        iommu_group_has_isolated_msi in drivers/iommu/iommu.c.
        """
        if self._version is not None and self._version < _SINCE:
            return None
        directory = sysfs_dir(device) + "/iommu_group/devices"
        answers = {self._of_device(device.bus, sysfs_dir(device))}
        for name in self._sysfs.names(directory):
            if name != device.name:
                path = "%s/%s" % (directory, name)
                bus = self._sysfs.link_name(path + "/subsystem") or ""
                answers.add(self._of_device(bus, path))
        return _of_all(answers)

    def _of_device(self, bus: str, path: str) -> bool | None:
        """Return what the device tree says; the tables of ACPI are left to the kernel."""
        source = BUSES[bus].messages_by if bus in BUSES else None
        if source == BY_BRIDGE:
            return self._of_function(path)
        if source is None or not self._sysfs.exists(path + "/of_node"):
            return None
        # A node without msi-parent has no messages to isolate, and VFIO does not count that as
        # isolated.
        return self._of_parent(path + "/of_node") if source == BY_NODE else False

    def _of_function(self, path: str) -> bool | None:
        """Return it of a PCI function: pci_set_msi_domain in drivers/pci/probe.c.

        The first node above with a map decides, or else that of the host bridge. Of a map that
        leads to different controllers it is not known which one is the function's.
        """
        parts = [part for part in (self._sysfs.link(path) or "").split("/") if part != ".."]
        directories = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        for directory in directories:
            cells = self._cells(directory + "/of_node", _MAP)
            if cells:
                return _in_common(map(self._verdict, cells[1::_MAP_ENTRY]))
        bridge = next((part for part in parts if part.startswith(PCI) and ":" in part), None)
        for directory in directories[len(parts) - 1 - parts.index(bridge) :] if bridge else ():
            if self._sysfs.exists(directory + "/of_node"):
                return self._of_parent(directory + "/of_node")
        return None

    def _of_parent(self, node: str) -> bool | None:
        """Return it of what the node's own msi-parent leads to: of_msi_get_domain."""
        cells = self._cells(node, _PARENT)
        return self._verdict(cells[0]) if cells else False

    def _verdict(self, phandle: int) -> bool | None:
        if self._controllers is None:
            self._controllers = dict(self._read("", ()))
        return self._controllers.get(phandle)

    def _read(self, path: str, above: Sequence[str]) -> Iterable[tuple[int, bool | None]]:
        """Yield the phandle of each interrupt controller for messages, and whether it isolates."""
        listing = self._sysfs.listing(_TREE + path)
        compatible = (
            self._sysfs.strings("%s%s/compatible" % (_TREE, path))
            if "compatible" in listing.others
            else ()
        )
        if _CONTROLLER in listing.others:
            verdict = _of_controller(compatible or above, listing.others)
            for phandle in self._cells(_TREE + path, "phandle"):
                yield phandle, verdict
        for child in listing.directories:
            if path or not child.startswith("__"):
                yield from self._read("%s/%s" % (path, child), compatible)

    def _cells(self, node: str, name: str) -> Sequence[int]:
        content = self._sysfs.read_bytes("%s/%s" % (node, name)) or b""
        count = len(content) // 4
        return struct.unpack(">%dI" % count, content[: count * 4])


def _of_controller(compatible: Sequence[str], properties: Iterable[str]) -> bool | None:
    """Return whether a controller isolates; the frames of a GICv5 ITS have no compatible."""
    if _ISOLATING.intersection(compatible):
        return _BREAKS_ISOLATION not in properties
    return False if _NOT_ISOLATING.intersection(compatible) else None


def _of_all(answers: Iterable[bool | None]) -> bool | None:
    """Return whether all are true: false if one is not, None if one is not known."""
    each = set(answers)
    return False if False in each else None if None in each else True


def _in_common(answers: Iterable[bool | None]) -> bool | None:
    """Return the answer that all have in common, or None."""
    each = set(answers)
    return each.pop() if len(each) == 1 else None
