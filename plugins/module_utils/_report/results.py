# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call tells the user: results and diffs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from .._model.device import State
from .._model.steps import HostStep, HostStepKind, Step, StepKind
from .._system.files import FileChange
from .device_fields import identity, kernel_parameter, running

if TYPE_CHECKING:
    from .._apply.reconcile import DeviceOutcome, Outcome

# What driver and override do not show.
_NOTED = (StepKind.SET_NODE_ACCESS, StepKind.LINK_NODES, StepKind.SET_NUMVFS)


def device(outcome: DeviceOutcome) -> dict[str, Any]:
    """Return one device of a state module's result."""
    return dict(
        identity(outcome.device),
        **running(outcome.after),
        before=_binding(outcome.before),
        after=_binding(outcome.after),
        changed=bool(outcome.steps),
        steps=_sentences(outcome.steps),
    )


def result(outcome: Outcome) -> dict[str, Any]:
    """Return the result of a state module."""
    return {
        "changed": outcome.is_changed,
        "devices": [device(device_outcome) for device_outcome in outcome.devices],
        "host_steps": _sentences(outcome.host_steps),
        "interrupted": list(outcome.interrupted),
        "skipped_entries": list(outcome.skipped),
        "diff": diff(outcome),
    }


def vfio_result(outcome: Outcome) -> dict[str, Any]:
    """Return the result of a module that sets parameters of VFIO."""
    return dict(result(outcome), kept_settings=_kept_settings(outcome))


def list_result(outcome: Outcome) -> dict[str, Any]:
    """Return the result of a module that applies a whole list."""
    return dict(
        vfio_result(outcome),
        devices=linked(outcome),
        boot_files=boot_files(outcome),
        initramfs_tool=outcome.initramfs.tool,
        initramfs_command=outcome.initramfs.command,
        reboot_required=outcome.needs_boot,
        not_checked=list(outcome.not_checked),
        kernel_command_line=[kernel_parameter(binding) for binding in outcome.builtin],
        policy_digest=outcome.policy_digest,
        plan_digest=outcome.plan_digest,
        rollout=_rollout(outcome),
        rolled_back=list(outcome.rolled_back),
        inspection=None,
    )


def _rollout(outcome: Outcome) -> dict[str, Any] | None:
    rollout = outcome.rollout
    return {"name": rollout.name, "ended": rollout.has_ended} if rollout else None


def linked(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the devices of a whole list, with the links to their nodes."""
    return [
        dict(device(device_outcome), links=list(device_outcome.links))
        for device_outcome in outcome.devices
    ]


def _kept_settings(outcome: Outcome) -> list[str]:
    """Return settings of VFIO that stay as they were asked for once."""
    return [*outcome.unsafe_kept, *filter(None, [outcome.reset_kept])]


def boot_files(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the files that last across boots."""
    return [
        {
            "path": change.path,
            "changed": change.is_needed,
            "state": "absent" if change.after is None else "present",
        }
        for change in outcome.files
    ]


def diff(outcome: Outcome) -> list[dict[str, str]]:
    """Return parts for devices, links that go, modules and each file, where they differ."""
    changed = [device_outcome for device_outcome in outcome.devices if device_outcome.steps]
    parts = []
    if changed:
        parts.append(
            _part(
                "devices",
                [_line(device_outcome, device_outcome.before) for device_outcome in changed],
                [_line_after(device_outcome) for device_outcome in changed],
            )
        )
    removed = [step for step in outcome.host_steps if step.kind is HostStepKind.REMOVE_LINK]
    if removed:
        parts.append(_part("links", [step.value for step in removed], []))
    modules = [step for step in outcome.host_steps if step not in removed]
    if modules:
        parts.append(_part("kernel modules", [], _sentences(modules)))
    files = (*outcome.files, *outcome.records)
    parts += [_part(change.path, change.damage, []) for change in files if change.damage]
    return parts + [_file_part(change) for change in files if change.before != change.after]


def _binding(state: State) -> dict[str, str | None]:
    return {"driver": state.driver, "driver_override": state.driver_override}


def _line(outcome: DeviceOutcome, state: State, note: str = "") -> str:
    return "%s: driver %s, driver_override %s%s" % (
        outcome.device.label,
        state.driver or "(none)",
        state.driver_override or "(unset)",
        note,
    )


def _line_after(outcome: DeviceOutcome) -> str:
    notes = [" (released)"] if outcome.policy.release_of else []
    noted = [step for step in outcome.steps if step.kind in _NOTED or step.note]
    notes += ["; " + sentence for sentence in _sentences(noted)]
    return _line(outcome, outcome.after, "".join(notes))


def _sentences(steps: Sequence[Step | HostStep]) -> list[str]:
    if not steps:
        return []
    # Here, because nearly all runs have no steps.
    from .._apply.step_sentences import (  # noqa: PLC0415
        of_host_step,
        of_step,
    )

    return [of_step(step) if isinstance(step, Step) else of_host_step(step) for step in steps]


def _part(header: str, before: Sequence[str], after: Sequence[str]) -> dict[str, str]:
    return {
        "before_header": header,
        "after_header": header,
        "before": "".join(line + "\n" for line in before),
        "after": "".join(line + "\n" for line in after),
    }


def _file_part(change: FileChange) -> dict[str, str]:
    return {
        "before_header": change.path,
        "after_header": change.path,
        "before": change.before or "",
        "after": change.after or "",
    }
