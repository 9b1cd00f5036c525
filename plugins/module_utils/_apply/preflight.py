# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every reason not to begin, before anything is touched: readiness, files and use. Reads only.

It is loaded by runs that have something to do, and by few others.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Sequence

from .._boot import boot_files, modprobe_d
from .._boot.hazards import AbsentHazard, find_absent_hazards
from .._boot.installed_kernels import InstalledKernels
from .._boot.last_applied import MODPROBE
from .._boot.module_loading import ModuleLoading
from .._discovery.builtin_drivers import BuiltinBinding, BuiltinDrivers
from .._discovery.devices import has_devices, states
from .._errors import Problems
from .._in_use.checker import Usage
from .._in_use.kinds import CONSUMERS, OPEN_NODE, Hazard, refusal
from .._model.device import Identity
from .._model.policy import CONTAINER_MODULE, DEFAULT
from .._model.steps import DevicePlan, HostStep, HostStepKind, Problem, StepKind
from .._system.files import is_group
from .._system.host import Host
from . import symlinks
from .planner import Plan, plan_devices
from .readiness import (
    explain_permanent_drivers,
    in_containers,
    modules_to_load,
    unreadiness,
    unready_at_boot,
)
from .run_lock import RunLock

_NO_ROOT = "Root privileges are required on the target. Set `become: true`"
_READ_ONLY = (
    "/sys is mounted read-only, as in most containers, so no driver can be changed. Run on the "
    "host itself, or set `runtime: false` to prepare only the next boot"
)
_NO_GROUP = "Group %s (`vfio_group`) does not exist on this host. Create it first"
_UNLOADABLE = (
    "%s, so modprobe does not load %s, which VFIO needs now. Remove that line or parameter"
)


class NextBoot(NamedTuple):
    """What the next boot does by the files of a call.

    ``plans`` are those that it carries out instead of this run; ``absent`` is what will be needed
    of devices that have no driver yet.
    """

    plans: Sequence[DevicePlan] = ()
    absent: Sequence[AbsentHazard] = ()


def check(host: Host, usage: Usage, lock: RunLock, plan: Plan, problems: Problems) -> Plan:
    """Return the plan with the kinds of use that were accepted for the next boot.

    What speaks against it is added to ``problems``.
    """
    request = plan.request
    # An entry that is wrong may mean more devices.
    is_whole = not problems.are_of_entries
    boot = NextBoot()
    if plan.is_needed or plan.accepts_less:
        boot = _find_next_boot(host, usage, plan)
    hazards = _find_hazards(host, usage, plan, boot, is_whole=is_whole)
    unready = unreadiness(
        *(host.sysfs, host.kmod, plan.devices, plan.host_steps, request.settings), is_whole=is_whole
    )
    unready_now = {problem.device for problem in unready}
    reasons = [
        *plan.boot_files.conflicts,
        *plan.link_conflicts,
        *map(Problem, _find_obstacles(host, lock, plan)),
        *map(Problem, _find_unloadable(host, plan)),
        *unready,
        *in_containers(host.sysfs, [*plan.devices, *boot.plans]),
        *explain_permanent_drivers(host.sysfs, host.kmod, host.files, [*plan.working, *boot.plans]),
        *(
            problem
            for problem in _find_unready_at_boot(host, plan, boot.plans)
            if problem.device not in unready_now
        ),
        *_refuse(plan, boot, hazards),
    ]
    positions = plan.desired.claimed.positions
    for reason in reasons:
        position = positions.get(reason.device) if reason.device else reason.position
        problems.add(reason.sentence, position=position)
    accepted = {hazard.kind for _device, hazard in hazards}
    accepted.update(absent.hazard.kind for absent in boot.absent)
    if not (accepted and plan.boot_files.needs_boot):
        return plan
    records = [boot_files.accepting(change, sorted(accepted)) for change in plan.records]
    return plan._replace(records=records)


