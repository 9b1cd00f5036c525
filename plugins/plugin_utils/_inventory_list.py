# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the list that a host has applied is the one of its variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import digest
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Board
from ansible_collections.armfleet.vfio.plugins.modules import host_policy
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    IN_SYNC,
    UNMANAGED,
    one_line,
)

OUTDATED = "outdated"

# The states that say nothing else is wrong.
_GOOD = (IN_SYNC, UNMANAGED)
_ANSWER = _answers.Record(
    {"board": _answers.BOARD, "policy_digest": _answers.DEVICE_INFO["policy_digest"]}
)


def is_compared(options: Mapping[str, Any]) -> bool:
    """Return whether a run with these options of host_policy determines the applied list."""
    is_kept = str(options["persistent"]).lower() not in ("false", "no", "off", "0")
    return is_kept and options["state"] in ("present", "absent")


def is_applied(options: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Return whether ``answer``, a result of device_info, is of a host with this very list.

    ``options`` are those of host_policy. PolicyError if they are invalid, MalformedAnswerError if
    the answer is.
    """
    answer = _ANSWER.read(answer, "")
    given = {name: value for name, value in options.items() if value is not None}
    validated = ArgumentSpecValidator(host_policy.SPEC["argument_spec"]).validate(given)
    if validated.error_messages:
        raise PolicyError("; ".join(validated.error_messages))
    request = host_policy.to_request(validated.validated_parameters)
    if request.problems:
        raise PolicyError([problem for _position, problem in request.problems])
    board = Board(
        compatible=answer["board"]["compatible"],
        product_name=answer["board"]["product_name"],
        board_name=answer["board"]["board_name"],
    )
    names = set(board.names)
    entries = [
        entry
        for entry in request.entries
        if not entry.selector.when_board or names.intersection(entry.selector.when_board)
    ]
    return bool(digest(entries, request.options) == answer["policy_digest"])


def outdated(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the state and the message of a host whose list is not that of its variables."""
    if state["state"] not in _GOOD:
        note = "Its list is not that of the inventory, either."
        return {"state": state["state"], "message": "%s %s" % (state["message"], note)}
    what = "has no list" if state["state"] == UNMANAGED else "is in sync with another list"
    message = "It %s, but the inventory has one for it. Roll out the list of the inventory."
    return {"state": OUTDATED, "message": message % what}


def not_compared(state: Mapping[str, Any], problem: str) -> dict[str, str]:
    """Return the state and the message of a host whose variables cannot be evaluated."""
    sentence = "Its list in the inventory cannot be evaluated: %s" % one_line(problem)
    return {
        "state": state["state"],
        "message": "%s %s." % (state["message"], sentence.rstrip(".")),
    }
