# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout keeps the previous list of each host, and rolls back only the hosts it changed."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, LIST, Board, acme_board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    PREVIOUS,
    RULES,
    UNFINISHED,
    WAITS_FOR_BOOT,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.rollout_history import (
    ChangedDevice,
    HistoryUpdate,
    Rollout,
    Stamp,
    changed_device,
    parse,
    to_change,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results

OPTIONS: dict[str, Any] = {"reset_required": False}


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return acme_board(tmp_path)


def rollouts(board: Board) -> Any:
    return device_info.inspections(board.inspect(None))["rollouts"]


def states(board: Board) -> list[tuple[str, str]]:
    return [(past["name"], past["state"]) for past in rollouts(board)]


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
    assert states(board) == [("wide", "rolled_back")]


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
    assert states(board) == [("earlier", "applied")]


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
        later = {"first": "rollouts third, second", "second": "rollout third"}[name]
        assert str(refusal.value) == (
            f"Rollout {name} cannot be rolled back alone on this host, because the list was "
            f"changed after it by {later}. Roll back third first, or all of them with "
            "`rollback_overtaken: true`"
        )
    assert board.everything() == applied
    assert not previous(board, "unknown")
    assert previous(board, "third")
    assert not previous(board, "third")
    assert previous(board, "second")


def test_the_last_ten_rollouts_are_kept(board: Board) -> None:
    for number in range(14):
        board.apply([DMA] if number % 2 else [CRYPTO], rollout=f"r{number}", **OPTIONS)
        end(board)
    assert states(board) == [
        ("r13", "applied"),
        *((f"r{number}", "overtaken") for number in range(12, 3, -1)),
    ]


def roll_out(board: Board, *names: str) -> list[tuple[object, ...]]:
    """Apply a list for each name, each its own; return the states of the host before each."""
    before = []
    for name in names:
        before.append(state_of(board)[:2])
        number = int(name[-1])
        listed = [{"dt_path": f"/soc/{DEVICES[number]}", "policy": "no_autobind"}]
        assert board.apply(listed, rollout=name, rollout_by="alice@control").is_changed
        end(board)
    return before


DEVICES = ("crypto@b000000", "crypto@b001000", "dma@b002000", "dma@b003000")


def test_a_host_is_rolled_back_two_names_deep_if_that_is_accepted(board: Board) -> None:
    before = roll_out(board, "r0", "r1", "r2", "r3")
    asked: dict[str, Any] = {"rollout": "r1", "restores": True, "rollback_overtaken": True}
    checked = results.list_result(board.check([], **asked))
    assert checked["rolled_back"] == ["r3", "r2", "r1"]
    outcome = board.apply([], **asked, rollout_by="bob@control")
    assert results.list_result(outcome)["rolled_back"] == ["r3", "r2", "r1"]
    assert results.list_result(outcome)["rollout"] == {"name": "r0", "ended": True}
    assert state_of(board)[:2] == before[1]
    assert states(board) == [
        *((name, "rolled_back") for name in ("r3", "r2", "r1")),
        ("r0", "applied"),
    ]
    assert {past["rolled_back"]["user"] for past in rollouts(board)[:3]} == {"bob@control"}
    # It can be repeated, and the next one can be rolled back after it.
    assert not board.apply([], **asked).is_changed
    assert previous(board, "r0")
    assert state_of(board)[:2] == before[0]


def test_one_is_rolled_back_after_the_other(board: Board) -> None:
    before = roll_out(board, "r0", "r1", "r2")
    for name in ("r2", "r1", "r0"):
        assert previous(board, name)
        assert state_of(board)[:2] == before.pop()
    assert board.file(RULES) is None


def test_a_rollback_accepts_no_list_that_somebody_applied_last(board: Board) -> None:
    roll_out(board, "r0", "r1")
    board.apply([CRYPTO], **OPTIONS)
    applied = board.everything()
    with pytest.raises(PolicyError, match="changed after rollout r1 by another run"):
        board.apply([], rollout="r0", restores=True, rollback_overtaken=True)
    assert board.everything() == applied
    assert states(board) == [("r1", "replaced"), ("r0", "overtaken")]


def test_a_refusal_names_runs_between_rollouts(board: Board) -> None:
    roll_out(board, "r0")
    board.apply([CRYPTO], **OPTIONS)
    roll_out(board, "r1", "r2")
    with pytest.raises(PolicyError, match="by rollouts r2, r1 and a run without a rollout"):
        previous(board, "r0")
    native = {
        device: ("acme-crypto" if "crypto" in device else "acme-dma", None)
        for device in ("b000000.crypto", "b001000.crypto", "b002000.dma", "b003000.dma")
    }
    board.apply([], rollout="r0", restores=True, rollback_overtaken=True)
    assert {device: board.kernel.binding(device) for device in native} == native


def test_a_name_means_the_last_rollout_that_had_it(board: Board) -> None:
    before = roll_out(board, "r0", "r1")
    (after, again) = roll_out(board, "r2", "r0")
    assert previous(board, "r0")
    assert state_of(board)[:2] == again
    # Repeated, it does not reach the other one of this name.
    asked: dict[str, Any] = {"rollout": "r0", "restores": True, "rollback_overtaken": True}
    assert not board.apply([], **asked).is_changed
    assert previous(board, "r2")
    assert state_of(board)[:2] == after
    assert previous(board, "r1")
    assert state_of(board)[:2] == before[1]


def test_a_rollout_may_begin_again_after_it_was_rolled_back(board: Board) -> None:
    (_first, before) = roll_out(board, "r0", "r1")
    previous(board, "r1")
    roll_out(board, "r1")
    assert states(board) == [("r1", "applied"), ("r1", "rolled_back"), ("r0", "overtaken")]
    assert previous(board, "r1")
    assert state_of(board)[:2] == before


def test_what_was_rolled_back_is_forgotten_before_a_way_back(board: Board) -> None:
    before = roll_out(board, "r0", "r1")
    for _time in range(12):
        roll_out(board, "r2")
        previous(board, "r2")
    assert len(rollouts(board)) == 10
    assert states(board)[-2:] == [("r1", "applied"), ("r0", "overtaken")]
    board.apply([], rollout="r0", restores=True, rollback_overtaken=True)
    assert state_of(board)[:2] == before[0]


def test_a_record_has_time_user_digest_and_devices(board: Board) -> None:
    board.apply([CRYPTO], rollout="wide", rollout_by="al\x1b[2Jice @control" + "x" * 99, **OPTIONS)
    (past,) = rollouts(board)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", past["time"])
    assert past["user"] == ("al__2Jice_@control" + "x" * 99)[:64]
    assert past["digest"] == device_info.inspections(board.inspect(None))["policy_digest"]
    crypto = "/soc/crypto@b000000"
    assert past["changed_devices"] == [
        {"device": crypto, "before": "acme-crypto", "after": "vfio-platform"}
    ]
    assert (past["more_devices"], past["rolled_back"]) == (0, None)
    # Continued, it is the same rollout, with what it changed in all of its runs.
    board.apply([DMA], rollout="wide", **OPTIONS)
    (past,) = rollouts(board)
    assert {(device["device"], device["after"]) for device in past["changed_devices"]} >= {
        (crypto, "acme-crypto"),
        ("/soc/dma@b002000", None),
    }
    assert {device["before"] for device in past["changed_devices"]} == {"acme-crypto", "acme-dma"}
    assert past["user"] is None


def test_many_changed_devices_are_counted() -> None:
    devices = [changed_device(f"/d{number}\n" + "x" * 999, "a", None) for number in range(25)]
    update = HistoryUpdate(None, [Rollout("r0", {"devices": []}, {"devices": []})], adds=True)
    (past,) = parse(to_change(update, devices).after)
    assert (len(past.devices), past.more_devices) == (20, 5)
    assert past.devices[0].device.startswith("/d0\\n" + "x" * 100)


def test_the_history_has_a_line_with_these_keys_for_each_rollout() -> None:
    rollout = Rollout(
        name="r1",
        before={"devices": []},
        after={"devices": [], "initramfs": "never"},
        digest="0" * 64,
        made=Stamp("2026-05-01T10:00:00Z", "alice@control"),
        devices=[ChangedDevice("/soc/dma@1", before="acme-dma", after=None)],
        more_devices=2,
        rolled_back=Stamp("2026-05-02T10:00:00Z", None),
    )
    content = to_change(HistoryUpdate(None, [rollout]), []).after
    assert content == (
        '{"format": 2, "rollouts": [\n'
        '{"rollout": "r1", "time": "2026-05-01T10:00:00Z", "user": "alice@control", '
        f'"digest": "{"0" * 64}", '
        '"devices": [{"device": "/soc/dma@1", "before": "acme-dma", "after": null}], '
        '"more_devices": 2, '
        '"rolled_back": {"time": "2026-05-02T10:00:00Z", "user": null}, '
        '"before": {"devices": []}, "after": {"devices": [], "initramfs": "never"}}\n]}\n'
    )
    assert parse(content) == [rollout]


def test_a_rollout_is_returned_with_these_keys(board: Board) -> None:
    board.apply([CRYPTO], rollout="wide", rollout_by="alice@control", **OPTIONS)
    previous(board, "wide")
    (past,) = rollouts(board)
    assert list(past) == [
        *("name", "state", "digest", "time", "user"),
        *("changed_devices", "more_devices", "rolled_back"),
    ]
    assert past["rolled_back"] == {"time": past["rolled_back"]["time"], "user": None}


def earlier_version(board: Board, **more: Any) -> None:
    """Store the last rollout as the version did that stored one only."""
    (last, *_others) = json.loads(board.file(PREVIOUS) or "")["rollouts"]
    kept = {name: last[name] for name in ("rollout", "before", "after")}
    board.write_file(PREVIOUS, json.dumps({**kept, **more}, indent=1) + "\n")


@pytest.mark.parametrize("more", [{}, {"overtaken": []}])
def test_a_file_of_an_earlier_version_can_be_rolled_back(board: Board, more: Any) -> None:
    board.apply([CRYPTO], **OPTIONS)
    before = board.kernel.bindings()
    board.apply([DMA], rollout="first", **OPTIONS)
    digest = rollouts(board)[0]["digest"]
    earlier_version(board, **more)
    (past,) = rollouts(board)
    assert (past["state"], past["digest"], past["time"]) == ("applied", digest, None)
    assert previous(board, "first")
    assert board.kernel.bindings() == before


def test_a_file_of_an_earlier_version_is_continued(board: Board) -> None:
    (before,) = roll_out(board, "r1")
    overtaken = [f"o{number}" for number in range(10)]
    earlier_version(board, overtaken=overtaken)
    roll_out(board, "r2")
    assert states(board) == [
        ("r2", "applied"),
        *((name, "overtaken") for name in ["r1", *overtaken[:8]]),
    ]
    with pytest.raises(PolicyError, match=r"Rollout o0 .* stored only the list before"):
        board.apply([], rollout="o0", restores=True, rollback_overtaken=True)
    board.apply([], rollout="r1", restores=True, rollback_overtaken=True)
    assert state_of(board)[:2] == before


def test_a_file_of_a_later_version_is_refused_and_kept(board: Board) -> None:
    roll_out(board, "r0")
    content = json.dumps({"format": 3, "states": {}})
    board.write_file(PREVIOUS, content)
    for asked in ({"rollout": "r0", "restores": True}, {"rollout": "r1"}):
        with pytest.raises(PolicyError, match="which a later version of this collection wrote"):
            board.apply([], **asked)
    assert board.file(PREVIOUS) == content
    findings = board.inspect(None)
    result = device_info.inspections(findings)
    assert result["rollouts"] is None
    assert "has format 3" in result["rollouts_problem"]
    assert result["rollouts_problem"] in device_info.unknown(findings)
    # A run that needs nothing of it works.
    assert not board.apply(
        [{"dt_path": "/soc/crypto@b000000", "policy": "no_autobind"}], rollout="r2"
    ).is_changed


@pytest.mark.parametrize(
    "damaged",
    [
        {"format": 2, "rollouts": None},
        {"format": True, "rollouts": []},
        {"format": "2", "rollouts": []},
        {"format": 0, "rollouts": []},
        {"format": 2, "rollouts": [{}] * 11},
        {"format": 2, "rollouts": [{"rollout": "x" * (1 << 20)}]},
    ],
    ids=lambda damaged: str(damaged)[:40],
)
def test_a_damaged_history_is_neither_used_nor_replaced(board: Board, damaged: Any) -> None:
    roll_out(board, "r0")
    board.write_file(PREVIOUS, json.dumps(damaged))
    for asked in ({"rollout": "r0", "restores": True}, {"rollout": "r1"}):
        with pytest.raises(PolicyError, match="cannot be parsed") as refusal:
            board.apply([], **asked)
        assert len(str(refusal.value)) < 500
    assert board.file(PREVIOUS) == json.dumps(damaged)


def test_an_old_list_that_is_damaged_is_reported_before_it_is_needed(board: Board) -> None:
    roll_out(board, "r0", "r1")
    kept = json.loads(board.file(PREVIOUS) or "")
    kept["rollouts"][1]["before"] = {"devices": [{"dt_path": "/x", "policy": "x" * 5000}]}
    board.write_file(PREVIOUS, json.dumps(kept))
    with pytest.raises(PolicyError, match="cannot be parsed"):
        board.apply([], rollout="r2")
    assert previous(board, "r1")


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
    assert status(rollout="second", restores=True) == {"name": "first", "ended": True}
    assert device_info.inspections(board.inspect(None))["rollout"] == "first"


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
