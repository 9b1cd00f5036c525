# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lists of a fleet would change, as lines for a terminal and as a file. Pure."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import ROLLOUT_NAME
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    UNREACHABLE,
    explained,
    messages,
    one_line,
)

TO_CHANGE = "to change"
UNCHANGED = "unchanged"
REFUSED = "refused"
OUTCOMES = (TO_CHANGE, UNCHANGED, REFUSED, UNREACHABLE)

FORMAT = 1
_KIND = "armfleet.vfio.plan"
# As host_policy returns it.
_DIGEST = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}){0,3}")

# A filter may be given none, or a date alone.
_TIME = re.compile(r"[0-9T:.+Z-]{0,40}")

_WIDTH = 120
_MOST_NAMES = 5
# Of one group of hosts.
_MOST_DEVICES = 200
_MOST_DIFFS = 2000

_INTERRUPTED = (
    "A run was interrupted on it and is rolled back by the next one. Apply its list, and make a "
    "new plan."
)
_NO_RESULT = "The run ended on this host without a result."


class HostPlan(TypedDict):
    """One host: ``outcome``, the ``reason`` if it is refused, else its plan's digest and change."""

    outcome: str
    reason: str | None
    plan: str | None
    change: dict[str, Any] | None


class SavedPlan(TypedDict):
    """A plan file; with ``problems``, sentences, nothing else of it may be used."""

    problems: list[str]
    plans: dict[str, str]
    rollout: str | None
    made_at: str | None


def host_plan(result: Mapping[str, Any] | None, failure: Mapping[str, Any] | None) -> HostPlan:
    """Return the plan of a host from its result of host_policy in check mode.

    ``failure`` is the ``task`` that failed before it and its ``msg``.
    """
    if result and result.get("unreachable"):
        return _refused(explained("It cannot be reached: ", messages(result)), UNREACHABLE)
    if result and result.get("failed"):
        return _refused(_reasons(result))
    if failure:
        return _refused(explained("%s: " % failure.get("task", "A task"), messages(failure)))
    if not result or result.get("skipped"):
        return _refused(_NO_RESULT)
    try:
        answer = _answers.Record(_answers.SHAPES["host_policy"]).read(result, "")
    except _answers.MalformedAnswerError as error:
        return _refused(explained("Its result is malformed: ", [str(error)]))
    if answer["interrupted"]:
        return _refused(_INTERRUPTED)
    plan = answer["plan_digest"]
    if plan is None or not _DIGEST.fullmatch(plan):
        return _refused("Its result is malformed: plan_digest is no digest.")
    outcome = TO_CHANGE if "." in plan else UNCHANGED
    return HostPlan(outcome=outcome, reason=None, plan=plan, change=_change(answer))


def _refused(reason: str, outcome: str = REFUSED) -> HostPlan:
    return HostPlan(outcome=outcome, reason=reason, plan=None, change=None)


def _reasons(result: Mapping[str, Any]) -> str:
    lines = messages(result)
    others = len(lines) - 1
    more = " (and %d more)" % others if others > 0 else ""
    return explained("", lines) + more


def _change(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "devices": [
            {
                "device": one_line(_name(device)),
                "before": device["before"],
                "after": device["after"],
                "steps": device["steps"],
            }
            for device in answer["devices"]
            if device["changed"]
        ],
        "host_steps": answer["host_steps"],
        "boot_files": [
            {"path": file["path"], "state": file["state"]}
            for file in answer["boot_files"]
            if file["changed"]
        ],
        "diff": [
            part
            for part in answer["diff"]
            if part.get("after_header") in {file["path"] for file in answer["boot_files"]}
        ],
    }


def _name(device: Mapping[str, Any]) -> str:
    name = device["dt_path"] or device["acpi_path"]
    return str(name or "%s device %s" % (device["bus"], device["name"]))


