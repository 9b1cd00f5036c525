# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a run that was interrupted: the next one undoes it first, and reports that."""

from __future__ import annotations

from typing import Sequence

from .._errors import PolicyError
from .._in_use.checker import Usage
from .._system.host import Host
from .journal import InterruptedRun, Journal
from .operations import DeviceBinding, Operation, RecoveryContext
from .record_fields import PATHS
from .rollback import Failure, names_of_devices, roll_back


def announce(journal: Journal) -> list[str]:
    """Return sentences on an interrupted run that the next run undoes; empty if there is none.

    PolicyError if the journal has lines that cannot be read.
    """
    interrupted = journal.read_interrupted()
    if interrupted is None:
        return []
    if interrupted.damaged:
        raise PolicyError(
            journal.report_damage(interrupted.damaged, "is rolled back by the next run")
        )
    return [_announcement(interrupted) + " The next run rolls back its changes first"]


def recover(host: Host, usage: Usage, journal: Journal, allow: Sequence[str]) -> list[str]:
    """Undo what an interrupted run left; return what was undone and what was left, in sentences.

    PolicyError if the journal has lines that cannot be read: the others are undone before.
    """
    interrupted = journal.read_interrupted()
    if interrupted is None:
        return []
    reasons = _find_conflicts(host, usage, allow, interrupted.operations)
    host.files.clear(PATHS)
    undoable = [operation for operation, reason in reasons if reason is None]
    left = ["%s: %s" % (operation.subject, reason) for operation, reason in reasons if reason]
    failures = roll_back(host, undoable)
    sentences = _report(interrupted, left, failures)
    try:
        if failures or interrupted.damaged:
            remaining = [failure.operation.to_record() for failure in failures]
            journal.replace(remaining, interrupted.owner, interrupted.damaged)
        else:
            journal.discard()
    except PolicyError as error:
        raise PolicyError([*sentences, *error.problems]) from None
    if interrupted.damaged:
        damage = journal.report_damage(interrupted.damaged, "was rolled back as far as possible")
        raise PolicyError([*sentences, damage])
    return sentences


def _find_conflicts(
    host: Host, usage: Usage, allow: Sequence[str], operations: Sequence[Operation]
) -> list[tuple[Operation, str | None]]:
    """Return each operation with the reason why it may not be undone, or None."""
    context = RecoveryContext(host, usage, allow, names_of_devices(operations))
    reasons = [(operation, operation.find_undo_conflict(context)) for operation in operations]
    if any(reason for operation, reason in reasons if isinstance(operation, DeviceBinding)):
        # Its driver's module must not be taken from under it.
        return [
            (
                operation,
                "a device that is left unchanged may need it"
                if operation.is_of_modules
                else reason,
            )
            for operation, reason in reasons
        ]
    return reasons


def _report(
    interrupted: InterruptedRun, left: Sequence[str], failures: Sequence[Failure]
) -> list[str]:
    undone_first = "" if interrupted.damaged else " Its changes were rolled back first"
    sentences = [_announcement(interrupted) + undone_first]
    if left:
        sentences.append("Left unchanged: " + "; ".join(left))
    if failures:
        sentences.append(
            "Could not be rolled back: %s. The next run tries again"
            % "; ".join(failure.sentence for failure in failures)
        )
    return sentences


def _announcement(interrupted: InterruptedRun) -> str:
    return "An earlier run on this host was interrupted: %s." % interrupted.owner
