# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of a module that changes devices, from its options to its answer."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from .. import _text
from .._ansible_module import create_module, fail
from .._apply.reconcile import Outcome, reconcile
from .._apply.run_lock import RunLock
from .._errors import PolicyError, Problems
from .._in_use.checker import Usage
from .._model.policy import DEFAULT, Policy, VfioSettings
from .._model.policy_list import Entry, good_selectors
from .._model.request import Request
from .._system.host import open_host
from .results import result


def run(
    name: str,
    spec: Mapping[str, Any],
    to_request: Callable[[Mapping[str, Any]], Request],
    to_result: Callable[[Outcome], dict[str, Any]] = result,
) -> None:
    """Run the module of that name and end the process with its answer.

    ``to_request`` may raise PolicyError.
    """
    module = create_module(name, spec)
    timeout = module.params["timeout"]
    host = open_host(timeout)
    try:
        if timeout < 1:
            raise PolicyError("`timeout` must be 1 or more seconds")
        request = to_request(module.params)
        outcome = reconcile(
            host, Usage(host.sysfs), RunLock(name, timeout), request, check_mode=module.check_mode
        )
    except PolicyError as error:
        fail(module, error)
    finally:
        host.sysfs.close()
    for sentence in (*outcome.interrupted, *outcome.warnings, *outcome.not_checked):
        module.warn(_text.printable_result(sentence))
    if outcome.noiommu_kept and outcome.is_changed:
        module.warn(outcome.noiommu_kept)
    module.exit_json(**_text.printable_result(to_result(outcome)))


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
    return VfioSettings(params["reset_required"], params["unsafe_noiommu"])
