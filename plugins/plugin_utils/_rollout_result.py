# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of a rollout on each host, and the fleet as a table. Pure."""

from __future__ import annotations

from collections import Counter
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
from ansible_collections.armfleet.vfio.plugins.plugin_utils._result_files import Results
from ansible_collections.armfleet.vfio.plugins.plugin_utils._text_table import wrapped_lines

NOT_STARTED = "not started"
CHANGED = "changed"
WOULD_CHANGE = "would change"
UNCHANGED = "unchanged"
FAILED = "failed"

# What stops a rollout comes first.
OUTCOMES = (FAILED, UNREACHABLE, CHANGED, WOULD_CHANGE, UNCHANGED, NOT_STARTED)

_FAILURES = (FAILED, UNREACHABLE)

_NO_ANSWER = "It was changed, and does not answer anymore: "
_NO_RESULT = "The run ended on this host without a result."
_NOT_READ_BACK = "Its list was applied, and the run ended before its devices were read back."
_DECLINED = "It was stopped by the answer to the question after the canaries."

# More hosts of one wave than these are one row if nothing else differs.
_MOST_ALIKE = 5


class RolloutState(TypedDict):
    """One host of a rollout; ``wave`` counts from 1, and is None for a host that was not begun.

    ``rollout`` is the name of the rollout that can be rolled back on it, if that is known.
    """

    host: str
    wave: int | None
    outcome: str
    message: str
    rollout: str | None


