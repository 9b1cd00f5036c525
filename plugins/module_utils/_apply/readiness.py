# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What will fail, and why: all that can be known before the first write. Reads only."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import Sequence

from .._boot.modprobe_d import Line, value_at_boot
from .._boot.vfio_parameters import is_true
from .._discovery.acpi_iort import translates
from .._discovery.builtin_drivers import (
    BuiltinBinding,
    BuiltinDrivers,
    is_built_in_driver,
    is_permanent_driver,
)
from .._discovery.devices import container_of, parent_on_bus, sysfs_dir
from .._discovery.pci_iommus import PciIommus
from .._discovery.vfio import (
    NO_GROUP,
    NO_RESET,
    NOIOMMU,
    NOIOMMU_PARAMETER,
    is_built_in,
    is_in_noiommu_group,
    present_settings,
)
from .._model.buses import BUSES, RESETTING, is_vfio_driver
from .._model.device import Identity
from .._model.policy import (
    CONTAINER_MODULE,
    DEFAULT,
    NO_AUTOBIND,
    VFIO_DEFAULTS,
    VFIO_PARAMETERS,
    VfioSettings,
)
from .._model.steps import DevicePlan, HostStep, HostStepKind, Obstacle, Problem, StepKind
from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE
from .._system.kmod import Kmod
from .._system.sysfs import Sysfs

# Kinds of Obstacle, beside those of use.
NO_UNBIND = "no_unbind"
NO_VFIO_DRIVER = "no_vfio_driver"
NO_IOMMU_GROUP = "no_iommu_group"
NO_FIRMWARE_ID = "no_firmware_id"
CANNOT_RESET = "no_reset"
UNSIGNED_MODULE = "unsigned_module"
BRIDGE = "bridge"
OTHER_UNIT = "other_unit"

_RESET_REQUIRED, _NOIOMMU_MODE, UNSAFE_INTERRUPTS = VFIO_PARAMETERS

# drivers/vfio/platform/reset.
_IN_KERNEL_RESETS = ("calxeda,hb-xgmac", "amd,xgbe-seattle-v1a", "brcm,iproc-flexrm-mbox")
# PCI_CLASS_BRIDGE_HOST in include/linux/pci_ids.h; VFIO takes it, unlike bridges with buses.
_HOST_BRIDGE = "0x0600"
BUILT_BY_ROLE = ("vfio-platform", "vfio-amba")
_NOT_IN_DEBIAN = (
    ", as Ubuntu's and Fedora's; Debian's arm64 kernels lack it, and the role "
    "armfleet.vfio.vfio_modules builds it for them"
)
_RESET_BUILT_IN = (
    "`reset_required` differs, but %s is built into this kernel, so it can be set only at boot. "
    "Add %s.reset_required=0 (or 1) to the kernel command line, and reboot"
)
# vfio_platform_of_probe and vfio_platform_acpi_probe in drivers/vfio/platform.
_NO_FIRMWARE_ID = (
    "%s has neither a compatible nor an ACPI node, and VFIO rejects such devices (EINVAL): the "
    "kernel made it, not the firmware. Remove it from the list"
)
_BRIDGE = (
    "%s is a PCI bridge (%s), and all functions behind it depend on its driver. Select those that "
    "are meant; bridges of their IOMMU group may keep their driver"
)
_IN_CONTAINER = (
    "%s is in %s, which the list takes from its driver: the kernel then removes all devices in it, "
    "and only VFIO adds them again, for itself. Remove one of the two entries"
)
_NO_UNIT = "%s cannot be bound to VFIO by itself: VFIO takes %s%s. %s"
_NO_RESET_AT_BOOT = (
    "%s has no reset function, and the next boot requires one, because nothing sets %s=0 for it. "
    "If the device may be used without a reset, set `reset_required: false`"
)
_NO_CONTAINER_MODULE = (
    "`unsafe_interrupts` cannot be set: %s. Use a kernel with CONFIG_VFIO_IOMMU_TYPE1, or omit "
    "`unsafe_interrupts` if user space opens devices through iommufd"
)
_NO_IOMMU_AT_BOOT = (
    "%s has no IOMMU, and the next boot requires one, because nothing sets %s=1 for it. If the "
    "device may access all memory of the host, set `unsafe_noiommu: true`; otherwise remove it "
    "from the list"
)


