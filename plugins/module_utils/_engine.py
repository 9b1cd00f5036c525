# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call from end to end: read, plan, refuse or apply, report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils import _boot, _lasting, _links
from ansible_collections.armfleet.vfio.plugins.module_utils._call import Host, Request
from ansible_collections.armfleet.vfio.plugins.module_utils._devices import (
    complete,
    for_other_boards,
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
from ansible_collections.armfleet.vfio.plugins.module_utils._lasting import Initramfs
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    NODE_STEP,
    NODES,
    RELOAD_VFIO,
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
)
from ansible_collections.armfleet.vfio.plugins.module_utils._plan import (
    host_steps,
    needs_native,
    plan,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import (
    check_tags,
    claims,
    compared,
    dropped,
    first_entries,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._readiness import unreadiness
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import (
    refusals,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import (
    native,
    present_settings,
    registered,
)

if TYPE_CHECKING:
    from ansible_collections.armfleet.vfio.plugins.module_utils._early import Early
    from ansible_collections.armfleet.vfio.plugins.module_utils._rollout import Rolled


class DeviceOutcome(NamedTuple):
    """One device before and after; after a check it is what a run would give."""

    device: Identity
    policy: Policy
    before: State
    after: State
    steps: tuple[str, ...]
    links: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a call did or, after a check, would do."""

    devices: list[DeviceOutcome]
    host_steps: list[str]
    files: list[FileChange]
    initramfs: Initramfs = Initramfs()
    # Whether only a boot can finish what was asked for.
    needs_boot: bool = False
    # What is to be said of an earlier run that was interrupted.
    interrupted: Sequence[str] = ()
    early: Sequence[Early] = ()
    # Files that say something of this run, and are not for the next boot.
    records: Sequence[FileChange] = ()
    # What is to be said of entries that are for other boards.
    skipped: Sequence[str] = ()
    # What is wrong with this host and does not keep the run from what was asked for.
    warnings: Sequence[str] = ()

    @property
    def is_changed(self) -> bool:
        return bool(
            self.interrupted
            or self.host_steps
            or any(outcome.steps for outcome in self.devices)
            or any(change.is_needed for change in (*self.files, *self.records))
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
    request, skipped = _for_this_board(host, request)
    contents = _lasting.contents(host.files) if request.is_whole_list else {}
    memory = _boot.memory(contents.get(_boot.RULES))
    records: list[FileChange] = []
    if request.rollout is not None:
        rolled = _part_of_rollout(host, request, memory)
        if rolled is None:
            return Outcome([], [], [])
        # What was kept can have come here on the disk of another board.
        request, kept_elsewhere = _for_this_board(host, rolled.request)
        skipped += kept_elsewhere
        records = [rolled.record]
    wanted = _claims(host, request, memory)
    plans, unlinking, in_the_way = _linked(
        host, request, wanted, _plans(host, request, wanted, memory)
    )
    steps = unlinking + _host_steps(host, request, plans)
    lasting = _lasting.lasting(host, request, plans, memory, contents)
    records += lasting.records
    needed = [change for change in (*lasting.files, *records) if change.is_needed]
    _refuse(host, request, plans, steps, needed, lasting.clashes + in_the_way)
    after: dict[Identity, State] = {}
    is_needed = bool(steps or needed or any(one.steps for one in plans))
    early = _early(host, plans) if is_needed and lasting.files else []
    if is_needed and not check_mode:
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
        lasting.files,
        lasting.initramfs,
        lasting.needs_boot,
        early=early,
        records=records,
        skipped=skipped,
        warnings=lasting.warnings,
    )


def _for_this_board(host: Host, request: Request) -> tuple[Request, list[str]]:
    """The request without entries for other boards, and what is to be said of those."""
    elsewhere = for_other_boards(host.sysfs, [entry.selector for entry in request.entries])
    skipped = [elsewhere[one.selector] for one in request.entries if one.selector in elsewhere]
    here = [one for one in request.entries if one.selector not in elsewhere]
    check_tags(here)
    return request._replace(entries=here), skipped


def _part_of_rollout(host: Host, request: Request, memory: _boot.Memory) -> Rolled | None:
    # Here, because a run that is part of none has not to load it.
    from ansible_collections.armfleet.vfio.plugins.module_utils._rollout import (  # noqa: PLC0415
        PREVIOUS,
        part,
    )

    return part(request, memory, host.files.read(PREVIOUS))


def _early(host: Host, plans: Sequence[DevicePlan]) -> list[Early]:
    """Devices that are taken from a native driver which has them first at each boot as well."""
    # Here for the same reason as the transaction.
    from ansible_collections.armfleet.vfio.plugins.module_utils._early import (  # noqa: PLC0415
        EarlyDrivers,
    )

    drivers = EarlyDrivers(host.sysfs, host.kmod, host.files)
    found = [
        drivers.of(one.device, one.before.driver)
        for one in plans
        if one.loses_driver and not one.policy.taken_by
    ]
    return [early for early in found if early]


def _claims(host: Host, request: Request, memory: _boot.Memory) -> list[Claim]:
    """Who shall have which device, what the last list claimed and this one does not included."""
    if not request.runtime:
        return []
    if not host.sysfs.exists("bus/platform/devices"):
        raise PolicyError(
            "There is no /sys with devices here, as in a container or an image. To prepare the "
            "next boot only, set `runtime: false`"
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


def _linked(
    host: Host, request: Request, wanted: Sequence[Claim], plans: list[DevicePlan]
) -> _links.Linking:
    """The plans with links to nodes, which a whole list alone has."""
    if not (request.is_whole_list and request.runtime):
        return _links.Linking(plans, [], [])
    tags = {claim.device: claim.tag for claim in wanted if claim.tag}
    present: dict[str, str] = {}
    for folder in _links.FOLDERS:
        present.update(host.files.links(folder))
    return _links.linking(plans, tags, present, host.sysfs.has_node)


def _host_steps(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[HostStep]:
    if not any(device_plan.is_for_vfio for device_plan in plans):
        return []
    return host_steps(plans, registered(host.sysfs), request.settings, present_settings(host.sysfs))


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
            "Run on the host itself, or set `runtime: false` to prepare the next boot only"
        )
    group = request.access.group if request.access else None
    if group and (working or files) and not is_group(group):
        problems.append(
            "Group %s (`vfio_group`) does not exist on this host; create it first" % group
        )
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
        _links.paths(device_plan.links, after.vfio_nodes),
    )
