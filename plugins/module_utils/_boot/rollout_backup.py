# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host had before a rollout changed it, kept to be brought back. Pure."""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Sequence

from .._errors import DAMAGED, PolicyError
from .._model.policy import ROLLOUT_NAME, Options
from .._model.policy_list import parse_entries
from .._model.request import Request
from .._system.files import FileChange
from .last_applied import RULES, AppliedList, LastApplied, from_options, to_mapping, to_options

PREVIOUS = "/var/lib/armfleet-vfio/previous.json"
# The name of the rollout that changed the list and has not ended. The playbook removes the file.
UNFINISHED = "/run/armfleet-vfio-rollout"

_MOST_OVERTAKEN = 10


class RolloutFiles(NamedTuple):
    """The content of ``PREVIOUS`` and of ``UNFINISHED``; None if the file is absent."""

    backup: str | None
    unfinished: str | None


class RolloutStatus(NamedTuple):
    """The rollout that can be rolled back on a host, and whether it has ended."""

    name: str
    has_ended: bool


class RolloutPlan(NamedTuple):
    """The request to apply, None if the list stays as it is, and the changes of our files."""

    request: Request | None
    records: Sequence[FileChange] = ()
    status: RolloutStatus | None = None


class RolloutBackup(NamedTuple):
    """The lists before a rollout and by it; ``overtaken`` are the rollouts before, newest first."""

    rollout: str
    before: AppliedList
    after: AppliedList
    overtaken: Sequence[str] = ()


def _check_name(name: str) -> str:
    """Return the name of a rollout; raise PolicyError if it is invalid."""
    if not ROLLOUT_NAME.fullmatch(name):
        raise PolicyError(
            "`rollout` %r is not a valid name. Use up to 64 letters, digits and . _ : + -, "
            "beginning with a letter or digit" % name
        )
    return name


def revertible(backup: str | None, now: AppliedList) -> str | None:
    """Return the rollout that can be rolled back; None if there is none or it is unknown.

    ``now`` is the list that is applied; a rollout that left another one cannot.
    """
    try:
        kept = _read(backup)
    except PolicyError:
        return None
    return kept.rollout if kept and kept.after == now else None


def part(request: Request, last_applied: LastApplied, files: RolloutFiles) -> RolloutPlan:
    """Return the request as a part of its rollout.

    PolicyError if another rollout of this host has not ended or, for a request that restores, has
    changed the list since.
    """
    rollout = _check_name(request.rollout or "")
    now = AppliedList(last_applied.entries, last_applied.options)
    if request.ends:
        return _ending(rollout, now, files)
    if request.restores:
        return _restoring(request, rollout, now, files)
    _check_unfinished(rollout, now, files)
    wanted = AppliedList(list(request.entries), request.options if request.entries else Options())
    if now == wanted:
        return RolloutPlan(request, status=_status(now, files))
    changes = [
        FileChange(PREVIOUS, files.backup, _keep(files.backup, rollout, now, wanted)),
        FileChange(UNFINISHED, files.unfinished, rollout + "\n"),
    ]
    return RolloutPlan(request, changes, RolloutStatus(rollout, has_ended=False))


def _ending(rollout: str, now: AppliedList, files: RolloutFiles) -> RolloutPlan:
    is_its_own = _first_line(files.unfinished) == rollout
    after = None if is_its_own else files.unfinished
    changes = [FileChange(UNFINISHED, files.unfinished, after)]
    return RolloutPlan(None, changes, _status(now, files._replace(unfinished=after)))


def _restoring(
    request: Request, rollout: str, now: AppliedList, files: RolloutFiles
) -> RolloutPlan:
    before = _previous(files.backup, rollout, now)
    if before is None:
        return RolloutPlan(None, status=_status(now, files))
    restoring = request._replace(entries=before.entries, **before.options._asdict())
    is_its_own = _first_line(files.unfinished) == rollout
    changes = [
        FileChange(PREVIOUS, files.backup, None),
        FileChange(UNFINISHED, files.unfinished, None if is_its_own else files.unfinished),
    ]
    return RolloutPlan(restoring, changes)


def _status(now: AppliedList, files: RolloutFiles) -> RolloutStatus | None:
    name = revertible(files.backup, now)
    return RolloutStatus(name, _first_line(files.unfinished) != name) if name else None


def _first_line(content: str | None) -> str:
    return (content or "").partition("\n")[0]


def _check_unfinished(rollout: str, now: AppliedList, files: RolloutFiles) -> None:
    """Raise PolicyError if the list is that of another rollout, and that rollout has not ended."""
    other = _first_line(files.unfinished)
    if other in ("", rollout):
        return
    kept = _read(files.backup)
    if kept is None or kept.rollout != other or kept.after != now:
        return
    raise PolicyError(
        "Rollout %s has changed the list of this host and has not ended. Continue it with "
        "`rollout: %s`, or roll it back; then run this again" % (other, other)
    )


def _keep(content: str | None, rollout: str, before: AppliedList, after: AppliedList) -> str:
    """Return the file's new content, where ``before`` is in force now and ``after`` is to be."""
    kept = _read(content)
    overtaken: list[str] = []
    if kept:
        overtaken = [kept.rollout, *kept.overtaken]
        if kept.rollout == rollout:
            before = kept.before
    names = [name for name in dict.fromkeys(overtaken) if name != rollout]
    return (
        json.dumps(
            {
                "rollout": rollout,
                "before": _mapping(before),
                "after": _mapping(after),
                "overtaken": names[:_MOST_OVERTAKEN],
            },
            indent=1,
        )
        + "\n"
    )


def _previous(content: str | None, rollout: str, now: AppliedList) -> AppliedList | None:
    """Return what was applied before this rollout; None if the rollout did not change this host.

    PolicyError if what is applied ``now`` is not what that rollout left.
    """
    kept = _read(content)
    if kept is None:
        return None
    if rollout in kept.overtaken:
        raise PolicyError(
            "Rollout %s cannot be rolled back on this host, because rollout %s changed the list "
            "after it. Roll back %s instead, or apply the list that this host should have"
            % (rollout, kept.rollout, kept.rollout)
        )
    if kept.rollout != rollout:
        return None
    if kept.after != now:
        raise PolicyError(
            "The list of this host was changed after rollout %s by another run (%s has the "
            "current list), so it cannot be rolled back. Apply the list that this host should "
            "have" % (rollout, RULES)
        )
    return kept.before


def _read(content: str | None) -> RolloutBackup | None:
    """Return what the file says; PolicyError if it was damaged."""
    if content is None:
        return None
    try:
        kept = json.loads(content)
        return RolloutBackup(
            _check_name(kept["rollout"]),
            _applied(kept["before"]),
            _applied(kept["after"]),
            # Earlier versions of this collection wrote none.
            [_check_name(name) for name in kept.get("overtaken", ())],
        )
    except DAMAGED as error:
        raise PolicyError(
            "%s cannot be parsed (%s), so the list before the last rollout is unknown. Delete "
            "the file, which was edited, and apply the list that this host should have"
            % (PREVIOUS, error)
        ) from None


def _mapping(applied: AppliedList) -> dict[str, Any]:
    devices = [to_mapping(entry) for entry in applied.entries]
    return dict(from_options(applied.options), devices=devices)


def _applied(mapping: Mapping[str, Any]) -> AppliedList:
    options = dict(mapping)
    return AppliedList(parse_entries(options.pop("devices")), to_options(**options))
