# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call from end to end: read, plan, refuse or apply, report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Mapping, NamedTuple, Sequence

from .._boot import boot_files, last_applied
from .._boot.boot_files import BootFileChanges, Initramfs
from .._boot.last_applied import LastApplied
from .._discovery.devices import (
    for_other_boards,
    has_devices,
    resolve_all,
    snapshot,
    states,
    with_all_ids,
)
from .._discovery.vfio import native, present_settings, registered
from .._errors import PolicyError, Problems
from .._in_use.checker import Usage
from .._in_use.kinds import OPEN_NODE, Hazard, refusal
from .._model.device import Identity, Native, State
from .._model.plan import host_steps, needs_native, plan
from .._model.policy import Claim, NodeAccess, Policy
from .._model.policy_list import (
    claims,
    compared,
    disagreements,
    dropped,
    first_entries,
    shared_tags,
)
from .._model.request import Request
from .._model.steps import DevicePlan, HostStep, HostStepKind, Problem, Step, StepKind
from .._system.files import FileChange, Files, is_group
from .._system.host import Host
from . import symlinks
from .kept_settings import noiommu, reset_kept
from .preflight import explain_permanent_drivers, unreadiness
from .run_lock import RunLock

if TYPE_CHECKING:
    from .._boot.hazards import Absent
    from .._boot.rollout_backup import Rolled
    from .._discovery.builtin_drivers import Early


