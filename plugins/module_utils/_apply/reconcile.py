# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One call from end to end: desired state, plan, preflight, apply."""

from __future__ import annotations

import functools
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Mapping, NamedTuple, Sequence

from .._boot import last_applied
from .._boot.boot_files import Initramfs
from .._errors import PolicyError, Problems
from .._in_use.checker import Usage
from .._in_use.kinds import GROUP, refusal
from .._model.device import Identity, State
from .._model.policy import Policy
from .._model.request import Request
from .._model.steps import DevicePlan, HostStep, Step
from .._system.files import FileChange
from .._system.host import Host
from . import symlinks
from .desired_state import ListKept, find_desired
from .kept_settings import reset_kept
from .plan_digest import check_planned, plan_digest
from .planner import Plan, make_plan
from .run_lock import RunLock

if TYPE_CHECKING:
    from .._boot.rollout_backup import RolloutStatus
    from .._discovery.builtin_drivers import BuiltinBinding


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
    # Messages about an earlier run that was interrupted.
    interrupted: Sequence[str] = ()
    builtin: Sequence[BuiltinBinding] = ()
    # Files that record this run, and are not for the next boot.
    records: Sequence[FileChange] = ()
    # Messages about entries for other boards.
    skipped: Sequence[str] = ()
    # Problems of this host that do not prevent what was asked for.
    warnings: Sequence[str] = ()
    # Why settings of VFIO stay as a list made them.
    unsafe_kept: Sequence[str] = ()
    reset_kept: str | None = None
    # What cannot be seen from here of the machine that is to boot.
    not_checked: Sequence[str] = ()
    # The digest of the list that is applied after it, the rollout that can be rolled back, and the
    # names of those that this run undid.
    policy_digest: str | None = None
    rollout: RolloutStatus | None = None
    rolled_back: Sequence[str] = ()
    # The digest of what it did or would do.
    plan_digest: str | None = None

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
    """Bring the host to what is asked for, or with ``check_mode`` report what that would do.

    PolicyError, with nothing changed, if it cannot be done.
    """
    # Nobody but root can change anything, or use the lock.
    if check_mode or os.geteuid() != 0:
        _refuse_interrupted(lock, request)
        outcome = _reconcile(host, usage, lock, request, check_mode)
        return outcome._replace(interrupted=_announce(lock))
    with lock.acquire():
        _refuse_interrupted(lock, request)
        interrupted = _recover(host, usage, lock, request)
        try:
            outcome = _reconcile(host, usage, lock, request, check_mode)
            return outcome._replace(interrupted=interrupted)
        except PolicyError as error:
            raise PolicyError([*interrupted, *error.problems]) from None


def _reconcile(
    host: Host, usage: Usage, lock: RunLock, request: Request, check_mode: bool
) -> Outcome:
    problems = Problems()
    with problems.ending():
        desired = find_desired(host, request, problems)
    if isinstance(desired, ListKept):
        problems.end()
        return _keep_list(host, desired, check_mode=check_mode)
    with problems.ending():
        plan = make_plan(host, desired)
    if not plan.may_be_refused:
        problems.end()
        _check_planned(plan)
        return _outcome(host, plan)
    # The boundary: a run that finds nothing to do, as nearly all do, loads nothing of this.
    from . import (  # noqa: PLC0415
        notices,
        preflight,
        transaction,
    )

    with problems.ending():
        plan = preflight.check(host, usage, lock, plan, problems)
        problems.end()
    _check_planned(plan)
    builtin = preflight.find_builtin_bindings(host, plan)
    after: dict[Identity, State] = {}
    logged: Sequence[str] = ()
    if plan.is_needed and not check_mode:
        changes = transaction.ChangeSet(
            host_steps=plan.host_steps,
            plans=plan.devices,
            files=plan.files,
            access=plan.request.access,
            may_share_group=GROUP in plan.request.allow,
            numvfs=plan.desired.claimed.numvfs if plan.request.runtime else {},
        )
        refusals = functools.partial(_refusals, usage, plan.request.allow)
        run = transaction.Transaction(host, lock.journal, changes, refusals)
        after, logged = run.run(), run.deprecations
    outcome = _outcome(host, plan, after, builtin)
    if not plan.is_needed:
        return outcome
    warnings = [*outcome.warnings, *notices.find_notices(host, plan, logged)]
    return outcome._replace(warnings=warnings)


