# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules that change devices share: from their options to their answer."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.module_utils.basic import AnsibleModule

from .. import _text
from .._ansible_module import create_module, end, fail
from .._apply.last_answer import Answer, LastAnswer
from .._apply.reconcile import Outcome, reconcile
from .._apply.run_lock import RunLock
from .._boot.last_applied import UNFINISHED
from .._errors import PolicyError, Problems
from .._in_use.checker import Usage
from .._model.policy import DEFAULT, Policy, VfioSettings
from .._model.policy_list import Entry, good_selectors
from .._model.request import Request
from .._system.host import Host, open_host
from .._system.recorded_reads import Record


def run(
    name: str,
    spec: Mapping[str, Any],
    to_request: Callable[[Mapping[str, Any]], Request],
    to_result: Callable[[Outcome], dict[str, Any]],
) -> None:
    """Run the module of that name and end the process with its answer.

    ``to_request`` may raise PolicyError. With the option ``request_digest``, the answer of a run
    that found nothing to do is kept.
    """
    module = create_module(name, spec)
    host = open_host(module.params["timeout"])
    try:
        if module.params["timeout"] < 1:
            raise PolicyError("`timeout` must be 1 or more seconds")
        answer = _answer(module, name, host, to_request(module.params), to_result)
    except PolicyError as error:
        fail(module, error)
    finally:
        host.sysfs.close()
    end(module, *answer)


def _answer(
    module: AnsibleModule,
    name: str,
    host: Host,
    request: Request,
    to_result: Callable[[Outcome], dict[str, Any]],
) -> Answer:
    """Return the answer of a run; PolicyError if it cannot be done."""
    lock = RunLock(name, module.params["timeout"])
    record = Record()
    outcome = reconcile(
        record.host(host),
        record.unrecorded(Usage(host.sysfs)),
        lock,
        request,
        check_mode=module.check_mode,
    )
    warnings = [*outcome.interrupted, *outcome.warnings, *outcome.not_checked]
    if outcome.is_changed:
        warnings += outcome.unsafe_kept
    result = to_result(outcome)
    has_nothing_to_do = not (outcome.is_changed or module.check_mode)
    if has_nothing_to_do and request.rollout and not (request.restores or request.ends):
        result["inspection"], sentences = _inspect(host, record)
        warnings += sentences
    answer = Answer(_text.printable_result(result), list(map(_text.printable_result, warnings)))
    is_kept = record.is_complete and has_nothing_to_do
    # Whether a rollout is refused depends on its name, which is not a part of the digest.
    if is_kept and not (request.rollout and host.files.read_own(UNFINISHED)):
        last = LastAnswer(lock, module.params.get("request_digest"))
        last.keep(record.reads, record.digest, answer)
    return answer


def _inspect(host: Host, record: Record) -> tuple[dict[str, Any], list[str]]:
    """Return what device_info returns of the claimed devices, and its warnings."""
    # Here, because only a rollout reads the devices back.
    from . import device_info, inspection  # noqa: PLC0415

    findings = inspection.inspect(
        record.host(host),
        lambda same: record.unrecorded(Usage(same.sysfs)),
        None,
        only_claimed=True,
        with_candidates=False,
        with_use=False,
    )
    result = device_info.without_nulls(device_info.inspections(findings))
    return result, device_info.unknown(findings)


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
    return VfioSettings(
        reset_required=params["reset_required"],
        unsafe_noiommu=params["unsafe_noiommu"],
        unsafe_interrupts=params["unsafe_interrupts"],
    )