def lines(plans: Mapping[str, HostPlan], *, shows_boot_files: bool) -> list[str]:
    """Return the lines of a plan, each of at most 120 columns, like hosts together."""
    output: list[str] = []
    for hosts, plan in _alike(plans, TO_CHANGE, shows_boot_files=shows_boot_files):
        output += [*_of_change(hosts, plan["change"] or {}, shows_boot_files), ""]
    for outcome in (REFUSED, UNREACHABLE):
        for hosts, plan in _alike(plans, outcome):
            title = "%s %s: %s" % (_hosts(len(hosts)), outcome, _names(hosts))
            output += [*_wrapped(title, 0), *_wrapped(plan["reason"] or "", 1), ""]
    unchanged = [host for host, plan in plans.items() if plan["outcome"] == UNCHANGED]
    if unchanged:
        title = "%s unchanged: %s" % (_hosts(len(unchanged)), _names(unchanged))
        output += [*_wrapped(title, 0), ""]
    return [*output, totals(plans)]


def totals(plans: Mapping[str, HostPlan]) -> str:
    """Return the last line of a plan."""
    counts = Counter(plan["outcome"] for plan in plans.values())
    parts = [
        "%s %s" % (_hosts(counts[outcome]) if outcome == TO_CHANGE else counts[outcome], outcome)
        for outcome in OUTCOMES
        if counts[outcome] or outcome == TO_CHANGE
    ]
    return "Plan: %s. Nothing was changed." % ", ".join(parts)


def _alike(
    plans: Mapping[str, HostPlan], outcome: str, *, shows_boot_files: bool = False
) -> list[tuple[list[str], HostPlan]]:
    """Return groups of hosts with an equal change or reason, the largest first."""
    groups: dict[str, list[str]] = {}
    for host, plan in plans.items():
        if plan["outcome"] == outcome:
            change = {**(plan["change"] or {})}
            if not shows_boot_files:
                change.pop("diff", None)
            key = json.dumps([plan["reason"], change], sort_keys=True)
            groups.setdefault(key, []).append(host)
    return [
        (hosts, plans[hosts[0]]) for hosts in sorted(groups.values(), key=lambda names: -len(names))
    ]


def _of_change(hosts: Sequence[str], change: Mapping[str, Any], shows_diff: bool) -> list[str]:
    devices = change["devices"]
    output = _wrapped("%s: %s: %s" % (_hosts(len(hosts)), _what(change), _names(hosts)), 0)
    for device in devices[:_MOST_DEVICES]:
        before, after = _state(device["before"]), _state(device["after"])
        text = "%s -> %s" % (before, after) if before != after else "; ".join(device["steps"])
        output += _wrapped("%s: %s" % (device["device"], text), 1)
    if len(devices) > _MOST_DEVICES:
        output.append("  and %d more devices" % (len(devices) - _MOST_DEVICES))
    for step in change["host_steps"][:_MOST_DEVICES]:
        output += _wrapped(one_line(step), 1)
    if shows_diff:
        return output + _diffs(change["diff"])
    files = [
        ("remove " if file["state"] == "absent" else "write ") + file["path"]
        for file in change["boot_files"]
    ]
    return output + (_wrapped("boot files: %s" % ", ".join(files), 1) if files else [])


def _what(change: Mapping[str, Any]) -> str:
    """Return what becomes of the devices, with their numbers."""
    counts = Counter(_destination(device) for device in change["devices"])
    if not counts:
        return "boot files only" if change["boot_files"] else "modules and links only"
    return ", ".join(
        "%d %s %s" % (number, "device" if number == 1 else "devices", destination)
        if not position
        else "%d %s" % (number, destination)
        for position, (destination, number) in enumerate(counts.most_common())
    )


def _destination(device: Mapping[str, Any]) -> str:
    before, after = device["before"], device["after"]
    override = after["driver_override"]
    if before == after:
        return "with other links or modes"
    if override is None:
        return "released"
    return "without a driver" if override == "none" else "to %s" % one_line(override)


