# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call from end to end: read, plan, refuse or apply, report."""

from __future__ import annotations

import os
from typing import NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils import (
    _boot,
    _driverctl,
    _modprobe,
    _udev,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._devices import (
    BUSES,
    alias_path,
    complete,
    resolve,
    snapshot,
    states,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._files import (
    FileChange,
    Files,
    is_group,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._kernel_log import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    DEFAULT,
    NODE_STEP,
    NODES,
    RELOAD_VFIO,
    VFIO,
    VFIO_DRIVERS,
    Claim,
    DevicePlan,
    HostStep,
    Identity,
    Native,
    NodeAccess,
    Policy,
    State,
    Step,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._plan import (
    host_steps,
    is_native,
    is_settled,
    is_taken,
    needs_native,
    override_of,
    plan,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import (
    Entry,
    claims,
    compared,
    dropped,
    first_entries,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._readiness import unreadiness
from ansible_collections.armfleet.vfio.plugins.module_utils._runs import Runs
from ansible_collections.armfleet.vfio.plugins.module_utils._selectors import (
    Selector,
    resolve_alias,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import (
    Usage,
    refusals,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import (
    is_built_in,
    native,
    present_settings,
    registered,
)

_INITRAMFS_COMMANDS = (
    ["/usr/sbin/update-initramfs", "-u"],
    ["/usr/bin/dracut", "--force"],
)


class Host(NamedTuple):
    """The doors to one machine."""

    sysfs: Sysfs
    kmod: Kmod
    files: Files
    usage: Usage
    runs: Runs
    log: KernelLog


class Request(NamedTuple):
    """What one call asks for.

    ``is_whole_list`` is true where ``entries`` are all that this collection shall claim on the
    host, so that what the last such list claimed and this one does not is given back. One that
    ``takes_over`` replaces what driverctl has stored of the same devices.
    """

    entries: Sequence[Entry]
    is_whole_list: bool = False
    runtime: bool = True
    persistent: bool = False
    settings: VfioSettings = VfioSettings()
    access: NodeAccess | None = None
    allow: Sequence[str] = ()
    takes_over: bool = False


class DeviceOutcome(NamedTuple):
    """One device before and after; after a check it is what a run would give."""

    device: Identity
    policy: Policy
    before: State
    after: State
    steps: tuple[str, ...]


class Outcome(NamedTuple):
    """What a call did or, after a check, would do."""

    devices: list[DeviceOutcome]
    host_steps: list[str]
    files: list[FileChange]
    initramfs_command: list[str] | None
    # Whether only a boot can finish what was asked for.
    needs_boot: bool = False
    # What is to be said of an earlier run that was interrupted.
    interrupted: Sequence[str] = ()

    @property
    def is_changed(self) -> bool:
        return bool(
            self.interrupted
            or self.host_steps
            or any(outcome.steps for outcome in self.devices)
            or any(change.is_needed for change in self.files)
        )


def run(host: Host, request: Request, check_mode: bool) -> Outcome:
    """Bring the host to what is asked for, or with ``check_mode`` say what that would do.

    PolicyError, with nothing changed, if it cannot be done.
    """
    # Nobody but root can change anything, or use the lock.
    if check_mode or os.geteuid() != 0:
        return _run(host, request, check_mode)._replace(interrupted=_notice(host))
    with host.runs.alone():
        interrupted = _recover(host, request)
        try:
            return _run(host, request, check_mode)._replace(interrupted=interrupted)
        except PolicyError as error:
            raise PolicyError([*interrupted, *error.problems]) from None


def _notice(host: Host) -> list[str]:
    # The folder of an interrupted run is root's.
    left = host.runs.interrupted() if os.geteuid() == 0 else None
    if left is None:
        return []
    # Here, as in _recover, because nearly all runs have not to load it.
    from ansible_collections.armfleet.vfio.plugins.module_utils._recovery import (  # noqa: PLC0415
        announcement,
    )

    return [announcement(left) + " The next run undoes first what it had done"]


def _recover(host: Host, request: Request) -> list[str]:
    if host.runs.interrupted() is None:
        return []
    from ansible_collections.armfleet.vfio.plugins.module_utils._recovery import (  # noqa: PLC0415
        Recovery,
    )

    doors = Recovery(host.sysfs, host.kmod, host.files, host.usage, host.runs)
    return doors.run(request.allow)


def _run(host: Host, request: Request, check_mode: bool) -> Outcome:
    contents = _boot_contents(host.files) if request.is_whole_list else {}
    memory = _boot.memory(contents.get(_boot.RULES))
    wanted = _claims(host, request, memory)
    plans = _plans(host, request, wanted, memory)
    steps = _host_steps(host, request, plans)
    boot_plan = _boot_plan(host, request, plans, memory) if request.persistent else None
    files = _file_changes(boot_plan, contents)
    lasting = _lasting_claims(host, request, plans)
    rivals = _claimed_by_driverctl(host, lasting)
    if request.takes_over:
        files += [kept.removal for kept in rivals.values()]
    needed = [change for change in files if change.is_needed]
    clashes = [] if request.takes_over else [one.clash(device) for device, one in rivals.items()]
    clashes += _rules_against(host, lasting) + _obstacles(host, request, boot_plan)
    _refuse(host, request, plans, steps, needed, clashes)
    after: dict[Identity, State] = {}
    if not check_mode and (steps or needed or any(one.steps for one in plans)):
        # Here, because a run that finds nothing to do, as nearly all do, has not to load it.
        from ansible_collections.armfleet.vfio.plugins.module_utils._transaction import (  # noqa: PLC0415
            Changes,
            Transaction,
        )

        changes = Changes(steps, plans, needed, request.access, "group" in request.allow)
        after = Transaction(host.sysfs, host.kmod, host.files, host.runs, host.log, changes).run()
    return Outcome(
        [_outcome(device_plan, after.get(device_plan.device)) for device_plan in plans],
        [step.sentence for step in steps],
        files,
        _initramfs_command() if needed else None,
        _needs_boot(host, request, lasting, memory),
    )


def _needs_boot(
    host: Host, request: Request, lasting: Sequence[Claim], memory: _boot.Memory
) -> bool:
    """Whether the next boot is to change a device of this running system."""
    if request.runtime or not host.sysfs.exists("bus/platform/devices"):
        return False
    kept = {claim.device for claim in lasting}
    earlier = [
        (device, entry.policy)
        for entry, devices in zip(memory.entries, _present(host, memory.entries))
        for device in devices
        if device not in kept
    ]
    devices = [claim.device for claim in lasting] + [device for device, _policy in earlier]
    present = states(host.sysfs, devices)
    is_right = [
        is_settled(claim.policy, claim.device, state) for claim, state in zip(lasting, present)
    ]
    is_free = [
        policy.kind == DEFAULT or not is_taken(policy, device.bus, state)
        for (device, policy), state in zip(earlier, present[len(lasting) :])
    ]
    return not all(is_right + is_free)


def _boot_contents(files: Files) -> dict[str, str | None]:
    contents = {path: files.read(path) for path in _boot.PATHS}
    problems = [
        problem for path, content in contents.items() for problem in _boot.not_ours(path, content)
    ]
    if problems:
        raise PolicyError(problems)
    return contents


def _claims(host: Host, request: Request, memory: _boot.Memory) -> list[Claim]:
    """Who shall have which device, what the last list claimed and this one does not included."""
    if not request.runtime:
        return []
    if not host.sysfs.exists("bus/platform/devices"):
        raise PolicyError(
            "There is no /sys with devices here, as in a container or an image. To prepare the "
            "next boot only, say runtime: false"
        )
    selectors = [entry.selector for entry in request.entries]
    earlier = [entry.selector._replace(required=False, expect=None) for entry in memory.entries]
    devices = snapshot(host.sysfs, {selector.kind for selector in selectors + earlier})
    found = resolve(host.sysfs, selectors + earlier, devices)
    known = {device: complete(host.sysfs, device) for matches in found for device in matches}
    matched = [[known[device] for device in matches] for matches in found]
    now = claims(request.entries, matched[: len(selectors)])
    if not request.is_whole_list:
        return [claim._replace(is_new=False) for claim in now]
    earlier_entries = first_entries(memory.entries, matched[len(selectors) :])
    before = [Claim(device, entry.policy) for device, entry in earlier_entries.items()]
    return compared(now, before) + dropped(now, before)


def _plans(
    host: Host, request: Request, wanted: Sequence[Claim], memory: _boot.Memory
) -> list[DevicePlan]:
    present = states(host.sysfs, [claim.device for claim in wanted])
    plans = [
        plan(claim, state, _native(host, claim, state, memory))
        for claim, state in zip(wanted, present)
    ]
    return [_with_node_access(host.files, one, request.access) for one in plans]


def _native(host: Host, claim: Claim, state: State, memory: _boot.Memory) -> Native:
    if not needs_native(claim, state):
        return Native()
    return native(host.sysfs, host.kmod, claim.device, memory.native_of(claim.device))


def _with_node_access(
    files: Files, device_plan: DevicePlan, access: NodeAccess | None
) -> DevicePlan:
    if access is None or not device_plan.is_for_vfio:
        return device_plan
    nodes = device_plan.before.vfio_nodes
    if nodes and not device_plan.steps and all(_has(files, node, access) for node in nodes):
        return device_plan
    step = Step(NODES, None, NODE_STEP + access.label)
    return device_plan._replace(steps=(*device_plan.steps, step))


def _has(files: Files, node: str, wanted: NodeAccess) -> bool:
    present = files.node_access(node)
    return present is not None and (
        wanted.group in (None, present.group) and wanted.mode in (None, present.mode)
    )


def _host_steps(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[HostStep]:
    if not any(device_plan.is_for_vfio for device_plan in plans):
        return []
    return host_steps(plans, registered(host.sysfs), request.settings, present_settings(host.sysfs))


def _boot_plan(
    host: Host, request: Request, plans: Sequence[DevicePlan], memory: _boot.Memory
) -> _boot.BootPlan:
    return _boot.BootPlan(
        request.entries,
        [_for_boot(host, entry.selector) for entry in request.entries],
        _natives(plans, memory) if request.runtime else memory.natives,
        _vfio_buses(host, request, plans),
        _pinned_modules(host, request.entries),
        request.settings,
        request.access,
    )


def _file_changes(
    boot_plan: _boot.BootPlan | None, contents: dict[str, str | None]
) -> list[FileChange]:
    if boot_plan is None:
        return []
    rendered = _boot.render(boot_plan)
    return [FileChange(path, contents[path], content) for path, content in rendered.items()]


def _obstacles(host: Host, request: Request, boot_plan: _boot.BootPlan | None) -> list[str]:
    """What others have configured that keeps the modules of the list away at the next boot."""
    if boot_plan is None or not boot_plan.entries:
        return []
    modules = [VFIO_DRIVERS[bus] for bus in boot_plan.buses]
    modules += boot_plan.modules.values()
    loadable = [one for one in modules if not is_built_in(host.sysfs, _modprobe.underscored(one))]
    wanted = _modprobe.Wanted(loadable, _boot.parameters(boot_plan.settings))
    return _modprobe.obstacles(host.files, wanted, _boot.MODPROBE, is_running=request.runtime)


def _lasting_claims(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[Claim]:
    """What the list claims at the next boot, of the devices that are there now."""
    if not (request.is_whole_list and request.persistent):
        return []
    if request.runtime:
        return [Claim(one.device, one.policy) for one in plans if not one.policy.taken_by]
    return [
        Claim(device, entry.policy)
        for entry, devices in zip(request.entries, _present(host, request.entries))
        for device in devices
    ]


def _claimed_by_driverctl(
    host: Host, lasting: Sequence[Claim]
) -> dict[Identity, _driverctl.Stored]:
    """What driverctl has stored of devices that the list claims at the next boot."""
    kept = _driverctl.stored(host.files) if lasting else []
    pairs = ((claim.device, _driverctl.of_device(claim.device, kept)) for claim in lasting)
    return {device: stored for device, stored in pairs if stored}


def _rules_against(host: Host, lasting: Sequence[Claim]) -> list[str]:
    """Which rules of others set another override on devices that the list claims."""
    rules = _udev.rules(host.files, _boot.RULES) if lasting else []
    sentences = []
    for claim in lasting if rules else []:
        wanted = override_of(claim.policy, claim.device.bus)
        sentences += [
            rule.clash(claim.device, wanted)
            for rule in _udev.of_device(claim.device, rules)
            if rule.driver_override != wanted
        ]
    return sentences


def _for_boot(host: Host, selector: Selector) -> Selector | None:
    """The selector as a rule can match it; None if this machine cannot have such a device."""
    alias = selector.alias
    if alias is None:
        return selector
    if alias_path(host.sysfs, alias):
        return resolve_alias(selector, lambda name: alias_path(host.sysfs, name))
    # The kernel puts an alias into the device's uevent only if it ends in a number
    # (of_alias_scan in drivers/of/base.c).
    if selector.value == alias and alias[-1:].isdigit():
        return selector
    if not selector.required:
        return None
    raise PolicyError(
        "dt_path %r needs this machine's device tree to be resolved; give the whole path"
        % selector.value
    )


def _natives(plans: Sequence[DevicePlan], memory: _boot.Memory) -> dict[str, str | None]:
    """Which driver each claimed device was taken from: as remembered, or as seen now."""
    natives: dict[str, str | None] = {}
    for device_plan in plans:
        device = device_plan.device
        if device_plan.policy.kind == DEFAULT:
            continue
        remembered = memory.native_of(device)
        if remembered is None and is_native(device, device_plan.before):
            remembered = (device_plan.before.driver,)
        if remembered is not None:
            # Two devices can share a node, and then a path does not tell them apart.
            name = device.name_on_bus if device.stable_name in natives else device.stable_name
            natives[name] = remembered[0]
    return natives


def _vfio_buses(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[str]:
    if request.runtime:
        return sorted({plan.device.bus for plan in plans if plan.is_for_vfio})
    given = [entry for entry in request.entries if entry.policy.kind == VFIO]
    return sorted({device.bus for devices in _present(host, given) for device in devices})


def _present(host: Host, entries: Sequence[Entry]) -> list[list[Identity]]:
    """The devices of each entry that are there now; an image may have no /sys."""
    if not host.sysfs.exists("bus/platform/devices"):
        return []
    selectors = [entry.selector._replace(required=False, expect=None) for entry in entries]
    return resolve(host.sysfs, selectors)


def _pinned_modules(host: Host, entries: Sequence[Entry]) -> dict[str, str]:
    modules = {}
    for entry in entries:
        driver = entry.policy.driver
        for bus in BUSES if driver else ():
            module = host.sysfs.link_name("bus/%s/drivers/%s/module" % (bus, driver))
            if driver and module:
                modules[driver] = module
    return modules


def _refuse(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    files: Sequence[FileChange],
    clashes: Sequence[str],
) -> None:
    """Say every reason not to begin, before anything is touched."""
    working = [device_plan for device_plan in plans if device_plan.steps]
    problems = list(clashes)
    if (working or steps or files) and os.geteuid() != 0:
        problems.append("This needs root on the target: say become: true")
    if (working or steps) and host.sysfs.is_read_only():
        problems.append(
            "/sys is mounted read-only here, as in most containers, so no driver can be changed. "
            "Run on the host itself, or say runtime: false to prepare the next boot only"
        )
    group = request.access.group if request.access else None
    if group and (working or files) and not is_group(group):
        problems.append("vfio_group %s does not exist on this host; create it first" % group)
    problems += unreadiness(host.sysfs, host.kmod, plans, steps, request.settings)
    problems += _hazards(host, request, plans, steps)
    if problems:
        raise PolicyError(problems)


def _hazards(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
) -> list[str]:
    is_reloaded = any(step.kind == RELOAD_VFIO for step in steps)
    reloaded = VFIO_DRIVERS["platform"] if is_reloaded else None
    leaving = _leaving_native_drivers(plans)
    sentences = []
    for one in plans:
        hazards = []
        if one.loses_driver or (reloaded and one.before.driver == reloaded):
            hazards += host.usage.of(one.device, one.before)
        if one.binds_to_vfio:
            hazards += host.usage.beside(one.device, leaving)
        sentences += refusals(one.device, hazards, request.allow)
    return sentences


def _leaving_native_drivers(plans: Sequence[DevicePlan]) -> set[str]:
    return {one.device.name_on_bus for one in plans if one.is_for_vfio or one.driver is None}


def _outcome(device_plan: DevicePlan, verified: State | None) -> DeviceOutcome:
    before = device_plan.before
    after = verified or before._replace(
        driver=device_plan.driver,
        driver_override=device_plan.driver_override,
    )
    if after.driver != before.driver and verified is None:
        after = after._replace(vfio_nodes=())
    return DeviceOutcome(
        device_plan.device,
        device_plan.policy,
        before,
        after,
        tuple(step.sentence for step in device_plan.steps),
    )


def _initramfs_command() -> list[str] | None:
    return next(
        (command for command in _INITRAMFS_COMMANDS if os.access(command[0], os.X_OK)), None
    )
