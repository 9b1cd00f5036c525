# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host had before a rollout changed it, kept to be brought back. Pure."""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple

from .._errors import DAMAGED, PolicyError
from .._model.policy import ROLLOUT_NAME, Options
from .._model.policy_list import parse_entries
from .._model.request import Request
from .._system.files import FileChange
from .last_applied import RULES, AppliedList, LastApplied, from_options, to_mapping, to_options

PREVIOUS = "/var/lib/armfleet-vfio/previous.json"


class RolloutPlan(NamedTuple):
    """The request to apply, and the change of the file with the backup."""

    request: Request
    record: FileChange


class RolloutBackup(NamedTuple):
    """The lists that were applied before a rollout and by it."""

    rollout: str
    before: AppliedList
    after: AppliedList


def _check_name(name: str) -> str:
    """Return the name of a rollout; raise PolicyError if it is invalid."""
    if not ROLLOUT_NAME.fullmatch(name):
        raise PolicyError(
            "`rollout` %r is not a valid name. Use up to 64 letters, digits and . _ : + -, "
            "beginning with a letter or digit" % name
        )
    return name


def part(request: Request, last_applied: LastApplied, content: str | None) -> RolloutPlan | None:
    """Return the request as a part of its rollout; None if it restores and there is nothing to.

    ``content`` is that of the file with what was kept.
    """
    rollout = _check_name(request.rollout or "")
    now = AppliedList(last_applied.entries, last_applied.options)
    if not request.restores:
        wanted = AppliedList(
            list(request.entries), request.options if request.entries else Options()
        )
        after = _keep(content, rollout, now, wanted)
        return RolloutPlan(request, FileChange(PREVIOUS, content, after))
    before = _previous(content, rollout, now)
    if before is None:
        return None
    options = before.options._asdict()
    restoring = request._replace(entries=before.entries, **options)
    return RolloutPlan(restoring, FileChange(PREVIOUS, content, None))


def _keep(content: str | None, rollout: str, before: AppliedList, after: AppliedList) -> str | None:
    """Return the file's new content, where ``before`` is in force now and ``after`` is to be."""
    if before == after:
        return content
    kept = _read(content)
    if kept and kept.rollout == rollout:
        before = kept.before
    return (
        json.dumps(
            {"rollout": rollout, "before": _mapping(before), "after": _mapping(after)}, indent=1
        )
        + "\n"
    )


def _previous(content: str | None, rollout: str, now: AppliedList) -> AppliedList | None:
    """Return what was applied before this rollout; None if the rollout did not change this host.

    PolicyError if what is applied ``now`` is not what that rollout left.
    """
    kept = _read(content)
    if kept is None or kept.rollout != rollout:
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
            _check_name(kept["rollout"]), _applied(kept["before"]), _applied(kept["after"])
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
