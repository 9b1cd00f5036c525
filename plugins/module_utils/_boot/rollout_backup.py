# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of a rollout records of its host, and what a rollback restores. Pure."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._errors import PolicyError
from .._model.policy import ROLLOUT_NAME, Options
from .._model.request import Request
from .._system.files import FileChange
from .last_applied import RULES, UNFINISHED, AppliedList, LastApplied, digest
from .rollout_history import (
    HistoryUpdate,
    Rollout,
    Stamp,
    check_lists,
    clean_user,
    from_list,
    in_force,
    is_applied,
    parse,
    to_list,
)


class RolloutFiles(NamedTuple):
    """The content of the history and of ``UNFINISHED``; None if the file is absent."""

    history: str | None
    unfinished: str | None


class RolloutStatus(NamedTuple):
    """The rollout that can be rolled back on a host, and whether it has ended."""

    name: str
    has_ended: bool


class RolloutPlan(NamedTuple):
    """The request to apply, None if the list stays as it is, and the changes of our files.

    ``history`` is None if it stays as well. ``rolled_back`` are the rollouts that the request
    undoes, newest first.
    """

    request: Request | None
    records: Sequence[FileChange] = ()
    status: RolloutStatus | None = None
    history: HistoryUpdate | None = None
    rolled_back: Sequence[str] = ()


def _check_name(name: str) -> str:
    """Return the name of a rollout; raise PolicyError if it is invalid."""
    if not ROLLOUT_NAME.fullmatch(name):
        raise PolicyError(
            "`rollout` %r is not a valid name. Use up to 64 letters, digits and . _ : + -, "
            "beginning with a letter or digit" % name
        )
    return name


def revertible(rollouts: Sequence[Rollout], now: AppliedList) -> str | None:
    """Return the rollout that can be rolled back; None if there is none.

    ``now`` is the list that is applied; a rollout that left another one cannot. PolicyError if its
    list is damaged.
    """
    newest = _newest(rollouts)
    return newest.name if newest and is_applied(newest, now) else None


def part(
    request: Request, last_applied: LastApplied, files: RolloutFiles, time: str
) -> RolloutPlan:
    """Return the request as a part of its rollout; ``time`` is that of the host's clock.

    PolicyError if another rollout of this host has not ended or, for a request that restores, has
    changed the list since.
    """
    rollout = _check_name(request.rollout or "")
    now = AppliedList(last_applied.entries, last_applied.options)
    if request.ends:
        return _ending(rollout, now, files)
    stamp = Stamp(time, clean_user(request.rollout_by))
    if request.restores:
        return _restoring(request, rollout, now, files, stamp)
    _check_unfinished(rollout, now, files)
    wanted = AppliedList(list(request.entries), request.options if request.entries else Options())
    if now == wanted:
        return RolloutPlan(request, status=_status(now, files))
    new = Rollout(rollout, from_list(now), from_list(wanted), digest(*wanted), stamp)
    return RolloutPlan(
        request,
        [FileChange(UNFINISHED, files.unfinished, rollout + "\n")],
        RolloutStatus(rollout, has_ended=False),
        _add(files.history, new),
    )


def _add(content: str | None, new: Rollout) -> HistoryUpdate:
    """Return the history with one more rollout, or with the last one that ``new`` continues."""
    rollouts = parse(content)
    # What cannot be restored any more is reported before it is needed.
    check_lists(rollouts)
    last = _newest(rollouts)
    if last and last.name == new.name:
        rollouts = [rollout for rollout in rollouts if rollout is not last]
        new = last._replace(after=new.after, digest=new.digest, made=new.made)
    return HistoryUpdate(content, [new, *rollouts], adds=True)


def _ending(rollout: str, now: AppliedList, files: RolloutFiles) -> RolloutPlan:
    is_its_own = _first_line(files.unfinished) == rollout
    after = None if is_its_own else files.unfinished
    changes = [FileChange(UNFINISHED, files.unfinished, after)]
    return RolloutPlan(None, changes, _status(now, files._replace(unfinished=after)))


