# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of device_info. Pure but for whose right it is that more is not known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import _text
from .._boot.forecast import Binding, OverrideSources
from .._boot.in_sync import BootFile
from .._boot.installed_kernels import Kernel
from .._boot.last_applied import from_settings, to_mapping
from .._discovery.driver_match import Reason
from .._in_use.kinds import Hazard
from .._model.device import Board
from .device_fields import identity, kernel_parameter, running
from .inspection import Findings, Inspection

if TYPE_CHECKING:
    from .._boot.rollout_history import ChangedDevice, Rollout, Stamp
    from .._model.steps import Obstacle
    from .lost_entries import LostEntry
    from .vfio_support import VfioSupport


def unknown(findings: Findings) -> list[str]:
    """Return what could not be known, and what root would see; a sentence each."""
    sentences = []
    devices = [
        inspection.device.name for inspection in findings.devices if inspection.may_carry_more
    ]
    if devices:
        sentences.append(
            "%s: whether a process of another user, or in another mount namespace, uses these "
            "devices is unknown, because %s. in_use_by is null if nothing is known, and may be "
            "incomplete otherwise. Set `become: true` to read open files and mounts of all "
            "processes" % (_text.listed(devices), _unknown_reason())
        )
    files = [file.path for file in findings.boot_files if file.drift is None]
    if files:
        sentences.append(
            "%s cannot be read by this user, so its drift is null. Set `become: true` to compare "
            "its content" % ", ".join(files)
        )
    if findings.rollouts_problem:
        sentences.append(findings.rollouts_problem)
    return sentences


def _unknown_reason() -> str:
    if os.geteuid() != 0:
        return "the module does not run as root"
    return "this root user may not read them (CAP_SYS_PTRACE)"


def inspections(findings: Findings) -> dict[str, Any]:
    """Return the result of device_info."""
    return {
        "devices": [_inspection(inspection) for inspection in findings.devices],
        "policy_list": [to_mapping(entry) for entry in findings.policy_list],
        "lost_entries": [_lost_entry(lost) for lost in findings.lost_entries],
        "policy_digest": findings.policy_digest,
        "rollout": findings.rollout,
        "rollouts": None
        if findings.rollouts is None
        else [_rollout(*rollout) for rollout in findings.rollouts],
        "rollouts_problem": findings.rollouts_problem,
        "reboot_required": findings.waits_for_boot,
        "board": _board(findings.board),
        "skipped_entries": list(findings.skipped),
        "boot_files": [_boot_file(file) for file in findings.boot_files],
        "kernels": [_kernel(kernel) for kernel in findings.kernels],
        "vfio_support": findings.vfio_support and _support(findings.vfio_support),
        "driverctl_notes": list(findings.driverctl_notes),
    }


