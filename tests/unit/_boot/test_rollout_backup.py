# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout keeps the previous list of each host, and rolls back only the hosts it changed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, LIST, Board, acme_board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    RULES,
    WAITS_FOR_BOOT,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.rollout_backup import (
    PREVIOUS,
    UNFINISHED,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results

OPTIONS: dict[str, Any] = {"reset_required": False}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return acme_board(tmp_path)


def previous(board: Board, rollout: str) -> bool:
    return board.apply([], rollout=rollout, restores=True).is_changed


def state_of(board: Board) -> tuple[object, ...]:
    return (board.kernel.bindings(), board.file(RULES), board.file(MODPROBE))


def test_a_rollout_is_put_back_to_the_list_and_the_options_of_before(board: Board) -> None:
    board.apply([CRYPTO], access=NodeAccess("root", "0660"), **OPTIONS)
    before = state_of(board)
    board.apply(LIST, rollout="wide", unsafe_noiommu=True, **OPTIONS)
    assert state_of(board) != before
    assert previous(board, "wide")
    assert state_of(board)[:2] == before[:2]
    assert board.file(PREVIOUS) is None


def test_a_host_that_had_nothing_has_nothing_again(board: Board) -> None:
    native = board.kernel.bindings()
    board.apply(LIST, rollout="first", **OPTIONS)
    assert previous(board, "first")
    assert board.kernel.bindings() == native
    assert board.file(RULES) is None


def test_putting_back_twice_changes_nothing_the_second_time(board: Board) -> None:
    board.apply(LIST, rollout="first", **OPTIONS)
    previous(board, "first")
    board.kernel.writes.clear()
    assert not previous(board, "first")
    assert not board.kernel.writes


def test_a_host_that_the_rollout_did_not_reach_is_left_alone(board: Board) -> None:
    board.apply([DMA], rollout="earlier")
    applied = state_of(board)
    assert not previous(board, "later")
    assert state_of(board) == applied
    kept = json.loads(board.file(PREVIOUS) or "")
    assert kept["rollout"] == "earlier"


def test_a_host_that_was_right_already_is_left_alone(board: Board) -> None:
    board.apply([DMA])
    assert not board.apply([DMA], rollout="same").is_changed
    assert board.file(PREVIOUS) is None
    assert not previous(board, "same")
    assert board.kernel.binding("b002000.dma") == (None, "none")


def test_a_rollout_that_goes_on_with_another_list_keeps_what_was_before_all_of_it(
    board: Board,
) -> None:
    board.apply([DMA])
    board.apply([DMA, CRYPTO], rollout="crypto", **OPTIONS)
    board.apply(LIST, rollout="crypto", **OPTIONS)
    assert not board.apply(LIST, rollout="crypto", **OPTIONS).is_changed
    assert previous(board, "crypto")
    assert board.kernel.binding("b000000.crypto") == ("acme-crypto", None)
    assert board.kernel.binding("b002000.dma") == (None, "none")


def test_what_somebody_applied_since_is_not_overwritten(board: Board) -> None:
    board.apply([DMA], rollout="first")
    board.apply([CRYPTO], **OPTIONS)
    applied = state_of(board)
    with pytest.raises(PolicyError, match="changed after rollout first by another run"):
        previous(board, "first")
    assert state_of(board) == applied


def test_a_check_tells_what_putting_back_would_change_and_changes_nothing(board: Board) -> None:
    board.apply(LIST, rollout="first", **OPTIONS)
    before = board.everything()
    outcome = board.check([], rollout="first", restores=True)
    assert outcome.is_changed
    assert {
        device_outcome.device.name for device_outcome in outcome.devices if device_outcome.steps
    } >= {"b000000.crypto"}
    assert board.everything() == before


def test_a_rollout_that_fails_on_a_host_keeps_nothing_there(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.answer("bus/platform/drivers/vfio-platform/bind", errno.EIO)
    with pytest.raises(PolicyError):
        board.apply([CRYPTO], rollout="first", **OPTIONS)
    assert board.file(PREVIOUS) is None
    assert not previous(board, "first")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"rollout": "x", "before": {}}'])
def test_a_damaged_file_is_refused_and_named(board: Board, content: str) -> None:
    board.apply([DMA], rollout="first")
    board.write_file(PREVIOUS, content)
    with pytest.raises(PolicyError, match=r"previous\.json cannot be parsed"):
        previous(board, "first")


@pytest.mark.parametrize("name", ["", "a b", "../x", "x\n", "-x", "x" * 65])
def test_a_name_that_is_none_is_refused(board: Board, name: str) -> None:
    with pytest.raises(PolicyError, match="is not a valid name"):
        board.apply([DMA], rollout=name)
    assert board.file(RULES) is None


def end(board: Board) -> None:
    """End whatever rollout has not ended, as the playbook does."""
    name = (board.file(UNFINISHED) or "").strip()
    assert board.apply([], rollout=name, ends=True).is_changed


def test_a_rollout_that_another_one_followed_is_not_rolled_back(board: Board) -> None:
    board.apply([DMA], rollout="first")
    end(board)
    board.apply([CRYPTO], rollout="second", **OPTIONS)
    end(board)
    board.apply(LIST, rollout="third", **OPTIONS)
    applied = board.everything()
    for name in ("first", "second"):
        with pytest.raises(PolicyError) as refusal:
            previous(board, name)
        assert f"Rollout {name} " in str(refusal.value)
        assert (
            "cannot be rolled back on this host, because rollout third changed the list after it"
            in str(refusal.value)
        )
    assert board.everything() == applied
    assert not previous(board, "unknown")
    assert previous(board, "third")
    assert not previous(board, "second")


def test_names_of_overtaken_rollouts_are_kept_up_to_ten_and_not_twice(board: Board) -> None:
    for number in range(14):
        board.apply([DMA] if number % 2 else [CRYPTO], rollout=f"r{number % 13}", **OPTIONS)
        end(board)
    kept = json.loads(board.file(PREVIOUS) or "")
    assert kept["rollout"] == "r0"
    assert kept["overtaken"] == [f"r{number}" for number in range(12, 2, -1)]


def test_a_file_of_an_earlier_version_can_be_rolled_back(board: Board) -> None:
    board.apply([CRYPTO], **OPTIONS)
    before = board.kernel.bindings()
    board.apply([DMA], rollout="first", **OPTIONS)
    kept = json.loads(board.file(PREVIOUS) or "")
    del kept["overtaken"]
    board.write_file(PREVIOUS, json.dumps(kept))
    assert previous(board, "first")
    assert board.kernel.bindings() == before


def test_a_rollout_that_has_not_ended_is_in_the_way_of_another(board: Board) -> None:
    board.apply([DMA], rollout="first")
    applied = board.everything()
    for entries in ([DMA], LIST, []):
        for run in (board.apply, board.check):
            with pytest.raises(PolicyError, match=r"Rollout first has changed .* has not ended"):
                run(entries, rollout="second", **OPTIONS)
    assert board.everything() == applied
    # It goes on under its own name, with another list as well.
    board.apply(LIST, rollout="first", **OPTIONS)
    assert board.file(UNFINISHED) == "first\n"


def test_only_the_rollout_itself_ends_and_the_list_stays(board: Board) -> None:
    board.apply([DMA], rollout="first")
    applied = board.everything()
    assert not board.apply([], rollout="other", ends=True).is_changed
    assert board.check([], rollout="first", ends=True).is_changed
    assert board.everything() == applied
    outcome = board.apply([], rollout="first", ends=True)
    assert results.list_result(outcome)["rollout"] == {"name": "first", "ended": True}
    del applied[f"host{UNFINISHED}"]
    assert board.everything() == applied
    assert not board.apply([], rollout="first", ends=True).is_changed
    assert previous(board, "first")


def test_another_rollout_may_follow_one_that_ended_or_was_rolled_back(board: Board) -> None:
    board.apply([DMA], rollout="first")
    end(board)
    board.apply([CRYPTO], rollout="second", **OPTIONS)
    previous(board, "second")
    assert board.file(UNFINISHED) is None
    board.apply(LIST, rollout="third", **OPTIONS)
    assert board.file(UNFINISHED) == "third\n"


def test_a_list_that_somebody_applied_ends_a_rollout(board: Board) -> None:
    board.apply([DMA], rollout="first")
    board.apply([CRYPTO], **OPTIONS)
    board.apply(LIST, rollout="second", **OPTIONS)
    assert board.file(UNFINISHED) == "second\n"


@pytest.mark.parametrize("content", ["", "\n", "a b\n", "other\n", "second"])
def test_a_name_that_is_not_that_of_the_stored_rollout_is_in_nobodys_way(
    board: Board, content: str
) -> None:
    board.apply([DMA], rollout="first")
    board.write_file(UNFINISHED, content)
    assert board.apply(LIST, rollout="second", **OPTIONS).is_changed


def test_the_result_names_the_rollout_and_whether_it_has_ended(board: Board) -> None:
    def status(**request: Any) -> Any:
        return results.list_result(board.apply([DMA], **request))["rollout"]

    assert status() is None
    assert status(rollout="same") is None
    board.apply([CRYPTO], rollout="first", **OPTIONS)
    assert device_info.inspections(board.inspect(None))["rollout"] == "first"
    end(board)
    assert status(rollout="second") == {"name": "second", "ended": False}
    assert status(rollout="second") == {"name": "second", "ended": False}
    end(board)
    assert status(rollout="third") == {"name": "second", "ended": True}
    assert status(rollout="first-of-others", restores=True) == {"name": "second", "ended": True}
    # Nobody can roll back what somebody replaced.
    board.apply([CRYPTO], **OPTIONS)
    assert status(rollout="first-of-others", restores=True) is None
    assert device_info.inspections(board.inspect(None))["rollout"] is None
    board.apply([DMA])
    assert status(rollout="second", restores=True) is None
    assert device_info.inspections(board.inspect(None))["rollout"] is None


def digests(board: Board, entries: Any, **options: Any) -> tuple[str, str]:
    """Return the digest of the list that was sent, and that of the list which the host has."""
    sent = results.list_result(board.apply(entries, **options))["policy_digest"]
    return sent, device_info.inspections(board.inspect(None))["policy_digest"]


def test_the_digest_is_that_of_the_list_and_its_options(board: Board) -> None:
    sent, applied = digests(board, LIST, **OPTIONS)
    assert sent == applied
    assert digests(board, LIST, **OPTIONS) == (sent, sent)
    seen = {sent}
    for entries, options in [
        ([DMA], OPTIONS),
        ([DMA], {}),
        ([CRYPTO], OPTIONS),
        ([CRYPTO], {**OPTIONS, "access": NodeAccess("root", "0660")}),
        ([], {}),
    ]:
        sent, applied = digests(board, entries, **options)
        assert sent == applied
        assert sent not in seen
        seen.add(sent)
    # An empty list has no options.
    assert digests(board, [], **OPTIONS) == (sent, sent)
    board.apply([DMA], rollout="first")
    assert digests(board, [], rollout="unknown", restores=True) == digests(board, [DMA])
    assert digests(board, [], rollout="first", restores=True) == (sent, sent)


def test_a_list_for_the_next_boot_alone_is_noted_until_it_is_in_force(board: Board) -> None:
    (board.files_root / "run").mkdir()
    assert board.apply(LIST, runtime=False, **OPTIONS).needs_boot
    assert board.file(WAITS_FOR_BOOT)
    assert not board.apply(LIST, runtime=False, **OPTIONS).is_changed
    board.apply(LIST, **OPTIONS)
    assert board.file(WAITS_FOR_BOOT) is None