def unreadiness(
    sysfs: Sysfs,
    kmod: Kmod,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    wanted: VfioSettings,
    *,
    is_whole: bool = True,
    pci_iommus: PciIommus | None = None,
) -> list[Problem]:
    """Return why drivers cannot be unbound or bound, modules loaded or VFIO used.

    Unless the list ``is_whole``, an entry that cannot be resolved may mean more devices. Who asks
    more than once passes ``pci_iommus``.
    """
    working = [plan for plan in plans if plan.steps]
    problems = _bridges(sysfs, plans)
    problems += _drivers(sysfs, kmod, working)
    problems += _overrides(sysfs, plans)
    problems += _unsigned(sysfs, kmod, working, steps)
    problems += _reload(sysfs, steps, plans) if is_whole else []
    problems += map(Problem, _without_noiommu(sysfs, kmod, steps, wanted))
    problems += map(Problem, _without_container_module(sysfs, kmod, steps))
    problems += _unready(
        sysfs, kmod, _rebound(plans, steps), wanted, pci_iommus or PciIommus(sysfs)
    )
    return problems + _unsafe(sysfs, plans, wanted)


def _bridges(sysfs: Sysfs, plans: Sequence[DevicePlan]) -> list[Problem]:
    """Return which of the devices that a policy takes are PCI bridges; one sentence each."""
    return [
        Problem(
            _BRIDGE % (plan.device.label, bridge),
            plan.device,
            obstacle=Obstacle(BRIDGE, "it is a PCI bridge"),
        )
        for plan in plans
        if plan.policy.kind != DEFAULT
        for bridge in [_bridge(sysfs, plan.device)]
        if bridge
    ]


def in_containers(sysfs: Sysfs, plans: Sequence[DevicePlan]) -> list[Problem]:
    """Return which devices another entry of the list makes disappear; one sentence each."""
    taken = {
        plan.device.name_on_bus
        for plan in plans
        if plan.is_for_vfio or plan.policy.kind == NO_AUTOBIND
    }
    return [
        Problem(_IN_CONTAINER % (plan.device.label, container.partition("/")[2]), plan.device)
        for plan in plans
        if plan.policy.kind != DEFAULT
        for container in [container_of(sysfs, plan.device)]
        if container in taken
    ]


def _bridge(sysfs: Sysfs, device: Identity) -> str | None:
    """Return what a bridge leads to; None for other devices. See drivers/pci/pci-sysfs.c."""
    if not device.pci_address:
        return None
    path = sysfs_dir(device)
    first = sysfs.read(path + "/secondary_bus_number")
    if first:
        last = sysfs.read(path + "/subordinate_bus_number") or first
        return "bus %s" % first if first == last else "buses %s to %s" % (first, last)
    is_host = (sysfs.read(path + "/class") or "").startswith(_HOST_BRIDGE)
    return "the host bridge" if is_host else None


def _drivers(sysfs: Sysfs, kmod: Kmod, plans: Sequence[DevicePlan]) -> list[Problem]:
    """Return why drivers of a plan cannot be left or taken; one sentence each."""
    problems: list[Problem | None] = []
    for plan in plans:
        for step in plan.steps:
            if step.kind is StepKind.UNBIND and step.value:
                problems.append(_unbind_problem(sysfs, kmod, plan.device, step.value))
            elif step.kind is StepKind.BIND and step.value:
                problems.append(_bind_problem(sysfs, kmod, plan.device, step.value))
    return [problem for problem in problems if problem]


def _overrides(sysfs: Sysfs, plans: Sequence[DevicePlan]) -> list[Problem]:
    """Return why an override that binds no device now could never bind it; one sentence each."""
    return [
        Problem(problem, plan.device)
        for plan in plans
        if plan.policy.driver and not any(step.kind is StepKind.BIND for step in plan.steps)
        for problem in [_misnamed(sysfs, plan.device, plan.policy.driver)]
        if problem
    ]


