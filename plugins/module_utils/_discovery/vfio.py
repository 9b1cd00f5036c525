# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What VFIO is set to, and what became of a device that it was given. Reads only."""

from __future__ import annotations

import errno
from typing import NamedTuple

from .._model.buses import BUSES, RESETTING, VFIO_DRIVERS, is_vfio_driver
from .._model.device import Identity, Native, State
from .._model.policy import CONTAINER_MODULE, VfioSettings
from .._model.steps import DevicePlan
from .._system.kmod import Kmod, canonical_name
from .._system.sysfs import Sysfs
from .devices import container_of, sysfs_dir

RESET_REQUIRED = "module/%s/parameters/reset_required" % RESETTING.vfio_module
NOIOMMU_PARAMETER = "enable_unsafe_noiommu_mode"
NOIOMMU = "module/vfio/parameters/" + NOIOMMU_PARAMETER
INTERRUPTS = "module/%s/parameters/allow_unsafe_interrupts" % CONTAINER_MODULE
# vfio_noiommu_group_alloc in drivers/vfio/group.c.
NOIOMMU_GROUP = "vfio-noiommu"

NO_GROUP = (
    "%s has no IOMMU group (%s), and VFIO rejects such devices (EINVAL). Configure an IOMMU for "
    "the device in the firmware, or accept that it can access all memory and set "
    "`unsafe_noiommu: true`"
)
NO_RESET = (
    "%%s has no reset function (%%s), and %s requires one (ENOENT). If the device may be used "
    "without a reset, set `reset_required: false`" % RESETTING.vfio_driver
)


def registered(sysfs: Sysfs) -> list[str]:
    """Return the vfio drivers that the kernel has at this moment."""
    drivers = []
    for bus, driver in VFIO_DRIVERS.items():
        if BUSES[bus].vfio_variants:
            names = sysfs.names("bus/%s/drivers" % bus)
            drivers += [name for name in names if is_vfio_driver(name, bus)]
        elif sysfs.exists("bus/%s/drivers/%s" % (bus, driver)):
            drivers.append(driver)
    return drivers


def present_settings(sysfs: Sysfs) -> VfioSettings:
    """Return the settings of the vfio modules that are loaded; None for one that is not."""
    noiommu = _flag(sysfs.read(NOIOMMU))
    if noiommu is None and sysfs.exists("module/vfio"):
        # Without CONFIG_VFIO_NOIOMMU there is no such parameter.
        noiommu = False
    return VfioSettings(_flag(sysfs.read(RESET_REQUIRED)), noiommu, _flag(sysfs.read(INTERRUPTS)))


def is_in_noiommu_group(sysfs: Sysfs, device: Identity) -> bool:
    """Return whether the device is bound to VFIO without an IOMMU."""
    return sysfs.read(sysfs_dir(device) + "/iommu_group/name") == NOIOMMU_GROUP


def _flag(text: str | None) -> bool | None:
    return None if text is None else text == "Y"


def native(
    sysfs: Sysfs, kmod: Kmod, device: Identity, remembered: tuple[str | None] | None
) -> Native:
    """Return the driver that takes the device without an override.

    ``remembered`` holds the driver that it was taken from, None for none; it is None itself where
    nothing is remembered.
    """
    if remembered == (None,):
        return Native()
    driver = remembered[0] if remembered else None
    if driver and sysfs.exists("bus/%s/drivers/%s" % (device.bus, driver)):
        return Native(driver, was_bound=True)
    for module in kmod.resolve(modalias(sysfs, device)):
        drivers_dir = "module/%s/drivers" % canonical_name(module)
        drivers = [
            name.split(":", 1)[1]
            for name in sysfs.names(drivers_dir)
            if name.startswith(device.bus + ":")
        ]
        if drivers:
            return Native(drivers[0])
        if not sysfs.exists("module/" + canonical_name(module)):
            return Native(driver, module, was_bound=driver is not None)
    return Native()


def is_resettable(sysfs: Sysfs, device: Identity) -> bool:
    """Return whether the kernel can reset a PCI function; VFIO does so between its users.

    One that it cannot has neither file (pci_reset_supported in drivers/pci/pci.c). reset_method is
    there since Linux 5.15, and is empty if somebody has disabled all methods.
    """
    path = sysfs_dir(device)
    methods = sysfs.read(path + "/reset_method")
    return bool(methods) if methods is not None else sysfs.exists(path + "/reset")


