# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The digest of a plan: the same for the same changes of a host that is as it was. Pure.

It has parts with a dot between them, so that a run can report what differs: the list that is
applied after it and, if something changes, the changes of devices, of the host and of boot files.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Sequence

from .._errors import PolicyError

if TYPE_CHECKING:
    from .planner import Plan

_DIGITS = 32
_DIGEST = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}){0,3}")
_PARTS = (
    "the list or its options",
    "devices",
    "modules or links in /dev/vfio",
    "boot files",
)


def is_plan_digest(text: str) -> bool:
    """Return whether it can be what :func:`plan_digest` returned."""
    return _DIGEST.fullmatch(text) is not None and text.count(".") in (0, len(_PARTS) - 1)


def plan_digest(plan: Plan, policy_digest: str) -> str:
    """Return the digest of a plan; ``policy_digest`` is that of the list after it."""
    parts = [policy_digest[:_DIGITS]]
    files = [change for change in plan.boot_files.files if change.is_needed]
    if not (plan.working or plan.host_steps or files):
        return parts[0]
    # Here, because nearly all runs have no steps.
    from .step_sentences import (  # noqa: PLC0415
        of_host_step,
        of_step,
    )

    devices = [
        [
            device_plan.device.bus,
            device_plan.device.name,
            device_plan.device.label,
            *device_plan.before[:2],
            device_plan.driver,
            device_plan.driver_override,
            [of_step(step) for step in device_plan.steps],
        ]
        for device_plan in plan.working
    ]
    contents = [[change.path, change.before, change.after, list(change.damage)] for change in files]
    host_steps = [of_host_step(step) for step in plan.host_steps]
    return ".".join([*parts, _digest(devices), _digest(host_steps), _digest(contents)])


def check_planned(planned: str, present: str) -> None:
    """Raise PolicyError if a host would change in another way than planned.

    A host that is in sync with the planned list already has nothing left of the plan to do.
    """
    if planned == present or planned.split(".", 1)[0] == present:
        return
    raise PolicyError(
        "This host is not as it was when the plan was made: %s. Nothing was changed. Make a new "
        "plan" % _difference(planned.split("."), present.split("."))
    )


def _difference(planned: Sequence[str], present: Sequence[str]) -> str:
    if planned[0] != present[0]:
        return "%s changed since then" % _PARTS[0]
    if len(planned) == 1:
        return "it was in sync, and is not any longer"
    parts = [part for part, before, now in zip(_PARTS, planned, present) if before != now]
    return "what is to be changed of %s differs" % " and of ".join(parts)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()[:_DIGITS]
