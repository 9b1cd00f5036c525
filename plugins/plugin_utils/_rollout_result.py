# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of a rollout on each host, and the fleet as a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    UNREACHABLE,
    explained,
    host_state,
    messages,
    one_line,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState

NOT_STARTED = "not started"
CHANGED = "changed"
UNCHANGED = "unchanged"
FAILED = "failed"

# What stops a rollout comes first.
OUTCOMES = (FAILED, UNREACHABLE, CHANGED, UNCHANGED, NOT_STARTED)

_NO_ANSWER = "It was changed, and does not answer anymore: "


class RolloutState(TypedDict):
    """One host of a rollout; ``wave`` counts from 1, and is None for a host that was not begun."""

    host: str
    wave: int | None
    outcome: str
    message: str


def rollout_state(
    host: str,
    wave: int,
    applied: Mapping[str, Any] | None,
    checked: Mapping[str, Any] | None,
    failure: Mapping[str, Any] | None,
    unchanged: str | None,
) -> RolloutState:
    """Return the row of a host.

    ``applied`` is the result of the task that changed it, ``checked`` that of device_info after it
    (None in check mode), and ``failure`` the ``task`` that failed and its ``msg``. ``unchanged``
    replaces the sentence of a host that was not changed.
    """
    outcome, sentence = _outcome(host, applied or {}, checked, failure, unchanged)
    return RolloutState(host=host, wave=wave, outcome=outcome, message=sentence)


def table(states: Sequence[RolloutState]) -> list[str]:
    """Return the lines of a table, hosts that stop a rollout first."""
    rows = [("HOST", "WAVE", "OUTCOME", "DETAILS")]
    rows += [
        (state["host"], str(state["wave"] or "-"), state["outcome"], state["message"])
        for state in sorted(states, key=lambda state: OUTCOMES.index(state["outcome"]))
    ]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    ]


def not_started(host: str) -> RolloutState:
    """Return the row of a host whose wave has not begun."""
    return RolloutState(host=host, wave=None, outcome=NOT_STARTED, message="")


def _outcome(
    host: str,
    applied: Mapping[str, Any],
    checked: Mapping[str, Any] | None,
    failure: Mapping[str, Any] | None,
    unchanged: str | None,
) -> tuple[str, str]:
    if applied.get("unreachable"):
        return UNREACHABLE, explained("It cannot be reached: ", messages(applied))
    if applied.get("failed"):
        return FAILED, explained("", messages(applied))
    if checked and checked.get("unreachable"):
        return UNREACHABLE, explained(_NO_ANSWER, messages(checked))
    if failure:
        return FAILED, explained("%s: " % failure.get("task", "A task"), messages(failure))
    done = CHANGED if applied.get("changed") else UNCHANGED
    if unchanged and done == UNCHANGED:
        return UNCHANGED, one_line(unchanged)
    if checked is None:
        return done, "Not verified: check mode changes nothing."
    return _verified(host_state(host, checked), done)


def _verified(state: HostState, done: str) -> tuple[str, str]:
    """Return outcome and sentence by the devices of the list; other devices do not count."""
    listed = [device for device in state["devices"] if device["desired"] is not None]
    drifting = [device for device in listed if device["drift"]]
    if state["state"] == "failed":
        return FAILED, state["message"]
    if state["boot_files"]:
        return FAILED, one_line(state["boot_files"][0])
    if state["state"] == "reboot_required":
        return done, state["message"]
    if drifting:
        first = drifting[0]
        return FAILED, "%s is not in sync: %s" % (
            one_line(first["device"]),
            one_line(first["drift"][0]),
        )
    if not listed:
        return done, "No device of it is in a list."
    return done, "All of its list is in sync: %s." % (
        "one device" if len(listed) == 1 else "%d devices" % len(listed)
    )