def find_builtin_bindings(host: Host, plan: Plan) -> list[BuiltinBinding]:
    """Return devices whose native driver binds them first at each boot."""
    if not (plan.is_needed and plan.boot_files.files):
        return []
    drivers = BuiltinDrivers(host.sysfs, host.kmod, host.files)
    bindings = [
        drivers.of(device_plan.device, device_plan.before.driver)
        for device_plan in plan.devices
        if device_plan.loses_driver and not device_plan.policy.release_of
    ]
    return [binding for binding in bindings if binding]


def _find_next_boot(host: Host, usage: Usage, plan: Plan) -> NextBoot:
    """Return what the boot files of a call make of the devices that are there, and of others."""
    request = plan.request
    if not (request.is_whole_list and request.persistent and has_devices(host.sysfs)):
        return NextBoot()
    absent = find_absent_hazards(host, usage, request.entries)
    if request.runtime:
        return NextBoot((), absent)
    return NextBoot(plan_devices(host, plan.desired, plan.desired.claimed.claims), absent)


def _find_obstacles(host: Host, lock: RunLock, plan: Plan) -> list[str]:
    """Return why nothing can be written here; one sentence each."""
    request = plan.request
    obstacles = []
    if plan.is_needed and os.geteuid() != 0:
        obstacles.append(_NO_ROOT)
    if (plan.working or plan.host_steps) and host.sysfs.is_read_only():
        obstacles.append(_READ_ONLY)
    group = request.access.group if request.access else None
    if group and (plan.working or plan.files) and not is_group(group):
        obstacles.append(_NO_GROUP % group)
    if plan.is_needed and os.geteuid() == 0:
        obstacles += _find_unwritable(host, lock, plan)
    return obstacles


def _find_unloadable(host: Host, plan: Plan) -> list[str]:
    """Return the foreign configuration by which modprobe does not load modules of VFIO now.

    One sentence for each line, but for what conflicts with the boot files already.
    """
    kinds = {step.kind for step in plan.host_steps}
    modules = modules_to_load(plan.host_steps)
    if HostStep(HostStepKind.SET_INTERRUPTS, "Y") in plan.host_steps:
        modules.append(CONTAINER_MODULE)
    if not modules:
        return []
    loading = ModuleLoading(
        host.kmod, modprobe_d.lines(host.files, MODPROBE), InstalledKernels(host.files)
    )
    conflicting = {problem.line for problem in plan.boot_files.conflicts}
    kept_away: dict[str, list[str]] = {}
    for line in loading.blocking(modules):
        # What is reloaded is unloaded before, with all that only it needs.
        is_loaded = host.sysfs.exists("module/" + line.module)
        if line.command == modprobe_d.BLACKLIST or (
            is_loaded and HostStepKind.RELOAD_MODULE not in kinds
        ):
            continue
        if (line.location, line.text) not in conflicting:
            kept_away.setdefault(line.label, []).append(line.module)
    return [_UNLOADABLE % (label, " and ".join(names)) for label, names in kept_away.items()]


def _find_unwritable(host: Host, lock: RunLock, plan: Plan) -> list[str]:
    """Return which of the files and links that are to change cannot be, and why. Reads only."""
    obstacles = [lock.journal.obstacle()]
    obstacles += [host.files.obstacle(change.path, change.size) for change in plan.files]
    links = [step.value for step in plan.host_steps if step.kind is HostStepKind.REMOVE_LINK]
    for device_plan in plan.working:
        kinds = {step.kind for step in device_plan.steps}
        if kinds & {StepKind.SET_NODE_ACCESS, StepKind.LINK_NODES}:
            links += symlinks.targets(device_plan.links, ())
    # A container may have none.
    if host.sysfs.has_node(symlinks.DEV):
        # They are all on one file system.
        obstacles += [host.files.obstacle(path, verb="link") for path in links[:1]]
    return [obstacle for obstacle in obstacles if obstacle]


