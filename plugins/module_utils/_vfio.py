# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What drivers, and VFIO's above all, need before they can take a device. Reads only."""

from __future__ import annotations

import errno
import os
from typing import Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import folder
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    BIND,
    RELOAD_VFIO,
    UNBIND,
    VFIO_DRIVERS,
    DevicePlan,
    HostStep,
    Identity,
    Native,
    State,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs

RESET_REQUIRED = "module/vfio_platform/parameters/reset_required"
NOIOMMU = "module/vfio/parameters/enable_unsafe_noiommu_mode"

# vfio_noiommu_group_alloc in drivers/vfio/group.c.
_NOIOMMU_GROUP = "vfio-noiommu"
_NO_GROUP = (
    "%s has no IOMMU group (%s), and VFIO does not take a device without one (EINVAL). Give the "
    "device an IOMMU in the firmware, or accept that it can reach all memory and say "
    "unsafe_noiommu: true"
)
_RESET_BUILT_IN = (
    "reset_required differs, and vfio-platform is built into this kernel, so that it can be set at "
    "boot only: add vfio_platform.reset_required=0 (or 1) to the kernel's command line"
)


def registered(sysfs: Sysfs) -> list[str]:
    """The vfio drivers that the kernel has at this moment."""
    return [
        driver
        for bus, driver in VFIO_DRIVERS.items()
        if sysfs.exists("bus/%s/drivers/%s" % (bus, driver))
    ]


def present_settings(sysfs: Sysfs) -> VfioSettings:
    """The settings of the vfio modules that are loaded; None for one that is not."""
    noiommu = _flag(sysfs.read(NOIOMMU))
    if noiommu is None and sysfs.exists("module/vfio"):
        # Without CONFIG_VFIO_NOIOMMU there is no such parameter.
        noiommu = False
    return VfioSettings(_flag(sysfs.read(RESET_REQUIRED)), noiommu)


def _flag(text: str | None) -> bool | None:
    return None if text is None else text == "Y"


def native(
    sysfs: Sysfs, kmod: Kmod, device: Identity, remembered: tuple[str | None] | None
) -> Native:
    """The driver that takes the device without an override.

    ``remembered`` holds the driver that it was taken from, None for none; it is None itself where
    nothing is remembered.
    """
    if remembered == (None,):
        return Native()
    driver = remembered[0] if remembered else None
    if driver and sysfs.exists("bus/%s/drivers/%s" % (device.bus, driver)):
        return Native(driver, was_bound=True)
    for module in kmod.resolve(_modalias(sysfs, device)):
        place = "module/%s/drivers" % module.replace("-", "_")
        drivers = [
            name.split(":", 1)[1]
            for name in sysfs.names(place)
            if name.startswith(device.bus + ":")
        ]
        if drivers:
            return Native(drivers[0])
        if not sysfs.exists("module/" + module.replace("-", "_")):
            return Native(driver, module, was_bound=driver is not None)
    return Native()


def _modalias(sysfs: Sysfs, device: Identity) -> str:
    modalias = sysfs.read(folder(device) + "/modalias")
    if modalias is not None:
        return modalias
    # amba_uevent in drivers/amba/bus.c makes it of the id, and there is no modalias file.
    return "amba:d%s" % (sysfs.read(folder(device) + "/id") or "").upper()


def driver_problems(sysfs: Sysfs, kmod: Kmod, plans: Sequence[DevicePlan]) -> list[str]:
    """Why drivers of a plan cannot be left or taken; one sentence each."""
    problems: dict[str, None] = {}
    for plan in plans:
        for step in plan.steps:
            if step.kind == UNBIND and step.value:
                problem = _unbind_problem(sysfs, plan.device, step.value)
            elif step.kind == BIND and step.value:
                problem = _bind_problem(sysfs, kmod, plan.device, step.value)
            else:
                continue
            if problem:
                problems[problem] = None
    return list(problems)


