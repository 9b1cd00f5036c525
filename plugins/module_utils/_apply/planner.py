# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is asked for to all that has to be done for it. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._boot import boot_files
from .._boot.boot_files import BootFileChanges
from .._boot.last_applied import LastApplied
from .._discovery.devices import states
from .._discovery.vfio import native, present_settings, registered
from .._model.claimed import NumVfs
from .._model.device import Identity, Native, State
from .._model.node_access import NodeAccess
from .._model.plan import host_steps, needs_native, plan
from .._model.policy import Claim
from .._model.request import Request
from .._model.steps import DevicePlan, HostStep, Problem, Step, StepKind
from .._system.files import FileChange, Files
from .._system.host import Host
from . import symlinks
from .desired_state import Desired
from .kept_settings import unsafe_settings


class Plan(NamedTuple):
    """What a call would do, once nothing speaks against it.

    ``records`` are files about this run that are not for the next boot.
    """

    desired: Desired
    devices: Sequence[DevicePlan]
    host_steps: Sequence[HostStep]
    boot_files: BootFileChanges
    records: Sequence[FileChange]
    # Why the links that are wanted cannot be made.
    link_conflicts: Sequence[Problem]
    # Why VFIO still accepts what a list made it accept.
    unsafe_kept: Sequence[str]

    @property
    def request(self) -> Request:
        return self.desired.request

    @property
    def files(self) -> list[FileChange]:
        """The files that differ."""
        changes = (*self.boot_files.files, *self.records)
        return [change for change in changes if change.is_needed]

    @property
    def working(self) -> list[DevicePlan]:
        """The devices that something is to be done with."""
        return [device_plan for device_plan in self.devices if device_plan.steps]

    @property
    def is_needed(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.host_steps or self.files or self.working)

    @property
    def accepts_less(self) -> bool:
        """Whether a boot is waited for with more kinds of use accepted than this call accepts."""
        return self.boot_files.accepts_less_than(self.request.allow)

    @property
    def may_be_refused(self) -> bool:
        """Whether anything can speak against it: against nothing to do only what is listed here."""
        return bool(
            self.is_needed
            or self.accepts_less
            or self.boot_files.conflicts
            or self.link_conflicts
            or self.request.settings.unsafe_noiommu is False
            or any(device_plan.policy.driver for device_plan in self.devices)
        )


def make_plan(host: Host, desired: Desired) -> Plan:
    """Return all that has to be done for what is desired."""
    request, last_applied = desired.request, desired.last_applied
    claims = desired.claimed.claims if request.runtime else []
    links = _plan_symlinks(host, request, claims, plan_devices(host, desired, claims))
    steps = links.steps + _host_steps(host, request, links.plans)
    unsafe = unsafe_settings(host, request, links.plans, steps, last_applied)
    changes = boot_files.plan_boot_files(
        host,
        request,
        plans=links.plans,
        previous=last_applied._replace(before=unsafe.before),
        before=desired.contents,
        claimed=desired.claimed,
    )
    return Plan(
        desired=desired,
        devices=links.plans,
        host_steps=[*steps, *unsafe.steps],
        boot_files=changes,
        records=[*_rollout_records(desired, links.plans), *changes.records],
        link_conflicts=links.problems,
        unsafe_kept=unsafe.kept,
    )


def _rollout_records(desired: Desired, plans: Sequence[DevicePlan]) -> Sequence[FileChange]:
    """Return the files that a rollout writes; its history has the devices that it changes."""
    if desired.history is None:
        return desired.records
    # Here, because most runs change no rollout.
    from .._boot.rollout_history import (  # noqa: PLC0415
        changed_device,
        to_change,
    )

    changed = [
        changed_device(plan.device.stable_name, plan.before.driver, plan.driver)
        for plan in plans
        if plan.steps
    ]
    return [to_change(desired.history, changed), *desired.records]


def plan_devices(host: Host, desired: Desired, claims: Sequence[Claim]) -> list[DevicePlan]:
    """Return what has to be done with each device that is claimed."""
    present = states(host.sysfs, [claim.device for claim in claims])
    numvfs, created = desired.claimed.numvfs, desired.claimed.created
    plans = [
        plan(claim, State(), Native())
        if claim.device in created
        else plan(claim, state, _native(host, claim, state, desired.last_applied))
        for claim, state in zip(claims, present)
    ]
    plans = [_with_numvfs(device_plan, numvfs.get(device_plan.device)) for device_plan in plans]
    access = desired.request.access
    return [_with_node_access(host.files, device_plan, access) for device_plan in plans]


def _native(host: Host, claim: Claim, state: State, last_applied: LastApplied) -> Native:
    if not needs_native(claim, state):
        return Native()
    return native(host.sysfs, host.kmod, claim.device, last_applied.native_of(claim.device))


def _with_numvfs(device_plan: DevicePlan, change: NumVfs | None) -> DevicePlan:
    if change is None:
        return device_plan
    step = Step(StepKind.SET_NUMVFS, str(change.after), str(change.before))
    return device_plan._replace(steps=(*device_plan.steps, step))


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


def _has(files: Files, node: str, access: NodeAccess) -> bool:
    present = files.node_access(node)
    return present is not None and (
        access.group in (None, present.group) and access.mode in (None, present.mode)
    )


def _plan_symlinks(
    host: Host, request: Request, claims: Sequence[Claim], plans: list[DevicePlan]
) -> symlinks.SymlinkPlan:
    """Return the plans with links to nodes, which a whole list alone has."""
    if not (request.is_whole_list and request.runtime):
        return symlinks.SymlinkPlan(plans, [], [])
    tags: dict[Identity, str] = {claim.device: claim.tag for claim in claims if claim.tag}
    present: dict[str, str] = {}
    for directory in symlinks.DIRECTORIES:
        present.update(host.files.links(directory))
    return symlinks.plan_symlinks(plans, tags, present, host.sysfs.has_node)


def _host_steps(host: Host, request: Request, plans: Sequence[DevicePlan]) -> list[HostStep]:
    if not any(device_plan.is_for_vfio for device_plan in plans):
        return []
    return host_steps(plans, registered(host.sysfs), request.settings, present_settings(host.sysfs))
