# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the kernel isolates the interrupts of devices, which VFIO requires. Reads only.

A device that can write to memory can write the message of any interrupt (MSI). An interrupt
controller that knows which device wrote isolates it: of ARM's, the ITS does. VFIO accepts other
devices only with allow_unsafe_interrupts, and answers EPERM without: vfio_iommu_type1_attach_group
in drivers/vfio/vfio_iommu_type1.c, iommufd_device_bind in drivers/iommu/iommufd/device.c. What
decides on ARM:

- Since Linux 6.3, each device of the group: iommu_group_has_isolated_msi in drivers/iommu/iommu.c,
  msi_device_has_isolated_msi in kernel/irq/msi.c. Its own MSI domain, or one above, must be of an
  ITS. A device has one by its node or host bridge (of_msi_configure, pci_set_msi_domain), and with
  ACPI if the table IORT leads from it to an ITS (acpi_configure_pmsi_domain,
  pci_msi_get_device_domain). A GICv2m, which ACPI gives to host bridges, is none.
- From 4.12 to 6.2, all MSI domains of the machine, whichever a device has, if any:
  irq_domain_check_msi_remap in kernel/irq/irqdomain.c. One that is not of an ITS is enough. No
  IOMMU of ARM has IOMMU_CAP_INTR_REMAP, which counts as well. A distribution can have the later
  rule in an earlier kernel, so such a kernel surely refuses only what both refuse.
- Before, arm_smmu_capable had it: nothing is refused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Iterable, NamedTuple, Sequence

from .._model.buses import BUSES, BY_BRIDGE, BY_NODE, PCI
from .._model.device import Identity
from .._system.files import Files
from .._system.sysfs import Sysfs
from .devices import sysfs_dir
from .kernel_version import running_version

if TYPE_CHECKING:
    from .acpi_messages import AcpiMessages

# acpi_tables_sysfs_init in drivers/acpi/sysfs.c: MADT is there if ACPI describes the machine.
_MADT = "firmware/acpi/tables/APIC"
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
_FRAME = "arm,gic-v2m-frame"
_NOT_ISOLATING = frozenset({_FRAME, "arm,gic-v3"})
# irq-gic.c, which uses all frames that there are (gic_of_init).
_GICV2 = frozenset(
    {
        *("arm,gic-400", "arm,arm11mp-gic", "arm,arm1176jzf-devchip-gic", "arm,pl390"),
        *("arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic"),
        *("qcom,msm-8660-qgic", "qcom,msm-qgic2"),
    }
)
_EACH_DEVICE_SINCE, _ALL_DOMAINS_SINCE = (6, 3), (4, 12)


class _Controller(NamedTuple):
    """A controller for messages of a device tree; a frame is an enabled one of a GICv2."""

    phandles: Sequence[int]
    isolates: bool | None
    is_frame: bool


class _Controllers(NamedTuple):
    """All of a machine: whether each isolates, by phandle, and whether there are frames."""

    verdicts: dict[int, bool | None]
    has_frames: bool


class Isolation:
    """Answers for the devices of a host. What firmware describes is read once, if it is needed."""

    def __init__(self, sysfs: Sysfs, files: Files) -> None:
        self._sysfs = sysfs
        self._version = running_version(files)
        self._controllers: _Controllers | None = None
        self._acpi: AcpiMessages | None = None
        if sysfs.exists(_MADT):
            # Here, because a machine with a device tree has no tables.
            from .acpi_messages import (  # noqa: PLC0415
                AcpiMessages,
            )

            self._acpi = AcpiMessages(sysfs)

    def of_group(self, device: Identity) -> bool | None:
        """Return whether the kernel isolates the interrupts of a device and of its IOMMU group.

        None if only the kernel knows.
        """
        version = self._version or _EACH_DEVICE_SINCE
        if version < _ALL_DOMAINS_SINCE:
            return None
        if version < _EACH_DEVICE_SINCE:
            is_refused = self._of_each(device) is False and self._has_other_domains()
            return False if is_refused else None
        return self._of_each(device)

    def _of_each(self, device: Identity) -> bool | None:
        """Return it by what the kernel asks since 6.3: whether each of the group is isolated."""
        directory = sysfs_dir(device) + "/iommu_group/devices"
        answers = {self._of_device(device.bus, sysfs_dir(device))}
        for name in self._sysfs.names(directory):
            if name != device.name:
                path = "%s/%s" % (directory, name)
                bus = self._sysfs.link_name(path + "/subsystem") or ""
                answers.add(self._of_device(bus, path))
        return _of_all(answers)

    def _has_other_domains(self) -> bool:
        """Return whether the machine surely has an MSI domain that is not of an ITS.

        Of those that make one, a GICv2m alone is known by what firmware describes: arm64 has its
        driver if it has PCI (arch/arm64/Kconfig). A GICv3 has messages to its distributor, and uses
        frames, if its hardware says so (gic_init_bases in drivers/irqchip/irq-gic-v3.c).
        """
        has_frames = (self._acpi or self._read_controllers()).has_frames
        return has_frames and self._sysfs.exists("bus/" + PCI)

    def _of_device(self, bus: str, path: str) -> bool | None:
        source = BUSES[bus].messages_by if bus in BUSES else None
        if source is not None and self._acpi:
            return self._acpi.isolates(source, path)
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
        return self._read_controllers().verdicts.get(phandle)

    def _read_controllers(self) -> _Controllers:
        if self._controllers is None:
            nodes = list(self._read("", ()))
            self._controllers = _Controllers(
                {phandle: node.isolates for node in nodes for phandle in node.phandles},
                any(node.is_frame for node in nodes),
            )
        return self._controllers

    def _read(self, path: str, above: Sequence[str]) -> Iterable[_Controller]:
        """Yield each interrupt controller for messages; ``above`` is its parent's compatible."""
        listing = self._sysfs.listing(_TREE + path)
        compatible = (
            self._sysfs.strings("%s%s/compatible" % (_TREE, path))
            if "compatible" in listing.others
            else ()
        )
        if _CONTROLLER in listing.others:
            is_frame = _FRAME in compatible and not _GICV2.isdisjoint(above)
            yield _Controller(
                self._cells(_TREE + path, "phandle"),
                _of_controller(compatible or above, listing.others),
                is_frame and self._is_enabled(path, listing.others),
            )
        for child in listing.directories:
            if path or not child.startswith("__"):
                yield from self._read("%s/%s" % (path, child), compatible)

    def _is_enabled(self, path: str, properties: Iterable[str]) -> bool:
        """Return it of a node: __of_device_is_available in drivers/of/base.c."""
        if "status" not in properties:
            return True
        return self._sysfs.strings("%s%s/status" % (_TREE, path)) in (("okay",), ("ok",))

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