def _state(binding: Mapping[str, Any]) -> str:
    driver, override = binding["driver"], binding["driver_override"]
    text = one_line(driver) if driver else "no driver"
    return text if override in (None, driver) else "%s (override %s)" % (text, one_line(override))


def _diffs(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    output = [
        "  " + line.rstrip("\n")
        for part in parts
        for line in difflib.unified_diff(
            part["before"].splitlines(),
            part["after"].splitlines(),
            part.get("before_header", ""),
            part.get("after_header", ""),
            n=1,
            lineterm="",
        )
    ]
    return output[:_MOST_DIFFS]


def _wrapped(text: str, level: int) -> list[str]:
    indent = "  " * level
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )


def _hosts(number: int) -> str:
    return "1 host" if number == 1 else "%d hosts" % number


def _names(hosts: Sequence[str]) -> str:
    more = len(hosts) - _MOST_NAMES
    shown = [_answers.printable(host) for host in hosts[:_MOST_NAMES]]
    return ", ".join(shown) + (" and %d more" % more if more > 0 else "")


def encode(plans: Mapping[str, HostPlan], rollout: str | None, made_at: str) -> str:
    """Return the content of a plan file."""
    content = {"hosts": dict(plans), "rollout": rollout, "made_at": made_at}
    return (
        json.dumps(
            {"kind": _KIND, "format": FORMAT, "checksum": _checksum(content), **content}, indent=1
        )
        + "\n"
    )


def decode(text: str, path: str, hosts: Sequence[str]) -> SavedPlan:
    """Return what a plan file has of these hosts."""
    content = _parsed(text)
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        return _unusable("%s is no plan of armfleet.vfio.plan." % path)
    if content.get("format") != FORMAT:
        return _unusable("%s has another format than this version of the collection." % path)
    kept = {key: content.get(key) for key in ("hosts", "rollout", "made_at")}
    if content.get("checksum") != _checksum(kept):
        return _unusable("%s was edited or is damaged." % path)
    plans = _planned(kept["hosts"])
    if plans is None or not _is_rollout(kept["rollout"]) or not _is_time(kept["made_at"]):
        return _unusable("%s is damaged." % path)
    if not set(plans) & set(hosts):
        return _unusable("%s has a plan for none of these hosts." % path)
    return SavedPlan(problems=[], plans=plans, rollout=kept["rollout"], made_at=kept["made_at"])


def _parsed(text: str) -> Any:
    """Return the content of a plan file; None if it is none."""
    try:
        content = _answers.DECODER.decode(text)
        # The checksum is made of all that is nested in it.
        json.dumps(content)
    except (ValueError, RecursionError):
        return None
    return content


def _is_rollout(name: Any) -> bool:
    """Return whether it is what `passthrough_rollout` may be."""
    return name is None or (isinstance(name, str) and ROLLOUT_NAME.fullmatch(name) is not None)


def _is_time(text: Any) -> bool:
    return text is None or (isinstance(text, str) and _TIME.fullmatch(text) is not None)


def _planned(hosts: Any) -> dict[str, str] | None:
    """Return the digests of the hosts that have a plan, or None if the file is damaged."""
    if not isinstance(hosts, dict) or not all(isinstance(plan, dict) for plan in hosts.values()):
        return None
    digests = {
        host: plan.get("plan")
        for host, plan in hosts.items()
        if plan.get("outcome") in (TO_CHANGE, UNCHANGED)
    }
    if all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests.values()):
        return digests
    return None


def unreadable(path: str, error: OSError) -> SavedPlan:
    """Return what is known of a plan file that cannot be read."""
    return _unusable("%s cannot be read: %s." % (path, error.strerror))


def _unusable(problem: str) -> SavedPlan:
    advice = " Make a new plan with armfleet.vfio.plan."
    return SavedPlan(
        problems=["`passthrough_plan`: %s%s" % (problem, advice)],
        plans={},
        rollout=None,
        made_at=None,
    )


def _checksum(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