class DeviceOutcome(NamedTuple):
    """One device before and after; after a check it is what a run would give."""

    device: Identity
    policy: Policy
    before: State
    after: State
    steps: tuple[Step, ...]
    links: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a call did or, after a check, would do."""

    devices: list[DeviceOutcome]
    host_steps: list[HostStep]
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
    # Why settings of VFIO stay as a list made them.
    noiommu_kept: str | None = None
    reset_kept: str | None = None
    # What cannot be seen from here of the machine that is to boot.
    not_checked: Sequence[str] = ()

    @property
    def is_changed(self) -> bool:
        return bool(
            self.interrupted
            or self.host_steps
            or any(outcome.steps for outcome in self.devices)
            or any(change.is_needed for change in (*self.files, *self.records))
        )


def reconcile(
    host: Host, usage: Usage, lock: RunLock, request: Request, *, check_mode: bool
) -> Outcome:
    """Bring the host to what is asked for, or with ``check_mode`` say what that would do.

    PolicyError, with nothing changed, if it cannot be done.
    """
    # Nobody but root can change anything, or use the lock.
    if check_mode or os.geteuid() != 0:
        outcome = _run(host, usage, lock, request, check_mode)
        return outcome._replace(interrupted=_announce(lock))
    with lock.acquire():
        interrupted = _recover(host, usage, lock, request)
        try:
            return _run(host, usage, lock, request, check_mode)._replace(interrupted=interrupted)
        except PolicyError as error:
            raise PolicyError([*interrupted, *error.problems]) from None


def _announce(lock: RunLock) -> list[str]:
    # The directory of an interrupted run is root's.
    if os.geteuid() != 0 or not lock.has_journal():
        return []
    # Here, as in _recover, because nearly all runs have not to load it.
    from .recovery import (  # noqa: PLC0415
        announce,
    )

    return announce(lock.journal)


def _recover(host: Host, usage: Usage, lock: RunLock, request: Request) -> list[str]:
    if not lock.has_journal():
        return []
    from .recovery import (  # noqa: PLC0415
        recover,
    )

    return recover(host, usage, lock.journal, request.allow)


class _Prepared(NamedTuple):
    """What a call would do, once nothing speaks against it."""

    request: Request
    plans: list[DevicePlan]
    steps: list[HostStep]
    lasting: BootFileChanges
    records: list[FileChange]
    skipped: list[str]
    memory: LastApplied
    # Why VFIO still takes devices without an IOMMU.
    noiommu_kept: str | None

    @property
    def needed(self) -> list[FileChange]:
        """The files that differ."""
        changes = (*self.lasting.files, *self.records)
        return [change for change in changes if change.is_needed]

    @property
    def is_needed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.steps or self.needed or any(one.steps for one in self.plans))


def _run(host: Host, usage: Usage, lock: RunLock, request: Request, check_mode: bool) -> Outcome:
    problems = Problems()
    with problems.ending():
        prepared = _prepare(host, usage, lock, request, problems)
    if prepared is None:
        return Outcome([], [], [])
    request, plans, steps, lasting, records, skipped, memory, noiommu_kept = prepared
    after: dict[Identity, State] = {}
    early = _early(host, plans) if prepared.is_needed and lasting.files else []
    if prepared.is_needed and not check_mode:
        # Here, because a run that finds nothing to do, as nearly all do, has not to load it.
        from .transaction import (  # noqa: PLC0415
            ChangeSet,
            Transaction,
        )

        changes = ChangeSet(steps, plans, prepared.needed, request.access, "group" in request.allow)

        def refusals(plan: DevicePlan) -> list[str]:
            return [
                refusal(plan.device.label, hazard)
                for hazard in usage.since(plan.device, plan.before, request.allow)
            ]

        after = Transaction(host, lock.journal, changes, refusals).run()
    return Outcome(
        [_outcome(device_plan, after.get(device_plan.device)) for device_plan in plans],
        steps,
        lasting.files,
        lasting.initramfs,
        lasting.needs_boot,
        early=early,
        records=records,
        skipped=skipped,
        warnings=lasting.warnings,
        noiommu_kept=noiommu_kept,
        reset_kept=reset_kept(host, request, memory),
        not_checked=_not_checked(host, request),
    )


def _prepare(
    host: Host, usage: Usage, lock: RunLock, request: Request, problems: Problems
) -> _Prepared | None:
    """What has to be done; None where the call does not concern this host.

    PolicyError where it cannot be done. ``problems`` collects what does not keep the rest from
    being inspected.
    """
    for position, sentence in request.problems:
        problems.add(sentence, position=position)
    request, skipped = _for_this_board(host, request, problems)
    contents = boot_files.contents(host.files) if request.is_whole_list else {}
    problems.add(*boot_files.not_ours(host.files, contents))
    memory = LastApplied([], {})
    with problems.collecting():
        memory = last_applied.parse_header(contents.get(last_applied.RULES))
    records: list[FileChange] = []
    if request.rollout is not None:
        rolled = _part_of_rollout(host, request, memory)
        if rolled is None:
            problems.end()
            return None
        # What was kept can have come here on the disk of another board.
        request, kept_elsewhere = _for_this_board(host, rolled.request, problems)
        skipped += kept_elsewhere
        records = [rolled.record]
    wanted = _Wanted([], request, {})
    if request.runtime:
        wanted = _claimed(host, request, memory, problems)
    request = wanted.request
    plans, unlinking, in_the_way = _linked(
        host, request, wanted.claims, _plans(host, request, wanted.claims, memory)
    )
    steps = unlinking + _host_steps(host, request, plans)
    unsafe = noiommu(host, request, plans, steps, memory)
    steps += unsafe.steps
    memory = memory._replace(noiommu_before=unsafe.before)
    lasting = boot_files.plan_boot_files(host, request, plans, memory, contents)
    records += lasting.records
    prepared = _Prepared(request, plans, steps, lasting, records, skipped, memory, unsafe.kept)
    is_whole = not problems.are_of_entries
    boot = _NextBoot()
    if prepared.is_needed or lasting.accepts_less_than(request.allow):
        boot = _next_boot(host, usage, request, memory)
    hazards = _hazards(usage, request, [*plans, *boot.plans], steps, is_whole=is_whole)
    found = _reasons_against(host, lock, prepared, boot, in_the_way, is_whole=is_whole)
    found += [
        Problem(refusal(device.label, hazard), device)
        for device, hazard in hazards
        if not hazard.is_accepted(request.allow)
    ]
    positions = {**lasting.positions, **wanted.positions}
    for problem in found:
        position = positions.get(problem.device) if problem.device else problem.position
        problems.add(problem.sentence, position=position)
    problems.end()
    accepted = {hazard.kind for _device, hazard in hazards}
    accepted.update(absent.hazard.kind for absent in boot.absent)
    if accepted and lasting.needs_boot:
        records = [boot_files.accepting(change, sorted(accepted)) for change in records]
    return prepared._replace(records=records)


def _next_boot(host: Host, usage: Usage, request: Request, memory: LastApplied) -> _NextBoot:
    """What the boot files of a call make of the devices that are there, and of others."""
    if not (request.is_whole_list and request.persistent and _has_devices(host)):
        return _NextBoot()
    # Here, because nearly all runs change nothing and have not to load it.
    from .._boot.hazards import (  # noqa: PLC0415
        find_absent_hazards,
    )

    absent = find_absent_hazards(host, usage, request.entries)
    if request.runtime:
        return _NextBoot((), absent)
    # What else is wrong with the entries is reported of the files that are made of them.
    found = _claimed(host, _expecting_nothing(request), memory, Problems())
    return _NextBoot(_plans(host, request, found.claims, memory), absent)


def _expecting_nothing(request: Request) -> Request:
    """The request where devices may be missing, as at the next boot."""
    entries = [
        entry._replace(selector=entry.selector._replace(required=False, expect=None))
        for entry in request.entries
    ]
    return request._replace(entries=entries)


def _not_checked(host: Host, request: Request) -> list[str]:
    if request.runtime or not (request.persistent and request.entries):
        return []
    from .._boot.hazards import (  # noqa: PLC0415
        not_checked,
    )

    return not_checked(host)


def _has_devices(host: Host) -> bool:
    return has_devices(host.sysfs)


def _for_this_board(host: Host, request: Request, problems: Problems) -> tuple[Request, list[str]]:
    """The request without entries for other boards, and what is to be said of those."""
    elsewhere = for_other_boards(host.sysfs, [entry.selector for entry in request.entries])
    skipped = [elsewhere[one.selector] for one in request.entries if one.selector in elsewhere]
    here = [
        (position, entry)
        for position, entry in request.by_position
        if entry.selector not in elsewhere
    ]
    request = request._replace(
        entries=[entry for _position, entry in here],
        positions=[position for position, _entry in here],
    )
    for index, sentence in shared_tags(request.entries).items():
        problems.add(sentence, position=request.positions[index])
    return request, skipped


def _part_of_rollout(host: Host, request: Request, memory: LastApplied) -> Rolled | None:
    # Here, because a run that is part of none has not to load it.
    from .._boot.rollout_backup import (  # noqa: PLC0415
        PREVIOUS,
        part,
    )

    return part(request, memory, host.files.read_own(PREVIOUS))


def _early(host: Host, plans: Sequence[DevicePlan]) -> list[Early]:
    """Devices that are taken from a native driver which has them first at each boot as well."""
    # Here for the same reason as the transaction.
    from .._discovery.builtin_drivers import (  # noqa: PLC0415
        EarlyDrivers,
    )

    drivers = EarlyDrivers(host.sysfs, host.kmod, host.files)
    found = [
        drivers.of(one.device, one.before.driver)
        for one in plans
        if one.loses_driver and not one.policy.taken_by
    ]
    return [early for early in found if early]


class _Wanted(NamedTuple):
    """Who shall have which device, and the request without the entries that are wrong.

    ``positions`` are those of the entries of the list that claim the devices.
    """

    claims: list[Claim]
    request: Request
    positions: dict[Identity, int]


def _claimed(host: Host, request: Request, memory: LastApplied, problems: Problems) -> _Wanted:
    """What the list claims, and what the last list claimed and this one does not."""
    if not _has_devices(host):
        raise PolicyError(
            "There is no /sys with devices here, as in a container or an image. To prepare the "
            "next boot only, set `runtime: false`"
        )
    selectors = [entry.selector for entry in request.entries]
    earlier = [entry.selector._replace(required=False, expect=None) for entry in memory.entries]
    devices = snapshot(host.sysfs, {selector.field for selector in selectors + earlier})
    found, unresolved = resolve_all(host.sysfs, selectors + earlier, devices)
    known = {device: with_all_ids(host.sysfs, device) for matches in found for device in matches}
    matched = [[known[device] for device in matches] for matches in found]
    now = _resolved(request, matched[: len(selectors)], unresolved, problems)
    if not request.is_whole_list:
        return now._replace(claims=[claim._replace(is_new=False) for claim in now.claims])
    earlier_entries = first_entries(memory.entries, matched[len(selectors) :])
    before = [Claim(device, entry.policy) for device, entry in earlier_entries.items()]
    # A device can be that of an entry that is wrong.
    released = [] if problems.are_of_entries else dropped(now.claims, before)
    return now._replace(claims=compared(now.claims, before) + released)


def _resolved(
    request: Request,
    matched: Sequence[Sequence[Identity]],
    unresolved: Mapping[int, str],
    problems: Problems,
) -> _Wanted:
    """What those entries claim that have no problem, and that no other contradicts."""
    by_position = list(request.by_position)
    for index, sentence in unresolved.items():
        problems.add(sentence, position=by_position[index][0])
    undecided: set[Identity] = set()
    for problem in disagreements(request.entries, matched):
        problems.add(problem.sentence, position=by_position[problem.position][0])
        undecided.update(problem.devices)
    good = [
        (position, entry, [device for device in devices if device not in undecided])
        for index, ((position, entry), devices) in enumerate(zip(by_position, matched))
        if index not in unresolved
    ]
    positions: dict[Identity, int] = {}
    for position, _entry, devices in good:
        for device in devices:
            positions.setdefault(device, position)
    entries = [entry for _position, entry, _devices in good]
    return _Wanted(
        claims(entries, [devices for _position, _entry, devices in good]),
        request._replace(entries=entries, positions=[entry[0] for entry in good]),
        positions,
    )


def _plans(
    host: Host, request: Request, wanted: Sequence[Claim], memory: LastApplied
) -> list[DevicePlan]:
    present = states(host.sysfs, [claim.device for claim in wanted])
    plans = [
        plan(claim, state, _native(host, claim, state, memory))
        for claim, state in zip(wanted, present)
    ]
    return [_with_node_access(host.files, one, request.access) for one in plans]


def _native(host: Host, claim: Claim, state: State, memory: LastApplied) -> Native:
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
    step = Step(StepKind.SET_NODE_ACCESS, access=access)
    return device_plan._replace(steps=(*device_plan.steps, step))


def _has(files: Files, node: str, wanted: NodeAccess) -> bool:
    present = files.node_access(node)
    return present is not None and (
        wanted.group in (None, present.group) and wanted.mode in (None, present.mode)
    )


def _linked(
    host: Host, request: Request, wanted: Sequence[Claim], plans: list[DevicePlan]
) -> symlinks.Linking:
    """The plans with links to nodes, which a whole list alone has."""
    if not (request.is_whole_list and request.runtime):
        return symlinks.Linking(plans, [], [])
    tags = {claim.device: claim.tag for claim in wanted if claim.tag}
    present: dict[str, str] = {}
    for folder in symlinks.FOLDERS:
        present.update(host.files.links(folder))
    return symlinks.linking(plans, tags, present, host.sysfs.has_node)


def _host_steps(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[HostStep]:
    if not any(device_plan.is_for_vfio for device_plan in plans):
        return []
    return host_steps(plans, registered(host.sysfs), request.settings, present_settings(host.sysfs))


class _NextBoot(NamedTuple):
    """What the next boot does by the files of a call.

    ``plans`` are those that it carries out instead of this run; ``absent`` is what will be needed
    of devices that have no driver yet.
    """

    plans: Sequence[DevicePlan] = ()
    absent: Sequence[Absent] = ()


def _reasons_against(
    host: Host,
    lock: RunLock,
    prepared: _Prepared,
    boot: _NextBoot,
    in_the_way: Sequence[Problem],
    *,
    is_whole: bool,
) -> list[Problem]:
    """Every reason not to begin but what is in use, before anything is touched.

    Unless the list ``is_whole``, it is not known what else it would claim.
    """
    request, plans, steps = prepared.request, prepared.plans, prepared.steps
    files = prepared.needed
    working = [device_plan for device_plan in plans if device_plan.steps]
    found = [*prepared.lasting.conflicts, *in_the_way]
    if (working or steps or files) and os.geteuid() != 0:
        found.append(Problem("This needs root on the target: say become: true"))
    if (working or steps) and host.sysfs.is_read_only():
        found.append(
            Problem(
                "/sys is mounted read-only here, as in most containers, so no driver can be "
                "changed. Run on the host itself, or set `runtime: false` to prepare the next boot "
                "only"
            )
        )
    group = request.access.group if request.access else None
    if group and (working or files) and not is_group(group):
        sentence = "Group %s (`vfio_group`) does not exist on this host; create it first" % group
        found.append(Problem(sentence))
    if working or steps or files:
        found += [Problem(one) for one in _not_writable(host, lock, working, steps, files)]
    found += unreadiness(host.sysfs, host.kmod, plans, steps, request.settings, is_whole=is_whole)
    found += explain_permanent_drivers(host.sysfs, host.kmod, host.files, [*working, *boot.plans])
    return found + [
        Problem(refusal(absent.label, absent.hazard))
        for absent in boot.absent
        if not absent.hazard.is_accepted(request.allow)
    ]


def _not_writable(
    host: Host,
    lock: RunLock,
    working: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    files: Sequence[FileChange],
) -> list[str]:
    """Which of the files and links that are to change cannot be, and why. Reads only."""
    if os.geteuid() != 0:
        return []
    obstacles = [lock.journal.obstacle()]
    obstacles += [host.files.obstacle(change.path, change.size) for change in files]
    links = [step.value for step in steps if step.kind is HostStepKind.REMOVE_LINK]
    for one in working:
        if any(step.kind in (StepKind.SET_NODE_ACCESS, StepKind.LINK_NODES) for step in one.steps):
            links += symlinks.targets(one.links, ())
    # A container may have none.
    if host.sysfs.has_node(symlinks.DEV):
        # They are all on one file system.
        obstacles += [host.files.obstacle(path, verb="link") for path in links[:1]]
    return [problem for problem in obstacles if problem]


def _hazards(
    usage: Usage,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    *,
    is_whole: bool,
) -> list[tuple[Identity, Hazard]]:
    """What is in use, or will be by the next boot that is prepared, of devices that are taken."""
    reloaded = [step.value for step in steps if step.kind is HostStepKind.RELOAD_MODULE]
    leaving = _leaving_native_drivers(plans)
    found = []
    for one in plans:
        hazards = []
        if one.loses_driver or one.before.driver in reloaded:
            hazards += _in_use(usage, request, one)
        if one.binds_to_vfio and is_whole:
            hazards += usage.iommu_group_hazards(one.device, leaving)
        found += [(one.device, hazard) for hazard in hazards]
    return found


def _in_use(usage: Usage, request: Request, device_plan: DevicePlan) -> list[Hazard]:
    device, state = device_plan.device, device_plan.before
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
        device_plan.steps,
        symlinks.paths(device_plan.links, after.vfio_nodes),
    )