def _misnamed(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    # Here, because no trial with policy vfio needs it, and a host compiles what it loads.
    from .._discovery.driver_names import misnamed  # noqa: PLC0415

    return misnamed(sysfs, device, driver)


def _unbind_problem(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> Problem | None:
    if _has_unbind(sysfs, device, driver):
        return None
    if is_built_in_driver(sysfs, kmod, device, driver):
        # explain_permanent_drivers reports it.
        return None
    return Problem(
        "%s cannot be unbound from its driver %s while the system runs: that driver has no "
        "unbind (suppress_bind_attrs). The driver is a module: set `runtime: false`, and reboot"
        % (device.label, driver),
        device,
        obstacle=Obstacle(
            NO_UNBIND, "driver %s has no unbind; `runtime: false` and a reboot unbind it" % driver
        ),
    )


def find_permanent_drivers(
    sysfs: Sysfs, kmod: Kmod, plans: Sequence[DevicePlan]
) -> list[tuple[Identity, str]]:
    """Return the devices that neither a run nor a boot takes from the driver that each has."""
    return [
        (plan.device, step.value)
        for plan in plans
        for step in plan.steps
        if step.kind is StepKind.UNBIND
        and step.value
        and is_permanent_driver(sysfs, kmod, plan.device, step.value)
    ]


def obstacle_of_permanent(driver: str) -> Obstacle:
    return Obstacle(NO_UNBIND, "driver %s has no unbind and is built into the kernel" % driver)


def explain_permanent_drivers(
    sysfs: Sysfs, kmod: Kmod, files: Files, plans: Sequence[DevicePlan]
) -> list[Problem]:
    """Return why neither a run nor a boot takes devices from their drivers; one sentence each."""
    permanent = find_permanent_drivers(sysfs, kmod, plans)
    if not permanent:
        return []
    drivers = BuiltinDrivers(sysfs, kmod, files)
    bindings = [drivers.of(device, driver) for device, driver in permanent]
    return [
        Problem(
            _explain_permanent_driver(binding),
            binding.device,
            obstacle=obstacle_of_permanent(binding.driver),
        )
        for binding in bindings
        if binding
    ]


def _has_unbind(sysfs: Sysfs, device: Identity, driver: str) -> bool:
    return sysfs.exists("bus/%s/drivers/%s/unbind" % (device.bus, driver))


def _explain_permanent_driver(binding: BuiltinBinding) -> str:
    return (
        "%s cannot be unbound from its driver %s, now or at boot: that driver has no unbind "
        "(suppress_bind_attrs) and is built into the kernel. Remove the device from the list, or "
        "add %s to the kernel command line, reboot and apply the list then; this also keeps the "
        "driver from other devices: %s"
        % (
            binding.device.label,
            binding.driver,
            binding.parameter or "initcall_blacklist= with the driver's init function",
            ", ".join(binding.others) or "none is bound to it now",
        )
    )


def _bind_problem(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> Problem | None:
    obstacle = None
    if sysfs.exists("bus/%s/drivers/%s" % (device.bus, driver)):
        sentence = (
            None
            if sysfs.exists("bus/%s/drivers/%s/bind" % (device.bus, driver))
            else "%s cannot be bound to %s while the system runs: that driver has no bind "
            "(suppress_bind_attrs). Set `runtime: false`, and reboot" % (device.label, driver)
        )
    elif is_vfio_driver(driver, device.bus):
        sentence = None if kmod.is_available(driver) else _no_vfio(kmod, driver)
        obstacle = Obstacle(NO_VFIO_DRIVER, "the kernel has no %s" % driver)
    else:
        sentence = _misnamed(sysfs, device, driver) or _not_registered(sysfs, kmod, device, driver)
    return Problem(sentence, device, obstacle=obstacle) if sentence else None


def _not_registered(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> str:
    from .._discovery.driver_names import not_registered  # noqa: PLC0415 - as in _misnamed

    return not_registered(sysfs, kmod, device, driver)


def _no_vfio(kmod: Kmod, driver: str) -> str:
    without = kmod.without_modules()
    if without:
        from .._discovery.driver_names import NO_MODULES  # noqa: PLC0415 - as in _misnamed

        return NO_MODULES % ("Driver " + driver, without)
    return (
        "This kernel (%s) has no %s: the driver is not registered, and modprobe finds no module "
        "of that name. Use a kernel with CONFIG_%s%s"
        % (
            os.uname().release,
            driver,
            driver.upper().replace("-", "_"),
            _NOT_IN_DEBIAN if driver in BUILT_BY_ROLE else "",
        )
    )


def _reload(sysfs: Sysfs, steps: Sequence[HostStep], plans: Sequence[DevicePlan]) -> list[Problem]:
    """Return why a loaded vfio module cannot be reloaded."""
    if not any(step.kind is HostStepKind.RELOAD_MODULE for step in steps):
        return []
    bus, driver = RESETTING, RESETTING.vfio_driver
    obstacle = Obstacle(CANNOT_RESET, "no reset function, and %s requires one" % driver)
    if is_built_in(sysfs, bus.vfio_module):
        return [Problem(_RESET_BUILT_IN % (driver, bus.vfio_module), obstacle=obstacle)]
    ours = {plan.device.name for plan in plans if plan.before.driver == driver}
    others = [
        name
        for name in sysfs.names("bus/%s/drivers/%s" % (bus.name, driver))
        if name not in ours and sysfs.exists("bus/%s/devices/%s" % (bus.name, name))
    ]
    if not others:
        return []
    return [
        Problem(
            "`reset_required` differs, so %s must be reloaded, but devices that are not in this "
            "list are bound to it: %s. Add them to the list or release them first"
            % (driver, ", ".join(others)),
            obstacle=obstacle,
        )
    ]


def _rebound(plans: Sequence[DevicePlan], steps: Sequence[HostStep]) -> list[Identity]:
    """Return the devices that VFIO drivers probe; a reloaded module probes all of its own."""
    reloaded = [step.value for step in steps if step.kind is HostStepKind.RELOAD_MODULE]
    return [
        plan.device
        for plan in plans
        if plan.binds_to_vfio or (plan.is_for_vfio and plan.before.driver in reloaded)
    ]


def _unready(
    sysfs: Sysfs,
    kmod: Kmod,
    given: Sequence[Identity],
    wanted: VfioSettings,
    pci_iommus: PciIommus,
) -> list[Problem]:
    """Return why VFIO will refuse devices."""
    problems = _without_firmware_id(given)
    problems += _no_units(sysfs, given)
    without_group = {
        device: reason
        for device in given
        for reason in [no_group_reason(sysfs, device, pci_iommus)]
        if reason
    }
    if without_group and not will_have_noiommu(sysfs, kmod, wanted):
        problems += [
            Problem(
                NO_GROUP % (device.label, cause),
                device,
                obstacle=Obstacle(NO_IOMMU_GROUP, "no IOMMU group"),
            )
            for device, cause in without_group.items()
        ]
    if _will_require_reset(sysfs, kmod, wanted):
        problems += [
            Problem(NO_RESET % (device.label, device.reset_compatible), device)
            for device in given
            if has_no_reset(kmod, device)
        ]
    return problems


def _without_firmware_id(given: Sequence[Identity]) -> list[Problem]:
    brief = "it has no compatible and no ACPI node, which VFIO requires"
    return [
        Problem(_NO_FIRMWARE_ID % device.label, device, obstacle=Obstacle(NO_FIRMWARE_ID, brief))
        for device in given
        if BUSES[device.bus].vfio_needs_firmware and not device.compatible and not device.acpi_path
    ]


def _no_units(sysfs: Sysfs, given: Sequence[Identity]) -> list[Problem]:
    """Return which devices are parts of what VFIO takes, or consist of it; one sentence each."""
    problems = []
    for device in given:
        unit = BUSES[device.bus].vfio_unit
        if unit is None or fnmatchcase(device.name, unit.names):
            continue
        container = parent_on_bus(sysfs, device)
        inside = ", and it is in %s" % container if container else ""
        problems.append(
            Problem(
                _NO_UNIT % (device.label, unit.taken, inside, unit.remedy),
                device,
                obstacle=Obstacle(OTHER_UNIT, "VFIO takes %s" % unit.taken),
            )
        )
    return problems


def no_group_reason(sysfs: Sysfs, device: Identity, pci_iommus: PciIommus) -> str | None:
    """Why the device surely has no IOMMU group, as a clause; before Linux 7 one with an IOMMU has
    its group from its first probe on.
    """
    path = sysfs_dir(device)
    if sysfs.link(path + "/iommu_group"):
        return None
    if device.pci_address:
        # A virtual function that a run is to create is not there.
        has_none = sysfs.exists(path) and pci_iommus.is_missing_for(device)
        return "no IOMMU is active in front of its host bridge" if has_none else None
    if device.dt_path:
        has_iommu = sysfs.exists(path + "/of_node/iommus")
        return None if has_iommu else "its node has no iommus property"
    if device.acpi_path and translates(sysfs, device.acpi_path) is False:
        return "the firmware's table IORT names no IOMMU for it"
    return None


def _will_require_reset(sysfs: Sysfs, kmod: Kmod, wanted: VfioSettings) -> bool:
    return will_be_on(sysfs, kmod, wanted, _RESET_REQUIRED)


def has_no_reset(kmod: Kmod, device: Identity) -> bool:
    """Return whether VFIO's driver surely finds no reset function (vfio_platform_get_reset).

    With ACPI only the kernel knows whether there is a method _RST; some drivers never ask.
    """
    asked = device.reset_compatible
    if not BUSES[device.bus].vfio_resets or asked is None:
        return False
    # A module that is built in need not be among modprobe's aliases.
    return asked not in _IN_KERNEL_RESETS and not kmod.resolve("vfio-reset:" + asked)


def _unsafe(sysfs: Sysfs, plans: Sequence[DevicePlan], wanted: VfioSettings) -> list[Problem]:
    """Return devices of the list that are bound to VFIO without an IOMMU."""
    if wanted.unsafe_noiommu is not False:
        return []
    return [
        Problem(
            "%s is bound to VFIO without an IOMMU, and with `unsafe_noiommu: false` it would not "
            "be bound again at the next boot. Remove it from the list, or set `unsafe_noiommu: "
            "true`" % plan.device.label,
            plan.device,
        )
        for plan in plans
        if plan.is_for_vfio and is_in_noiommu_group(sysfs, plan.device)
    ]


def unready_at_boot(
    sysfs: Sysfs,
    kmod: Kmod,
    for_vfio: Sequence[Identity],
    wanted: VfioSettings,
    foreign: Sequence[Line],
) -> list[Problem]:
    """Return why VFIO will refuse devices at the next boot.

    A parameter that nothing sets then may be set now: an earlier list leaves it, or somebody set it
    at a terminal. ``foreign`` are the lines of others in modprobe.d.
    """
    problems = _without_firmware_id(for_vfio)
    problems += _no_units(sysfs, for_vfio)
    if wanted.reset_required is None and is_set_at_boot(sysfs, foreign, _RESET_REQUIRED):
        problems += [
            Problem(_NO_RESET_AT_BOOT % (device.label, _RESET_REQUIRED), device)
            for device in for_vfio
            if has_no_reset(kmod, device)
        ]
    if wanted.unsafe_noiommu is None and not is_set_at_boot(sysfs, foreign, _NOIOMMU_MODE):
        pci_iommus = PciIommus(sysfs)
        problems += [
            Problem(_NO_IOMMU_AT_BOOT % (device.label, _NOIOMMU_MODE), device)
            for device in for_vfio
            if is_in_noiommu_group(sysfs, device) or no_group_reason(sysfs, device, pci_iommus)
        ]
    return problems


def is_set_at_boot(sysfs: Sysfs, foreign: Sequence[Line], parameter: str) -> bool:
    """Return whether a parameter of VFIO_PARAMETERS is on at boot, but for this collection."""
    read = foreign
    # Options of modprobe.d are for modules.
    if is_built_in(sysfs, parameter.partition(".")[0]):
        read = [line for line in foreign if line.location == KERNEL_COMMAND_LINE]
    value = value_at_boot(read, parameter)
    return is_true(VFIO_DEFAULTS[parameter] if value is None else value) is True


def will_have_noiommu(sysfs: Sysfs, kmod: Kmod, wanted: VfioSettings) -> bool:
    return will_be_on(sysfs, kmod, wanted, _NOIOMMU_MODE)


def will_be_on(sysfs: Sysfs, kmod: Kmod, wanted: VfioSettings, parameter: str) -> bool:
    """Return whether a parameter of VFIO_PARAMETERS is on once the module that has it is loaded."""
    option = VFIO_PARAMETERS[parameter]
    for settings in (wanted, present_settings(sysfs)):
        value: bool | None = getattr(settings, option)
        if value is not None:
            return value
    module, _dot, name = parameter.partition(".")
    loaded = kmod.parameter(module, name)
    return is_true(VFIO_DEFAULTS[parameter] if loaded is None else loaded) is True


def _without_noiommu(
    sysfs: Sysfs, kmod: Kmod, steps: Sequence[HostStep], wanted: VfioSettings
) -> list[str]:
    """Return whether the kernel cannot do without an IOMMU at all."""
    if not wanted.unsafe_noiommu or not any(
        step.kind is HostStepKind.SET_NOIOMMU for step in steps
    ):
        return []
    # What modinfo does not know is left to the kernel.
    if supports_noiommu(sysfs, kmod) is not False:
        return []
    return [
        "`unsafe_noiommu` cannot be set: vfio of this kernel (%s) has no parameter %s. Use a "
        "kernel with CONFIG_VFIO_NOIOMMU" % (os.uname().release, NOIOMMU_PARAMETER)
    ]


def _without_container_module(sysfs: Sysfs, kmod: Kmod, steps: Sequence[HostStep]) -> list[str]:
    """Return whether the kernel has no module for containers, whose parameter is to be set."""
    asked = HostStep(HostStepKind.SET_INTERRUPTS, "Y")
    if asked not in steps or sysfs.exists("module/" + CONTAINER_MODULE):
        return []
    cause = kmod.explain_missing(CONTAINER_MODULE)
    return [_NO_CONTAINER_MODULE % cause] if cause else []


def modules_to_load(steps: Sequence[HostStep]) -> list[str]:
    """Return the modules of VFIO that a run loads, or loads again."""
    loads = (HostStepKind.LOAD_MODULE, HostStepKind.RELOAD_MODULE)
    return [step.value for step in steps if step.kind in loads]


def supports_noiommu(sysfs: Sysfs, kmod: Kmod) -> bool | None:
    """Return whether the kernel's vfio can do without an IOMMU, or None if it is unknown."""
    if sysfs.exists("module/vfio"):
        return sysfs.exists(NOIOMMU)
    return kmod.has_parameter("vfio", NOIOMMU_PARAMETER)


def _unsigned(
    sysfs: Sysfs, kmod: Kmod, plans: Sequence[DevicePlan], steps: Sequence[HostStep]
) -> list[Problem]:
    """Return which modules the kernel will not load because nobody has signed them."""
    wanted = modules_to_load(steps)
    wanted += [
        step.value
        for plan in plans
        for step in plan.steps
        if step.kind is StepKind.LOAD_MODULE and step.value
    ]
    enforced = signed_only_reason(sysfs) if wanted else None
    if not enforced:
        return []
    unsigned = {
        module
        for name in wanted
        for module in kmod.unsigned(name)
        if name in (module, module.replace("_", "-")) or not sysfs.exists("module/" + module)
    }
    return [
        Problem(
            "Module %s cannot be loaded: this kernel accepts only signed modules (%s), and it is "
            "not signed. Sign it with a key that the kernel trusts, or install a kernel package "
            "with signed modules" % (module, enforced),
            obstacle=Obstacle(
                UNSIGNED_MODULE, "module %s is not signed, and the kernel requires it" % module
            ),
        )
        for module in sorted(unsigned)
    ]


def signed_only_reason(sysfs: Sysfs) -> str | None:
    """Return why the kernel accepts only signed modules: kernel/module/signing.c."""
    if is_true(sysfs.read("module/module/parameters/sig_enforce") or "N"):
        return "module.sig_enforce"
    # The level that is in force stands in brackets: security/lockdown/lockdown.c.
    lockdown = (sysfs.read("kernel/security/lockdown") or "").partition("[")[2].partition("]")[0]
    return "lockdown=" + lockdown if lockdown not in ("", "none") else None