def modalias(sysfs: Sysfs, device: Identity) -> str:
    """Return what udev asks modprobe with, to find the modules that claim the device."""
    directory = sysfs_dir(device)
    return BUSES[device.bus].modalias(lambda name: sysfs.read("%s/%s" % (directory, name)))


class Sibling(NamedTuple):
    """A device of the same IOMMU group whose driver keeps VFIO from using the group.

    ``container`` is the device without whose driver it is not there, or None.
    """

    name: str
    driver: str
    group: str
    container: str | None


def native_siblings(sysfs: Sysfs, device: Identity) -> list[Sibling]:
    """Return those who share the IOMMU group and are on a driver that does DMA of its own.

    Names are "bus/name". Before Linux 7 a device has its group from its first probe on, so that
    nothing is known of one that no driver was tried on.
    """
    group = sysfs_dir(device) + "/iommu_group"
    members = sysfs.names(group + "/devices")
    if len(members) < 2:
        return []
    number = sysfs.link_name(group) or ""
    siblings = []
    for member in members:
        member_dir = "%s/devices/%s" % (group, member)
        driver = sysfs.link_name(member_dir + "/driver")
        other = Identity(sysfs.link_name(member_dir + "/subsystem") or "", member)
        if driver and other.name_on_bus != device.name_on_bus and not _leaves_dma_alone(driver):
            container = container_of(sysfs, other)
            siblings.append(Sibling(other.name_on_bus, driver, number, container))
    return siblings


def _leaves_dma_alone(driver: str) -> bool:
    """Return whether a driver sets driver_managed_dma: those of VFIO, and two of PCI."""
    return "vfio" in driver or driver in ("pcieport", "pci-stub")


def explain_bind(sysfs: Sysfs, device: Identity, driver: str, code: int) -> str:
    """Explain an errno of ``bind`` for this device, with a remedy."""
    if is_vfio_driver(driver, device.bus):
        if code == errno.EINVAL:
            return _explain_invalid(sysfs, device)
        if code == errno.ENOENT:
            return _explain_no_reset(sysfs, device)
    if code == errno.EAGAIN:
        return "A supplier of the device is not ready. Bind the supplier first, and run again"
    if code == errno.ENODEV:
        return "The driver's probe rejected this device. Use a driver that supports it"
    return "Read the kernel log for the cause ('dmesg | grep %s')" % device.name


def _explain_invalid(sysfs: Sysfs, device: Identity) -> str:
    path = sysfs_dir(device)
    group = sysfs.link_name(path + "/iommu_group")
    defect = BUSES[device.bus].vfio_defect
    if group and defect:
        return defect
    if group:
        return (
            "It is in IOMMU group %s, and either the IOMMU is not cache coherent for it, or "
            "another driver in the group conflicts. Read 'dmesg'" % group
        )
    if not device.dt_path:
        reason = "the firmware's tables name no IOMMU for it"
    elif sysfs.exists(path + "/of_node/iommus"):
        reason = "its node has iommus, but the IOMMU did not attach it; see 'dmesg | grep -i smmu'"
    else:
        reason = "its node has no iommus property"
    return NO_GROUP % ("It", reason)


def _explain_no_reset(sysfs: Sysfs, device: Identity) -> str:
    if present_settings(sysfs).reset_required:
        return NO_RESET % (
            "It",
            device.reset_compatible or "its firmware has no _RST",
        )
    return (
        "It has no reset function, and this kernel requires one even with `reset_required: "
        "false`, as Linux before 6.3 does. Use a kernel with commit 168a9c91fe0a"
    )


def bound_wrongly(sysfs: Sysfs, plan: DevicePlan, after: State) -> str | None:
    """Return what is missing on a device that was bound to VFIO, or None."""
    if not is_vfio_driver(plan.driver, plan.device.bus):
        return None
    if after.iommu_group is None:
        return "it is bound, but has no IOMMU group"
    if not after.vfio_nodes:
        return "it is bound, but the kernel created no node for IOMMU group %s" % after.iommu_group
    if sysfs.has_node("/dev/vfio"):
        missing = [node for node in after.vfio_nodes if not sysfs.has_node(node)]
        if missing:
            return "it is bound, but %s does not exist" % ", ".join(missing)
    return None


def is_built_in(sysfs: Sysfs, module: str) -> bool:
    """Return whether a present module is built in; ``module`` as the kernel spells it."""
    # mod_sysfs_setup in kernel/module/sysfs.c makes initstate, for modules that were loaded.
    module_dir = "module/" + module
    return sysfs.exists(module_dir) and not sysfs.exists(module_dir + "/initstate")
