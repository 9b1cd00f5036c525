# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether devices became what their policies ask for, as the kernel says after it. Reads only."""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from .._discovery.devices import state, states
from .._discovery.vfio import bound_wrongly, native_siblings
from .._errors import PolicyError
from .._in_use.kinds import GROUP
from .._model.buses import is_vfio_driver
from .._model.device import Identity, State
from .._model.steps import DevicePlan, StepKind
from .._system.sysfs import Sysfs


def verify(sysfs: Sysfs, plan: DevicePlan, quote: Callable[[Identity], str]) -> State:
    """Return the state of a device; raise PolicyError, with ``quote``, if not as planned."""
    after = state(sysfs, plan.device)
    problem = None
    if after.driver_override != plan.driver_override:
        problem = "its driver_override is %s" % (after.driver_override or "unset")
    elif not _is_expected(plan, after):
        problem = "its driver is %s" % (after.driver or "none")
    else:
        problem = bound_wrongly(sysfs, plan, after)
    if problem:
        raise PolicyError(
            "%s does not match policy %s after the change (driver %s): %s. Read 'dmesg | grep %s'%s"
            % (
                plan.device.label,
                plan.policy.label,
                plan.driver or "none",
                problem,
                plan.device.name,
                quote(plan.device),
            )
        )
    return after


def verify_again(
    sysfs: Sysfs,
    verified: Mapping[Identity, State],
    plans: Sequence[DevicePlan],
    *,
    may_share_group: bool,
) -> dict[Identity, State]:
    """Return the states as they are in the end.

    PolicyError if a device lost its driver to a later one, such as a consumer to its supplier, or
    shares its IOMMU group with one that is not for VFIO.
    """
    now = states(sysfs, list(verified))
    problems = [
        "%s was bound to %s, but a later step of this run unbound it again (now: %s)"
        % (device.label, before.driver or "none", after.driver or "none")
        for (device, before), after in zip(verified.items(), now)
        if not after.is_bound_as(before)
    ]
    problems += [
        "%s was bound to VFIO, but shares IOMMU group %s with %s, which is bound to %s, so VFIO "
        "can open neither. Add %s to the list with policy vfio or no_autobind; to do so later, "
        "add '%s' to `allow`"
        % (plan.device.label, sibling.group, sibling.name, sibling.driver, sibling.name, GROUP)
        for plan in plans
        if plan.binds_to_vfio and not may_share_group
        for sibling in native_siblings(sysfs, plan.device)
    ]
    if problems:
        raise PolicyError(problems)
    return dict(zip(verified, now))


def _is_expected(plan: DevicePlan, after: State) -> bool:
    if any(step.kind is StepKind.PROBE for step in plan.steps) and not plan.native.was_bound:
        # No more than the modalias spoke for a driver, so whatever the kernel chose is right.
        return not is_vfio_driver(after.driver, plan.device.bus)
    return after.driver == plan.driver