def _refusals(usage: Usage, allow: Sequence[str], device_plan: DevicePlan) -> list[str]:
    """Return what uses the device now that its plan did not find."""
    device = device_plan.device
    hazards = usage.since(device, device_plan.before, allow)
    return [refusal(device.label, hazard) for hazard in hazards]


def _announce(lock: RunLock) -> list[str]:
    # The directory of an interrupted run is root's.
    if os.geteuid() != 0 or not lock.has_journal():
        return []
    # Here, as in _recover, because nearly all runs have not to load it.
    from .recovery import (  # noqa: PLC0415
        announce,
    )

    return announce(lock.journal)


def _refuse_interrupted(lock: RunLock, request: Request) -> None:
    """Raise PolicyError for a plan that was made before an interrupted run is rolled back."""
    if request.plan is not None and os.geteuid() == 0 and lock.has_journal():
        raise PolicyError(
            "A run was interrupted on this host and must be rolled back first, which no plan can "
            "include. Apply the list without a plan, or make a new plan after that"
        )


def _check_planned(plan: Plan) -> None:
    """Raise PolicyError if the plan is not the one that the request names."""
    planned = plan.request.plan
    if planned is not None:
        check_planned(planned, plan_digest(plan, _policy_digest(plan)))


def _recover(host: Host, usage: Usage, lock: RunLock, request: Request) -> list[str]:
    if not lock.has_journal():
        return []
    from .recovery import (  # noqa: PLC0415
        recover,
    )

    return recover(host, usage, lock.journal, request.allow)


def _keep_list(host: Host, desired: ListKept, *, check_mode: bool) -> Outcome:
    """Write what a rollout records, each file at once."""
    for change in desired.records:
        if change.is_needed and not check_mode:
            host.files.write_atomic(change.path, change.after)
    return Outcome(
        [],
        [],
        [],
        records=desired.records,
        policy_digest=last_applied.digest(
            desired.last_applied.entries, desired.last_applied.options
        ),
        rollout=desired.rollout,
    )


def _outcome(
    host: Host,
    plan: Plan,
    after: Mapping[Identity, State] = MappingProxyType({}),
    builtin: Sequence[BuiltinBinding] = (),
) -> Outcome:
    """Return the outcome of a plan; ``after`` are the verified states if it was applied."""
    request, changes = plan.request, plan.boot_files
    policy_digest = _policy_digest(plan)
    return Outcome(
        [
            _device_outcome(device_plan, after.get(device_plan.device))
            for device_plan in plan.devices
        ],
        list(plan.host_steps),
        changes.files,
        changes.initramfs,
        changes.needs_boot,
        builtin=builtin,
        records=plan.records,
        skipped=plan.desired.skipped,
        warnings=changes.warnings,
        unsafe_kept=plan.unsafe_kept,
        reset_kept=reset_kept(host, request, plan.desired.last_applied),
        not_checked=_not_checked(host, request),
        policy_digest=policy_digest,
        rollout=plan.desired.rollout,
        rolled_back=plan.desired.rolled_back,
        plan_digest=plan_digest(plan, policy_digest),
    )


def _policy_digest(plan: Plan) -> str:
    """Return the digest of the list that is applied after this plan."""
    request, earlier = plan.request, plan.desired.last_applied
    applied = request if request.is_whole_list and request.persistent else earlier
    return last_applied.digest(applied.entries, applied.options)


def _not_checked(host: Host, request: Request) -> list[str]:
    if request.runtime or not (request.persistent and request.entries):
        return []
    # Here, because only what is prepared for the next boot alone has to load it.
    from .._boot.hazards import (  # noqa: PLC0415
        not_checked,
    )

    return not_checked(host)


def _device_outcome(device_plan: DevicePlan, verified: State | None) -> DeviceOutcome:
    before = device_plan.before
    after = verified or before._replace(
        driver=device_plan.driver,
        driver_override=device_plan.driver_override,
    )
    if after.driver != before.driver and verified is None:
        after = after._replace(vfio_nodes=())
    return DeviceOutcome(
        device=device_plan.device,
        policy=device_plan.policy,
        before=before,
        after=after,
        steps=device_plan.steps,
        links=symlinks.paths(device_plan.links, after.vfio_nodes),
    )
