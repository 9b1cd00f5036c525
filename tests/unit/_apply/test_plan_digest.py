# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run with the digest of a plan makes exactly the changes of that plan, or none."""

from __future__ import annotations

from typing import Any

import pytest
from board import LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.plan_digest import (
    check_planned,
    is_plan_digest,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.modules import host_policy

FIRST = LIST[:1]
SETTINGS: dict[str, Any] = {"reset_required": False}


def planned(board: Board, entries: list[dict[str, Any]], **settings: Any) -> str:
    digest = board.check(entries, **{**SETTINGS, **settings}).plan_digest
    assert digest is not None
    assert is_plan_digest(digest)
    return digest


def moved(board: Board, plan: str, entries: list[dict[str, Any]], **settings: Any) -> str:
    """Return the message of a run that is refused; assert that it changed nothing."""
    before = board.everything()
    board.kernel.writes.clear()
    for run in (board.check, board.apply):
        with pytest.raises(
            PolicyError, match="This host is not as it was when the plan was made"
        ) as caught:
            run(entries, **{**SETTINGS, **settings}, plan=plan)
    assert not board.kernel.writes
    assert board.everything() == before
    return str(caught.value)


def test_a_plan_is_applied_as_planned(board: Board) -> None:
    plan = planned(board, LIST)
    assert planned(board, LIST) == plan
    outcome = board.apply(LIST, **SETTINGS, plan=plan)
    assert outcome.is_changed
    assert outcome.plan_digest == plan
    assert "vfio-platform" in (board.file(RULES) or "")


def test_a_plan_with_the_name_of_a_rollout_is_the_same(board: Board) -> None:
    outcome = board.apply(LIST, **SETTINGS, plan=planned(board, LIST), rollout="r")
    assert outcome.rollout is not None
    assert outcome.rollout.name == "r"


def test_a_plan_that_was_applied_has_nothing_left_to_do(board: Board) -> None:
    plan = planned(board, LIST)
    board.apply(LIST, **SETTINGS, plan=plan)
    assert not board.apply(LIST, **SETTINGS, plan=plan).is_changed


def test_a_device_that_moved_is_a_reason_to_refuse(board: Board) -> None:
    plan = planned(board, LIST)
    board.apply(FIRST, **SETTINGS, persistent=False)
    assert "what is to be changed of devices" in moved(board, plan, LIST)


def test_a_boot_file_that_moved_is_a_reason_to_refuse(board: Board) -> None:
    board.apply(FIRST, **SETTINGS)
    plan = planned(board, LIST)
    board.write_file(RULES, (board.file(RULES) or "") + "# edited\n")
    assert "what is to be changed of boot files differs." in moved(board, plan, LIST)


def test_another_list_or_option_is_a_reason_to_refuse(board: Board) -> None:
    plan = planned(board, LIST)
    assert "the list or its options changed" in moved(board, plan, FIRST)
    assert "the list or its options changed" in moved(board, plan, LIST, unsafe_interrupts=False)


def test_a_list_that_was_replaced_since_is_a_reason_to_refuse(board: Board) -> None:
    plan = planned(board, LIST)
    board.apply(FIRST, **SETTINGS)
    assert "devices and of" in moved(board, plan, LIST)


def test_a_host_that_was_in_sync_is_a_reason_to_refuse_once_it_is_not(board: Board) -> None:
    board.apply(LIST, **SETTINGS)
    plan = planned(board, LIST)
    assert not board.apply(LIST, **SETTINGS, plan=plan).is_changed
    assert "the list or its options changed" in moved(board, plan, FIRST)
    board.write_file(RULES, (board.file(RULES) or "") + "# edited\n")
    assert "it was in sync, and is not any longer" in moved(board, plan, LIST)


def test_a_release_is_planned_and_applied(board: Board) -> None:
    board.apply(LIST, **SETTINGS)
    plan = planned(board, [])
    board.apply([], **SETTINGS, plan=plan)
    assert board.file(RULES) is None


def test_no_plan_includes_the_roll_back_of_an_interrupted_run(board: Board) -> None:
    plan = planned(board, LIST)
    with board.run_lock().acquire():
        board.journal().begin([], 0)
    for run in (board.check, board.apply):
        with pytest.raises(
            PolicyError, match="A run was interrupted on this host and must be rolled back first"
        ):
            run(LIST, **SETTINGS, plan=plan)
    assert board.run_lock().has_journal()


def request(**options: Any) -> Any:
    names = host_policy.SPEC["argument_spec"]
    params = {name: option.get("default") for name, option in names.items()}
    return host_policy.to_request({**params, "devices": [], **options})


@pytest.mark.parametrize(
    "plan",
    ["", "unchanged", "A" * 32, "a" * 31, "a" * 33, ".".join(["a" * 32] * 3), "a" * 32 + "\n"],
)
def test_what_is_no_digest_of_a_plan_is_refused(plan: str) -> None:
    problems = request(plan=plan).problems
    assert [
        text
        for _position, text in problems
        if "that a run in check mode returned on this host" in text
    ]


@pytest.mark.parametrize("plan", ["a" * 32, ".".join(["0" * 32] * 4)])
def test_a_digest_of_a_plan_is_accepted(plan: str) -> None:
    assert request(plan=plan).plan == plan
    assert not request(plan=plan).problems


@pytest.mark.parametrize("state", ["previous", "finished"])
def test_a_plan_is_of_a_list(state: str) -> None:
    problems = request(plan="a" * 32, state=state, rollout="r").problems
    assert [text for _position, text in problems if "`plan` requires `state: present`" in text]


def test_a_part_of_a_digest_is_no_plan_of_a_host_that_changes() -> None:
    full = ".".join(letter * 32 for letter in "abcd")
    check_planned(full, full)
    check_planned(full, "a" * 32)
    with pytest.raises(PolicyError, match="not any longer"):
        check_planned("a" * 32, full)