def without_nulls(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result of device_info without the values of devices that are null."""
    devices = [
        {key: value for key, value in device.items() if value is not None}
        for device in result["devices"]
    ]
    return dict(result, devices=devices)


def _board(board: Board) -> dict[str, Any]:
    return {
        "compatible": list(board.compatible),
        "product_name": board.product_name,
        "board_name": board.board_name,
    }


def _rollout(rollout: Rollout, state: str) -> dict[str, Any]:
    back = rollout.rolled_back
    return {
        "name": rollout.name,
        "state": state,
        "digest": rollout.digest,
        **_stamp(rollout.made),
        "changed_devices": [_changed_device(device) for device in rollout.devices],
        "more_devices": rollout.more_devices,
        "rolled_back": back and _stamp(back),
    }


def _stamp(stamp: Stamp) -> dict[str, str | None]:
    return {"time": stamp.time, "user": stamp.user}


def _changed_device(device: ChangedDevice) -> dict[str, str | None]:
    return {"device": device.device, "before": device.before, "after": device.after}


def _support(support: VfioSupport) -> dict[str, Any]:
    from .vfio_support import to_mapping as to_support  # noqa: PLC0415 - as in _candidate

    return to_support(support)


def _lost_entry(lost: LostEntry) -> dict[str, Any]:
    return {
        "entry": to_mapping(lost.entry),
        "former": list(lost.former),
        "now": [device.stable_name for device in lost.now],
        "message": lost.sentence,
    }


def _boot_file(file: BootFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "state": "present" if file.is_present else "absent",
        "drift": None if file.drift is None else list(file.drift),
    }


def _kernel(kernel: Kernel) -> dict[str, Any]:
    note = None
    if kernel.missing and not kernel.is_running and not kernel.is_new:
        note = (
            "The installed kernel %s has no module %s, which the last-applied configuration "
            "requires. Do not boot it, or install one that has the module"
        ) % (kernel.release, " and no ".join(kernel.missing))
    return {
        "release": kernel.release,
        "running": kernel.is_running,
        "new": kernel.is_new,
        "missing": list(kernel.missing),
        "note": note,
    }


def _inspection(inspection: Inspection) -> dict[str, Any]:
    sources = inspection.sources
    next_boot = inspection.next_boot
    return dict(
        identity(inspection.device),
        **running(inspection.state),
        **_candidate(inspection),
        **_sriov(inspection),
        bound_by=inspection.bound_by and _reason(inspection.bound_by),
        links=list(inspection.links),
        in_use_by=None if inspection.hazards is None else list(map(_hazard, inspection.hazards)),
        claimed_by=sources.entry and to_mapping(sources.entry),
        desired=sources.desired and _binding(sources.desired),
        next_boot=dict(
            _binding(next_boot.binding if next_boot.is_known else Binding(None, None)),
            known=next_boot.is_known,
            reason=next_boot.reason,
            in_drift=inspection.is_next_boot_in_drift,
        ),
        lost_at_boot=[
            dict(_hazard(lost.hazard), accepted=lost.is_accepted) for lost in inspection.lost
        ],
        drift=inspection.drift,
        driverctl=_stored_by_driverctl(sources),
        foreign_rules=[
            {"location": rule.location, "driver_override": rule.driver_override}
            for rule in sources.rules
        ],
        module_configuration=[
            {"location": line.location, "text": line.text} for line in inspection.lines
        ],
        kernel_command_line=inspection.builtin and kernel_parameter(inspection.builtin),
    )


def _candidate(inspection: Inspection) -> dict[str, Any]:
    candidate = inspection.candidate
    if candidate is None:
        return dict.fromkeys(
            (
                *("candidate", "why_not", "entry", "settings", "iommu_group_devices"),
                *("reset_function", "isolated_interrupts"),
            )
        )
    from .candidates import entry  # noqa: PLC0415 - whoever asks for none need not load it

    is_known = bool(candidate.obstacles) or not inspection.may_carry_more
    return {
        "candidate": not candidate.obstacles if is_known else None,
        "why_not": list(map(_obstacle, candidate.obstacles)),
        "entry": entry(candidate),
        "settings": from_settings(candidate.settings),
        "iommu_group_devices": list(candidate.group),
        "reset_function": candidate.has_reset,
        "isolated_interrupts": candidate.is_isolated,
    }


def _obstacle(obstacle: Obstacle) -> dict[str, str]:
    subject = {} if obstacle.subject is None else {"subject": obstacle.subject}
    return {"kind": obstacle.kind, **subject, "message": obstacle.brief}


def _sriov(inspection: Inspection) -> dict[str, int | None]:
    sriov = inspection.sriov
    return {
        "sriov_numvfs": sriov.numvfs if sriov else None,
        "sriov_totalvfs": sriov.totalvfs if sriov else None,
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"kind": reason.kind, "message": reason.sentence}


def _binding(binding: Binding) -> dict[str, str | None]:
    return {"driver": binding.driver, "driver_override": binding.driver_override}


def _stored_by_driverctl(sources: OverrideSources) -> dict[str, Any] | None:
    stored = sources.foreign
    if stored is None or stored.entry is None:
        return None
    return {"path": stored.path, "entry": to_mapping(stored.entry)}


def _hazard(hazard: Hazard) -> dict[str, str]:
    return {"kind": hazard.kind, "subject": hazard.subject, "message": hazard.sentence}
