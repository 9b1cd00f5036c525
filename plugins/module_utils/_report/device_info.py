# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of device_info. Pure but for whose right it is that more is not known."""

from __future__ import annotations

import os
from typing import Any

from .. import _text
from .._boot.in_sync import BootFile
from .._boot.installed_kernels import Kernel
from .._boot.last_applied import to_mapping
from .._in_use.kinds import Hazard
from . import results
from .inspection import Findings, Inspection


def unknown(found: Findings) -> list[str]:
    """What could not be known, and what root would see; a sentence each."""
    sentences = []
    devices = [one.device.name for one in found.devices if one.may_carry_more]
    if devices:
        sentences.append(
            "%s: whether a process of another user, or in another mount namespace, uses what these "
            "devices carry is not known, because %s. carries is null where nothing is known, and "
            "may not be all where something is. Set become: true to see open files and mounts of "
            "all processes" % (_text.listed(devices), _why_unknown())
        )
    files = [one.path for one in found.boot_files if one.drift is None]
    if files:
        sentences.append(
            "%s cannot be read by this user, so that drift of it is null. Set become: true to "
            "compare its content" % ", ".join(files)
        )
    return sentences


def _why_unknown() -> str:
    if os.geteuid() != 0:
        return "the module does not run as root"
    return "this root may not read them (CAP_SYS_PTRACE)"


def inspections(found: Findings) -> dict[str, Any]:
    """The result of device_info."""
    return {
        "devices": [_inspection(one) for one in found.devices],
        "policy_list": [to_mapping(entry) for entry in found.policy_list],
        "reboot_required": found.waits_for_boot,
        "board": dict(found.board._asdict(), compatible=list(found.board.compatible)),
        "skipped_entries": list(found.skipped),
        "boot_files": [_boot_file(one) for one in found.boot_files],
        "kernels": [_kernel(one) for one in found.kernels],
    }


def _boot_file(found: BootFile) -> dict[str, Any]:
    return {
        "path": found.path,
        "state": "present" if found.is_present else "absent",
        "drift": None if found.drift is None else list(found.drift),
    }


def _kernel(found: Kernel) -> dict[str, Any]:
    note = None
    if found.missing and not found.is_running and not found.is_new:
        note = (
            "The installed kernel %s has no module %s, which the list last applied needs. Do not "
            "boot it, or install one that has it"
        ) % (found.release, " and no ".join(found.missing))
    return {
        "release": found.release,
        "running": found.is_running,
        "new": found.is_new,
        "missing": list(found.missing),
        "note": note,
    }


def _inspection(found: Inspection) -> dict[str, Any]:
    say = found.say
    return dict(
        results.identity(found.device),
        **results.running(found.state),
        bound_by=found.bound_by and found.bound_by._asdict(),
        links=list(found.links),
        carries=None if found.hazards is None else list(map(_hazard, found.hazards)),
        claimed_by=say.entry and to_mapping(say.entry),
        desired=say.desired and say.desired._asdict(),
        next_boot=dict(
            found.next_boot.binding._asdict(),
            known=found.next_boot.is_known,
            reason=found.next_boot.reason,
        ),
        lost_at_boot=[dict(_hazard(lost.hazard), accepted=lost.is_accepted) for lost in found.lost],
        drift=found.drift,
        driverctl=say.foreign
        and {"path": say.foreign.path, "entry": to_mapping(say.foreign.entry)},
        rules_of_others=[
            {"place": rule.location, "driver_override": rule.driver_override} for rule in say.rules
        ],
        boot_configuration=[{"place": line.location, "says": line.text} for line in found.lines],
        kernel_command_line=found.early and results.early(found.early),
    )


def _hazard(hazard: Hazard) -> dict[str, str]:
    return {"kind": hazard.kind, "subject": hazard.subject, "sentence": hazard.sentence}