def _restoring(
    request: Request, rollout: str, now: AppliedList, files: RolloutFiles, stamp: Stamp
) -> RolloutPlan:
    rollouts = parse(files.history)
    position = next(
        (number for number, other in enumerate(rollouts) if other.name == rollout), None
    )
    # A name means the last rollout that had it, so that a rollback can be repeated.
    if position is None or rollouts[position].rolled_back:
        return RolloutPlan(None, status=_status(now, files))
    undone = in_force(rollouts[: position + 1])
    before = _check_rollback(undone, now, is_accepted=request.rollback_overtaken)
    names = [other.name for other in undone]
    after = None if _first_line(files.unfinished) in names else files.unfinished
    marked = [
        other._replace(rolled_back=stamp) if other in undone else other
        for other in rollouts[: position + 1]
    ]
    rollouts = [*marked, *rollouts[position + 1 :]]
    name = revertible(rollouts, before)
    return RolloutPlan(
        request._replace(
            entries=before.entries,
            settings=before.options.settings,
            access=before.options.access,
            initramfs=before.options.initramfs,
        ),
        [FileChange(UNFINISHED, files.unfinished, after)],
        RolloutStatus(name, _first_line(after) != name) if name else None,
        HistoryUpdate(files.history, rollouts),
        names,
    )


def _check_rollback(
    undone: Sequence[Rollout], now: AppliedList, *, is_accepted: bool
) -> AppliedList:
    """Return the list before the oldest of these rollouts, newest first.

    PolicyError if the list ``now`` is not that of the newest, or if there are several of them and
    that is not accepted.
    """
    newest, oldest = undone[0], undone[-1]
    check_lists(undone)
    if oldest.before is None:
        raise PolicyError(
            "Rollout %s cannot be rolled back on this host, because the version of this "
            "collection that applied rollout %s stored only the list before that one. Roll back "
            "%s instead, or apply the list that this host should have"
            % (oldest.name, newest.name, newest.name)
        )
    if len(undone) > 1 and not is_accepted:
        raise PolicyError(
            "Rollout %s cannot be rolled back alone on this host, because the list was changed "
            "after it by %s. Roll back %s first, or all of them with `rollback_overtaken: true`"
            % (oldest.name, _later(undone), newest.name)
        )
    if not is_applied(newest, now):
        raise PolicyError(
            "The list of this host was changed after rollout %s by another run (%s has the "
            "current list), so it cannot be rolled back. Apply the list that this host should "
            "have" % (newest.name, RULES)
        )
    return to_list(oldest.before)


def _later(undone: Sequence[Rollout]) -> str:
    """Return what changed the list after the oldest of these rollouts, for a sentence."""
    names = [rollout.name for rollout in undone[:-1]]
    sentence = "rollout%s %s" % ("s" if len(names) > 1 else "", ", ".join(names))
    is_gapless = all(later.before == earlier.after for later, earlier in zip(undone, undone[1:]))
    return sentence if is_gapless else sentence + " and a run without a rollout"


def _newest(rollouts: Sequence[Rollout]) -> Rollout | None:
    return next(iter(in_force(rollouts)), None)


def _status(now: AppliedList, files: RolloutFiles) -> RolloutStatus | None:
    try:
        name = revertible(parse(files.history), now)
    except PolicyError:
        # It stops a run that needs it.
        return None
    return RolloutStatus(name, _first_line(files.unfinished) != name) if name else None


def _first_line(content: str | None) -> str:
    return (content or "").partition("\n")[0]


def _check_unfinished(rollout: str, now: AppliedList, files: RolloutFiles) -> None:
    """Raise PolicyError if the list is that of another rollout, and that rollout has not ended."""
    other = _first_line(files.unfinished)
    if other in ("", rollout):
        return
    newest = _newest(parse(files.history))
    if newest is None or newest.name != other or not is_applied(newest, now):
        return
    raise PolicyError(
        "Rollout %s has changed the list of this host and has not ended. Continue it with "
        "`rollout: %s`, or roll it back; then run this again" % (other, other)
    )