def _find_unready_at_boot(host: Host, plan: Plan, at_boot: Sequence[DevicePlan]) -> list[Problem]:
    request = plan.request
    if not (request.is_whole_list and request.persistent):
        return []
    plans = {device_plan.device: device_plan for device_plan in [*plan.devices, *at_boot]}
    for_vfio = [device for device, device_plan in plans.items() if device_plan.is_for_vfio]
    if not for_vfio:
        return []
    return unready_at_boot(
        *(host.sysfs, host.kmod, for_vfio, request.settings),
        modprobe_d.lines(host.files, MODPROBE),
    )


def _refuse(
    plan: Plan, boot: NextBoot, hazards: Sequence[tuple[Identity, Hazard]]
) -> list[Problem]:
    """Return what is in use, or will be, and was not accepted."""
    allow = plan.request.allow
    reasons = [
        Problem(refusal(absent.label, absent.hazard))
        for absent in boot.absent
        if not absent.hazard.is_accepted(allow)
    ]
    return reasons + [
        Problem(refusal(device.label, hazard), device)
        for device, hazard in hazards
        if not hazard.is_accepted(allow)
    ]


def _find_hazards(
    host: Host, usage: Usage, plan: Plan, boot: NextBoot, *, is_whole: bool
) -> list[tuple[Identity, Hazard]]:
    """Return uses, now or at the prepared boot, of the devices that will be unbound."""
    plans = [*plan.devices, *boot.plans]
    reloaded = [step.value for step in plan.host_steps if step.kind is HostStepKind.RELOAD_MODULE]
    leaving = _leaving_native_drivers(plans)
    hazards = []
    for device_plan in plans:
        device = device_plan.device
        is_taken = device_plan.loses_driver or device_plan.binds_to_vfio
        if is_taken or device_plan.before.driver in reloaded:
            hazards += [(device, hazard) for hazard in _find_use(usage, plan, device_plan)]
        if device_plan.binds_to_vfio and is_whole:
            hazards += [(device, hazard) for hazard in usage.iommu_group_hazards(device, leaving)]
    return hazards + _find_use_of_removed(host, usage, plan)


def _find_use_of_removed(host: Host, usage: Usage, plan: Plan) -> list[tuple[Identity, Hazard]]:
    """Return uses of the virtual functions that a change of their number removes."""
    numvfs, last_applied = plan.desired.claimed.numvfs, plan.desired.last_applied
    claiming = [
        entry.selector
        for entry in (*last_applied.entries, *plan.request.entries)
        if entry.policy.kind != DEFAULT
    ]
    hazards = []
    for change in numvfs.values() if plan.request.runtime else ():
        for device, state in zip(change.removed, states(host.sysfs, change.removed)):
            uses = usage.hazards_of(device, state)
            is_ours = change.is_ours or any(selector.matches(device) for selector in claiming)
            if state.driver and not is_ours and not uses:
                sentence = "it is bound to %s, and a change of sriov_numvfs removes it"
                uses = [Hazard(CONSUMERS, device.name, sentence % state.driver)]
            hazards += [(device, hazard) for hazard in uses]
    return hazards


def _find_use(usage: Usage, plan: Plan, device_plan: DevicePlan) -> list[Hazard]:
    device, state, request = device_plan.device, device_plan.before, plan.request
    hazards = usage.hazards_of(device, state)
    if not request.runtime:
        # Who holds a VFIO node open now does not outlast the boot, and nothing is unbound in use.
        hazards = [
            hazard._replace(is_fatal=False) for hazard in hazards if hazard.kind != OPEN_NODE
        ]
    if request.is_whole_list and request.persistent:
        hazards += usage.find_boot_hazards(device, state, hazards)
    return hazards


def _leaving_native_drivers(plans: Sequence[DevicePlan]) -> set[str]:
    return {
        device_plan.device.name_on_bus
        for device_plan in plans
        if device_plan.is_for_vfio or device_plan.driver is None
    }
