# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules that change devices share: requests, and the answer of a whole run."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from .. import _text
from .._apply.last_answer import Answer, LastAnswer
from .._apply.reconcile import Outcome, reconcile
from .._apply.run_lock import RunLock
from .._errors import PolicyError, Problems
from .._in_use.checker import Usage
from .._model.policy import DEFAULT, Policy, VfioSettings
from .._model.policy_list import Entry, good_selectors
from .._model.request import Request
from .._system.host import Host, Readers, open_modules
from .._system.recorded_reads import Record


def find_answer(
    readers: Readers,
    lock: RunLock,
    request: Request,
    to_result: Callable[[Outcome], dict[str, Any]],
    last: LastAnswer,
    *,
    check_mode: bool,
) -> Answer:
    """Return the answer of a whole run; PolicyError if it cannot be done.

    It is kept in ``last`` if there was nothing to do.
    """
    record = Record()
    kmod, log = open_modules(lock.timeout)
    host = record.host(Host(readers.sysfs, kmod, readers.files, log))
    usage = record.unrecorded(Usage(readers.sysfs))
    outcome = reconcile(host, usage, lock, request, check_mode=check_mode)
    warnings = [*outcome.interrupted, *outcome.warnings, *outcome.not_checked]
    if outcome.is_changed:
        warnings += outcome.unsafe_kept
    answer = Answer(
        _text.printable_result(to_result(outcome)), list(map(_text.printable_result, warnings))
    )
    if not outcome.is_changed and not check_mode:
        last.keep(record, answer)
    return answer


def request_of_one_policy(
    params: Mapping[str, Any], policy: Policy, *, is_release: bool = False
) -> Request:
    """Return the request to bring all devices of the option ``devices`` to one policy.

    One that ``is_release`` releases those that are as the policy leaves them.
    """
    if not params["devices"]:
        raise PolicyError("`devices` is empty. Give at least one device")
    if is_release:
        policy = Policy(DEFAULT, release_of=policy)
    problems = Problems()
    good = good_selectors(params["devices"], problems)
    return Request(
        [Entry(selector, policy) for selector in good.values()],
        allow=params["allow"],
        problems=problems.by_position,
        positions=list(good),
    )


def vfio_settings(params: Mapping[str, Any]) -> VfioSettings:
    """Return the options of the vfio modules."""
    return VfioSettings(**{name: params[name] for name in VfioSettings._fields})