class Summary(TypedDict):
    """What is to be printed of a rollout, the hosts that failed, and whether it stops here.

    ``problem`` is why it fails although no host has failed; None if it does not.
    """

    states: list[RolloutState]
    failed: list[str]
    problem: str | None
    stops: bool
    lines: list[str]


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
    (none in check mode, nor for a host that had nothing to do, whose ``applied`` has it), and
    ``failure`` the ``task`` that failed and its ``msg``. ``unchanged`` replaces the sentence of a
    host that was not changed.
    """
    applied = applied or {}
    if not checked or checked.get("skipped"):
        checked = applied.get("inspection")
    outcome, sentence = _outcome(host, applied, checked, failure, unchanged)
    sentence += _also_rolled_back(applied)
    rollout = _rollout_on(applied)
    if unchanged and outcome == UNCHANGED:
        sentence += " Its last rollout is %s." % rollout if rollout else ""
    return RolloutState(host=host, wave=wave, outcome=outcome, message=sentence, rollout=rollout)


def _rollout_on(applied: Mapping[str, Any]) -> str | None:
    """Return the name of the rollout that can be rolled back on a host after this result."""
    rollout = applied.get("rollout")
    return one_line(str(rollout.get("name"))) if isinstance(rollout, Mapping) else None


def _also_rolled_back(applied: Mapping[str, Any]) -> str:
    """Return a sentence on the later rollouts that were rolled back with the one that was named."""
    later = [one_line(str(name)) for name in (applied.get("rolled_back") or ())[:-1]]
    if not later or applied.get("failed"):
        return ""
    return " Rolled back with it: %s." % ", ".join(later)


def states(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[RolloutState]:
    """Return the row of each host, from what the playbook recorded.

    A host whose wave has begun has failed as long as it has no result.
    """
    return [_recorded(host, hostvars[host]) for host in hosts]


def _recorded(host: str, variables: Mapping[str, Any]) -> RolloutState:
    row = variables.get("rollout_row")
    if row:
        # A mapping of ansible-core's own cannot be copied in every way.
        return RolloutState(
            host=row["host"],
            wave=row["wave"],
            outcome=row["outcome"],
            message=row["message"],
            rollout=row["rollout"],
        )
    wave = _wave_of(variables)
    if not wave:
        outcome, sentence = NOT_STARTED, ""
    elif _is_unfinished(variables):
        outcome, sentence = FAILED, _NOT_READ_BACK if _is_applied(variables) else _NO_RESULT
    else:
        outcome, sentence = _outcome(host, variables["passthrough_applied"], None, None, None)
    return RolloutState(host=host, wave=wave, outcome=outcome, message=sentence, rollout=None)


def _wave_of(variables: Mapping[str, Any]) -> int | None:
    return int(variables.get("rollout_wave") or 0) or None


def _is_unfinished(variables: Mapping[str, Any]) -> bool:
    """Return whether the tasks of a host have begun, and it is not known how they ended."""
    applied = variables.get("passthrough_applied") or {}
    has_ended = variables.get("rollout_row") or applied.get("failed") or applied.get("unreachable")
    return _wave_of(variables) is not None and not has_ended


def _is_applied(variables: Mapping[str, Any]) -> bool:
    applied = variables.get("passthrough_applied") or {}
    texts = variables.get("rollout_texts") or {}
    return "devices" in applied and not texts.get("is_check")


def summary(
    rows: Sequence[RolloutState], texts: Mapping[str, Any], *, is_over: bool, is_declined: bool
) -> Summary:
    """Return the summary of a rollout after a wave, or at its end if it ``is_over``.

    The operator may have ``declined`` to go on. ``texts`` has the ``title``, the number of
    ``waves``, how many hosts may fail (``limit``), and what the summary ends with: ``advice``, or
    ``way_back`` if all hosts are in sync. It may have ``nothing``: what is wrong if no host was
    changed.
    """
    failed = _failed(rows)
    nothing = texts.get("nothing") if is_over else None
    if any(row["outcome"] in (CHANGED, WOULD_CHANGE) for row in rows):
        nothing = None
    problem = _DECLINED if is_declined else None if failed else nothing
    stops = is_over or is_declined or len(failed) > int(texts["limit"])
    lines = [_wave_done(rows, texts)]
    if stops:
        lines = [*table(rows), "", _end(rows, texts, is_over=is_over, is_good=not failed)]
        lines += ["Hosts that failed: %s" % ", ".join(failed)] if failed else []
        lines += [_DECLINED] if is_declined else []
        lines += [nothing, *_rollouts_of(rows)] if nothing else []
        # A list of ansible-core's own would make one of its kind of a sum.
        lines.extend(texts["advice"] if failed or is_declined else texts["way_back"])
        lines += _retry_lines(failed, texts)
    return Summary(states=list(rows), failed=failed, problem=problem, stops=stops, lines=lines)


def _end(
    rows: Sequence[RolloutState], texts: Mapping[str, Any], *, is_over: bool, is_good: bool
) -> str:
    title, totals = texts["title"], _totals(rows)
    if not is_over:
        wave = max(row["wave"] or 0 for row in rows)
        return "%s stopped in wave %d of %s: %s. No later wave was started." % (
            title,
            wave,
            texts["waves"],
            totals,
        )
    if is_good:
        return "%s ended: %s." % (title, totals)
    return "%s ended, but not all hosts are in sync: %s." % (title, totals)


def _wave_done(rows: Sequence[RolloutState], texts: Mapping[str, Any]) -> str:
    wave = max(row["wave"] or 0 for row in rows)
    return "Wave %d of %s is done: %s." % (wave, texts["waves"], _totals(rows))


def interruption(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], texts: Mapping[str, Any]
) -> list[str]:
    """Return the lines that report a rollout which ended before its tasks could report it."""
    rows = states(hosts, hostvars)
    unfinished = {
        host: _is_applied(hostvars[host]) for host in hosts if _is_unfinished(hostvars[host])
    }
    wave = max([row["wave"] or 0 for row in rows], default=0)
    where = "in wave %d of %s" % (wave, texts["waves"]) if wave else "before its first wave"
    done = [row for row in rows if row["host"] not in unfinished]
    lines = ["%s was interrupted %s: %s." % (texts["title"], where, _totals(done))]
    named = {
        "Hosts that failed": _failed(done),
        "Hosts with their list, whose devices were not read back": [
            host for host, is_applied in unfinished.items() if is_applied
        ],
        "Hosts that may have been changed": [
            host for host, is_applied in unfinished.items() if not is_applied
        ],
    }
    lines += ["%s: %s" % (text, ", ".join(names)) for text, names in named.items() if names]
    return [*lines, *texts["advice"], *_retry_lines(_failed(rows), texts)]


def results(rows: Sequence[RolloutState], texts: Mapping[str, Any]) -> Results:
    """Return what files for programs are made of."""
    skipped = [row["host"] for row in rows if row["outcome"] == NOT_STARTED]
    return Results(
        texts["playbook"], "outcome", rows, _failed(rows), skipped, is_check=texts["is_check"]
    )


def _failed(rows: Sequence[RolloutState]) -> list[str]:
    return [row["host"] for row in rows if row["outcome"] in _FAILURES]


def _retry_lines(failed: Sequence[str], texts: Mapping[str, Any]) -> list[str]:
    path = texts.get("retry_file")
    if not failed or not path:
        return []
    return ["Only the hosts that failed: add --limit @%s to the command." % path]


def _totals(rows: Sequence[RolloutState]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    totals = ["%d %s" % (counts[outcome], outcome) for outcome in OUTCOMES if counts[outcome]]
    return ", ".join(totals) or "no host has ended"


def table(rows: Sequence[RolloutState]) -> list[str]:
    """Return the lines of a table, hosts that stop a rollout first, like hosts in one row."""
    alike: dict[tuple[str, int | None, str], list[str]] = {}
    for row in sorted(rows, key=lambda row: OUTCOMES.index(row["outcome"])):
        alike.setdefault((row["outcome"], row["wave"], row["message"]), []).append(row["host"])
    cells = [("HOST", "WAVE", "OUTCOME", "DETAILS")]
    for (outcome, wave, message), hosts in alike.items():
        shown = hosts
        if len(hosts) > _MOST_ALIKE:
            shown = ["%s and %d more" % (hosts[0], len(hosts) - 1)]
        cells += [(host, str(wave or "-"), outcome, message) for host in shown]
    return wrapped_lines(cells)


def _rollouts_of(rows: Sequence[RolloutState]) -> list[str]:
    """Return a line for each rollout that can be rolled back, with its hosts."""
    by_name: dict[str, list[str]] = {}
    for row in rows:
        if row["outcome"] == UNCHANGED:
            by_name.setdefault(row["rollout"] or "", []).append(row["host"])
    return [
        "%s can be rolled back on: %s"
        % ("Rollout %s" % name if name else "No rollout", _listed(by_name[name]))
        for name in sorted(by_name, key=lambda name: (not name, name))
    ]


def _listed(hosts: Sequence[str]) -> str:
    more = len(hosts) - _MOST_ALIKE
    return ", ".join(hosts[:_MOST_ALIKE]) + (" and %d more" % more if more > 0 else "")


def _other_list(applied: Mapping[str, Any], checked: Mapping[str, Any]) -> str | None:
    """Return a sentence if the host has another list by now than the one that was sent to it."""
    sent, present = applied.get("policy_digest"), checked.get("policy_digest")
    if None in (sent, present) or sent == present:
        return None
    other = checked.get("rollout")
    if isinstance(other, str) and one_line(other) != _rollout_on(applied):
        return "Rollout %s has replaced the list that was applied here." % one_line(other)
    return "Another run has replaced the list that was applied here."


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
        return _in_check_mode(applied)
    other = _other_list(applied, checked)
    return (FAILED, other) if other else _verified(host_state(host, checked), done)


def _in_check_mode(applied: Mapping[str, Any]) -> tuple[str, str]:
    if not applied.get("changed"):
        return UNCHANGED, "Its list changes nothing."
    devices = applied.get("devices")
    if not isinstance(devices, list):
        # A reboot has none.
        return WOULD_CHANGE, "Nothing was changed."
    changed = [
        device
        for device in devices
        if isinstance(device, Mapping) and device.get("changed") is True
    ]
    if not changed:
        return WOULD_CHANGE, "No device would change. Nothing was changed."
    number = "One device" if len(changed) == 1 else "%d devices" % len(changed)
    return WOULD_CHANGE, "%s would change. Nothing was changed." % number


def _verified(state: HostState, done: str) -> tuple[str, str]:
    """Return outcome and sentence by the devices of the list; other devices do not count."""
    listed = [device for device in state["devices"] if device["desired"] is not None]
    drifting = [device for device in listed if device["drift"]]
    if state["state"] == "failed":
        return FAILED, state["message"]
    if state["boot_files"]:
        return FAILED, one_line(state["boot_files"][0])
    # A reboot does not bring back what has another path or compatible by now.
    if state["lost_entries"]:
        return FAILED, one_line(state["lost_entries"][0])
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