def _unbind_problem(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    if sysfs.exists("bus/%s/drivers/%s/unbind" % (device.bus, driver)):
        return None
    return (
        "%s cannot be taken from its driver %s while the system runs: that driver has no unbind "
        "(suppress_bind_attrs). If the driver is a module, apply with runtime: false and reboot"
        % (device.label, driver)
    )


def _bind_problem(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> str | None:
    if sysfs.exists("bus/%s/drivers/%s" % (device.bus, driver)):
        return (
            None
            if sysfs.exists("bus/%s/drivers/%s/bind" % (device.bus, driver))
            else "%s cannot be bound to %s while the system runs: that driver has no bind "
            "(suppress_bind_attrs)" % (device.label, driver)
        )
    if driver == VFIO_DRIVERS[device.bus]:
        return None if kmod.is_available(driver) else _no_vfio(driver)
    others = [
        bus for bus in sysfs.names("bus") if sysfs.exists("bus/%s/drivers/%s" % (bus, driver))
    ]
    if others:
        return "Driver %s is on the %s bus, but %s is on the %s bus" % (
            driver,
            others[0],
            device.label,
            device.bus,
        )
    if kmod.is_available(driver):
        return (
            "Driver %s for %s is not loaded. Load its module first ('modprobe %s'), and have it "
            "loaded at boot" % (driver, device.label, driver)
        )
    return (
        "Driver %s for %s does not exist here: no driver of that name is registered and no module "
        "is called so. List the drivers with 'ls /sys/bus/%s/drivers'"
        % (driver, device.label, device.bus)
    )


def _no_vfio(driver: str) -> str:
    return (
        "This kernel (%s) has no %s: the driver is not registered and modprobe finds no module of "
        "that name. It needs CONFIG_%s; Debian's arm64 kernels lack it, "
        "Ubuntu's and Fedora's have it"
        % (os.uname().release, driver, driver.upper().replace("-", "_"))
    )


def reload_problems(
    sysfs: Sysfs, steps: Sequence[HostStep], plans: Sequence[DevicePlan]
) -> list[str]:
    """Why a loaded vfio module cannot be loaded anew; one sentence each."""
    if not any(step.kind == RELOAD_VFIO for step in steps):
        return []
    if not sysfs.exists("module/vfio_platform/initstate"):
        return [_RESET_BUILT_IN]
    driver = VFIO_DRIVERS["platform"]
    ours = {plan.device.name for plan in plans if plan.before.driver == driver}
    others = [
        name
        for name in sysfs.names("bus/platform/drivers/" + driver)
        if name not in ours and sysfs.exists("bus/platform/devices/" + name)
    ]
    if not others:
        return []
    return [
        "reset_required differs, and vfio-platform has to be loaded anew for it, but devices that "
        "this list does not have are bound to it: %s. Add them to the list or give them back first"
        % ", ".join(others)
    ]


def unready_problems(
    sysfs: Sysfs, kmod: Kmod, plans: Sequence[DevicePlan], wanted: VfioSettings
) -> list[str]:
    """Why VFIO will refuse devices of a plan, as far as it can be known before the first write."""
    without = [
        plan.device for plan in plans if plan.binds_to_vfio and _has_no_group(sysfs, plan.device)
    ]
    if not without or _will_have_noiommu(sysfs, kmod, wanted):
        return []
    reason = "its node has no iommus property"
    return [_NO_GROUP % (device.label, reason) for device in without]


def unsafe_problems(sysfs: Sysfs, plans: Sequence[DevicePlan], wanted: VfioSettings) -> list[str]:
    """Which devices of the list are on VFIO only because no IOMMU was asked for till now."""
    if wanted.unsafe_noiommu is not False:
        return []
    return [
        "%s is on VFIO without an IOMMU, and with unsafe_noiommu: false it would not come back at "
        "the next boot. Take it off the list, or say unsafe_noiommu: true" % plan.device.label
        for plan in plans
        if plan.is_for_vfio
        and sysfs.read(folder(plan.device) + "/iommu_group/name") == _NOIOMMU_GROUP
    ]


def _has_no_group(sysfs: Sysfs, device: Identity) -> bool:
    """Whether the device surely has no IOMMU group; with ACPI that shows only when it is bound."""
    path = folder(device)
    return bool(device.dt_path) and not (
        sysfs.link(path + "/iommu_group") or sysfs.exists(path + "/of_node/iommus")
    )


def _will_have_noiommu(sysfs: Sysfs, kmod: Kmod, wanted: VfioSettings) -> bool:
    if wanted.unsafe_noiommu is not None:
        return wanted.unsafe_noiommu
    present = present_settings(sysfs).unsafe_noiommu
    if present is not None:
        return present
    return kmod.parameter("vfio", "enable_unsafe_noiommu_mode") in ("1", "y", "Y", "on")


def why_not_bound(sysfs: Sysfs, device: Identity, driver: str, code: int) -> str:
    """What an errno of ``bind`` means for this device, and what to do; one sentence or two."""
    if driver == VFIO_DRIVERS[device.bus]:
        if code == errno.EINVAL:
            return _why_invalid(sysfs, device)
        if code == errno.ENOENT:
            return _why_no_reset(sysfs, device)
    if code == errno.EAGAIN:
        return "A supplier of the device is not ready; bind the supplier first and run again"
    if code == errno.ENODEV:
        return "The driver declines this device, as it does one that it was not written for"
    return "The kernel's log ('dmesg | grep %s') may say why" % device.name


def _why_invalid(sysfs: Sysfs, device: Identity) -> str:
    path = folder(device)
    group = sysfs.link_name(path + "/iommu_group")
    if group:
        return (
            "It is in IOMMU group %s, so the IOMMU is not cache coherent for it, or another driver "
            "of the group stands in the way; see 'dmesg'" % group
        )
    if not device.dt_path:
        reason = "the firmware's tables name no IOMMU for it"
    elif sysfs.exists(path + "/of_node/iommus"):
        reason = "its node has iommus, but the IOMMU did not take it; see 'dmesg | grep -i smmu'"
    else:
        reason = "its node has no iommus property"
    return _NO_GROUP % ("It", reason)


def _why_no_reset(sysfs: Sysfs, device: Identity) -> str:
    if present_settings(sysfs).reset_required:
        return (
            "It has no reset function (%s), and vfio-platform asks for one. If the device may be "
            "handed over without a reset, say reset_required: false"
            % (device.compatible[0] if device.compatible else "no ACPI _RST")
        )
    return (
        "It has no reset function, and this kernel refuses it even with reset_required off, as "
        "Linux before 6.3 does (mended by commit 168a9c91fe0a); a newer kernel takes it"
    )


def bound_wrongly(sysfs: Sysfs, plan: DevicePlan, after: State) -> str | None:
    """What is missing on a device that was bound to VFIO, or None."""
    if plan.driver != VFIO_DRIVERS[plan.device.bus]:
        return None
    if after.iommu_group is None:
        return "it is bound, but has no IOMMU group"
    if not after.vfio_nodes:
        return "it is bound, but the kernel made no node for IOMMU group %s" % after.iommu_group
    if sysfs.has_node("/dev/vfio"):
        missing = [node for node in after.vfio_nodes if not sysfs.has_node(node)]
        if missing:
            return "it is bound, but %s is not there" % ", ".join(missing)
    return None
