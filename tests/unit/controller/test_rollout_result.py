# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The message for a host of a rollout comes from the results that its tasks registered."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._interrupted_rollout import report
from ansible_collections.armfleet.vfio.plugins.plugin_utils._rollout_result import (
    Summary,
    rollout_state,
    states,
    summary,
)

BINDING = {"driver": "vfio-platform", "driver_override": "vfio-platform"}
NATIVE = {"driver": "acme", "driver_override": None}


def device(name: str, *drift: str, **more: Any) -> Any:
    return {
        "name": name,
        "bus": "platform",
        "dt_path": f"/soc/{name}",
        "acpi_path": None,
        "compatible": [],
        **BINDING,
        "desired": BINDING,
        "next_boot": {**BINDING, "known": True, "reason": "policy vfio"},
        "drift": list(drift),
        "in_use_by": [],
        **more,
    }


def info(*devices: Any, **more: Any) -> dict[str, Any]:
    return {"devices": list(devices), "policy_list": [{"dt_path": "/x"}], **more}


def result_of(applied: Any, checked: Any = None, failure: Any = None, unchanged: Any = None) -> Any:
    state = rollout_state("board", 2, applied, checked, failure, unchanged)
    assert (state["host"], state["wave"]) == ("board", 2)
    return state["outcome"], state["message"]


@pytest.mark.parametrize(
    ("applied", "checked", "failure", "outcome", "words"),
    [
        ({"changed": True}, info(device("a")), None, "changed", "is in sync: one device"),
        ({"changed": False}, info(device("a"), device("b")), None, "unchanged", "in sync: 2 dev"),
        ({"changed": True}, None, None, "would change", "Nothing was changed."),
        ({"changed": True, "devices": []}, None, None, "would change", "No device would change"),
        ({"changed": True}, info(), None, "changed", "No device of it is in a list"),
        (
            {"changed": True},
            info(device("a", "its driver is gone", **NATIVE)),
            None,
            "failed",
            "/soc/a is not in sync: its driver is gone",
        ),
        (
            {"changed": True},
            info(device("a"), device("b", "set by hand", desired=None)),
            None,
            "changed",
            "is in sync: one device",
        ),
        (
            {"changed": True},
            info(device("a"), boot_files=[{"drift": []}, {"drift": ["/etc is nobody's"]}]),
            None,
            "failed",
            "/etc is nobody's",
        ),
        (
            {"changed": True},
            info(device("a", "a boot brings it"), reboot_required=True),
            None,
            "changed",
            "Reboot it to finish",
        ),
        ({"failed": True, "msg": "b: no group"}, None, {"task": "x"}, "failed", "b: no group"),
        (
            {"unreachable": True, "msg": "ssh: connect: Connection refused"},
            None,
            {"task": "x", "msg": "undefined"},
            "unreachable",
            "It cannot be reached: ",
        ),
        (
            {"changed": True},
            {"unreachable": True, "msg": "ssh: connect: Connection refused"},
            None,
            "unreachable",
            "It was changed, and does not answer anymore: ",
        ),
        (
            {"changed": True},
            None,
            {"task": "Rebuild the initramfs", "msg": "non-zero return code"},
            "failed",
            "Rebuild the initramfs: non-zero return code",
        ),
        (None, None, {"task": "Validate", "msg": "missing"}, "failed", "Validate: missing"),
    ],
)
def test_an_outcome_has_a_sentence(
    applied: Any, checked: Any, failure: Any, outcome: str, words: str
) -> None:
    actual, sentence = result_of(applied, checked, failure)
    assert actual == outcome
    assert words in sentence
    assert "\n" not in sentence


def losing_entries(*sentences: str, **more: Any) -> dict[str, Any]:
    """Return what device_info answers if entries match nothing any more."""
    entries = [{"entry": {}, "former": [], "now": [], "message": text} for text in sentences]
    return info(lost_entries=entries, **more)


LOST = "`dt_path: /soc/a` matches no device now, but matched /soc/a"
AFTER_BOOT = {"changed": True, "rebooted": True, "elapsed": 41}


@pytest.mark.parametrize("applied", [AFTER_BOOT, {"changed": True}, {"changed": False}])
@pytest.mark.parametrize("more", [{}, {"reboot_required": True}, {"boot_files": [{"drift": []}]}])
def test_a_host_with_an_entry_that_matches_nothing_any_more_has_failed(
    applied: Any, more: dict[str, Any]
) -> None:
    checked = losing_entries(LOST, "another", **more)
    assert result_of(applied, checked) == ("failed", LOST)
    # Also where other devices of the list are in sync, or drift.
    for listed in (device("b"), device("b", "drifts")):
        assert result_of(applied, {**checked, "devices": [listed]}) == ("failed", LOST)


def test_a_boot_file_that_lacks_something_explains_more_than_a_lost_entry() -> None:
    checked = losing_entries(LOST, boot_files=[{"drift": ["/etc is nobody's"]}])
    assert result_of(AFTER_BOOT, checked) == ("failed", "/etc is nobody's")


def test_a_host_that_lost_no_entry_is_in_sync() -> None:
    assert result_of(AFTER_BOOT, info(device("a"), lost_entries=[])) == (
        "changed",
        "All of its list is in sync: one device.",
    )


def test_a_host_that_was_left_alone_has_a_sentence_of_its_own() -> None:
    arguments = ({"changed": False}, info(device("a", "drifts")), None, "No reboot was required.")
    assert result_of(*arguments) == ("unchanged", "No reboot was required.")


def sent(digest: str, rollout: str | None, *, changed: bool = True) -> dict[str, Any]:
    named = rollout and {"name": rollout, "ended": False}
    return {"changed": changed, "policy_digest": digest, "rollout": named}


@pytest.mark.parametrize(
    ("applied", "checked", "outcome", "words"),
    [
        (sent("1", "a"), {"policy_digest": "1", "rollout": "a"}, "changed", "is in sync"),
        (
            sent("1", "a"),
            {"policy_digest": "2", "rollout": "b"},
            "failed",
            "Rollout b has replaced the list that was applied here.",
        ),
        (
            sent("1", None, changed=False),
            {"policy_digest": "2", "rollout": "b"},
            "failed",
            "Rollout b has replaced the list",
        ),
        (
            sent("1", "a"),
            {"policy_digest": "2", "rollout": "a"},
            "failed",
            "Another run has replaced the list that was applied here.",
        ),
        (sent("1", "a"), {"policy_digest": "2", "rollout": None}, "failed", "Another run has"),
    ],
)
def test_a_host_with_another_list_than_the_one_that_was_sent_has_failed(
    applied: Any, checked: dict[str, Any], outcome: str, words: str
) -> None:
    actual, sentence = result_of(applied, info(device("a"), **checked))
    assert actual == outcome
    assert words in sentence
    # Also where the other list is not in sync yet.
    actual, sentence = result_of(applied, info(device("a", "drifts"), **checked))
    assert actual == "failed"
    assert words in sentence or outcome == "changed"


@pytest.mark.parametrize("checked", [None, {}, {"skipped": True}])
def test_a_host_that_had_nothing_to_do_is_judged_by_what_was_read_with_its_list(
    checked: Any,
) -> None:
    same = {"policy_digest": "1", "rollout": "a"}
    applied = sent("1", None, changed=False)
    in_sync = {**applied, "inspection": info(device("a"), **same)}
    assert result_of(in_sync, checked) == (
        "unchanged",
        "All of its list is in sync: one device.",
    )
    drifting = {**applied, "inspection": info(device("a", "drifts"), **same)}
    assert result_of(drifting, checked)[0] == "failed"
    replaced = {**applied, "inspection": info(device("a"), policy_digest="2", rollout="b")}
    assert "Rollout b has replaced the list" in result_of(replaced, checked)[1]


def test_a_host_that_was_not_rolled_back_names_its_rollout() -> None:
    applied = sent("1", "later", changed=False)
    assert result_of(applied, {"skipped": True}, None, "Rollout x did not change it.") == (
        "unchanged",
        "Rollout x did not change it. Its last rollout is later.",
    )
    assert rollout_state("board", 1, applied, None, None, None)["rollout"] == "later"


GOOD = rollout_state("a", 1, {"changed": True}, info(device("a")), None, None)
SAME = rollout_state("b", 2, {"changed": False}, info(device("a")), None, None)
BAD = rollout_state("c", 2, {"failed": True, "msg": "broken"}, None, None, None)
TEXTS = {
    "title": "Rollout x",
    # Templates of older ansible-core make texts of numbers.
    "waves": "3",
    "limit": "0",
    "advice": ["Roll back: y", "Continue: z"],
    "way_back": ["Roll back: y"],
    "nothing": "",
}


STOPPED = (
    "Rollout x stopped in wave 2 of 3: 1 failed, 1 changed, 1 not started. No later wave was "
    "started."
)


def recorded(*rows: Any, begun: tuple[str, ...] = (), waiting: tuple[str, ...] = ()) -> Any:
    """Return variables of hosts with these rows, of some without, and of some not started."""
    hostvars = {row["host"]: {"rollout_row": row, "rollout_wave": row["wave"]} for row in rows}
    hostvars.update({host: {"rollout_row": None, "rollout_wave": 2} for host in begun})
    hostvars.update({host: {"rollout_row": None, "rollout_wave": 0} for host in waiting})
    return {host: {**given, "rollout_texts": TEXTS} for host, given in hostvars.items()}


def summed_up(hostvars: Any, *, is_over: bool = False, **more: Any) -> Summary:
    is_declined = more.pop("is_declined", False)
    rows = states(list(hostvars), hostvars)
    return summary(rows, {**TEXTS, **more}, is_over=is_over, is_declined=is_declined)


def test_a_wave_without_a_failure_is_one_line() -> None:
    after = summed_up(recorded(GOOD, SAME, waiting=("d",)))
    assert not after["stops"]
    assert after["lines"] == ["Wave 2 of 3 is done: 1 changed, 1 unchanged, 1 not started."]


def test_a_rollout_that_stops_shows_who_failed_and_what_to_do() -> None:
    after = summed_up(recorded(GOOD, BAD, waiting=("d",)))
    assert (after["stops"], after["failed"], after["problem"]) == (True, ["c"], None)
    assert after["lines"] == [
        "HOST  WAVE  OUTCOME      DETAILS",
        "c     2     failed       broken.",
        "a     1     changed      All of its list is in sync: one device.",
        "d     -     not started",
        "",
        STOPPED,
        "Hosts that failed: c",
        "Roll back: y",
        "Continue: z",
    ]
    assert not summed_up(recorded(GOOD, BAD), limit=1)["stops"]


def test_a_rollout_that_ends_well_shows_its_name_and_the_way_back() -> None:
    after = summed_up(recorded(GOOD, SAME), is_over=True)
    assert after["lines"][-3:] == ["", "Rollout x ended: 1 changed, 1 unchanged.", "Roll back: y"]
    assert (after["failed"], after["problem"]) == ([], None)


def test_a_rollout_that_ends_with_tolerated_failures_does_not_end_well() -> None:
    after = summed_up(recorded(GOOD, BAD), is_over=True, limit=1)
    assert after["lines"][-4:] == [
        "Rollout x ended, but not all hosts are in sync: 1 failed, 1 changed.",
        "Hosts that failed: c",
        "Roll back: y",
        "Continue: z",
    ]


def test_a_host_without_a_result_has_failed() -> None:
    after = summed_up(recorded(GOOD, begun=("e",)))
    assert after["failed"] == ["e"]
    assert "The run ended on this host without a result." in after["lines"][1]


def test_a_host_that_lost_an_entry_counts_as_failed() -> None:
    lost = rollout_state("c", 2, AFTER_BOOT, losing_entries(LOST), None, "No reboot was required.")
    after = summed_up(recorded(GOOD, lost, waiting=("d",)))
    assert (after["stops"], after["failed"]) == (True, ["c"])
    assert after["lines"][1].split()[:3] == ["c", "2", "failed"]
    assert STOPPED in after["lines"]


def test_the_answer_no_stops_a_rollout() -> None:
    after = summed_up(recorded(GOOD, waiting=("d",)), is_declined=True)
    assert after["stops"]
    assert after["problem"] == "It was stopped by the answer to the question after the canaries."
    assert after["lines"][-4:] == [
        "Rollout x stopped in wave 1 of 3: 1 changed, 1 not started. No later wave was started.",
        after["problem"],
        "Roll back: y",
        "Continue: z",
    ]


def test_a_rollback_that_changes_no_host_fails_and_names_the_rollouts_of_hosts() -> None:
    hosts = {"a": "later", "b": None, "c": "later", "d": "other"}
    rows = [
        rollout_state(host, 1, sent("1", rollout, changed=False), None, None, "Unchanged.")
        for host, rollout in hosts.items()
    ]
    texts = {"nothing": "No host has rollout x.", "way_back": []}
    after = summed_up(recorded(*rows), is_over=True, **texts)
    assert after["problem"] == "No host has rollout x."
    assert after["lines"][-5:] == [
        "Rollout x ended: 4 unchanged.",
        "No host has rollout x.",
        "Rollout later can be rolled back on: a, c",
        "Rollout other can be rolled back on: d",
        "No rollout can be rolled back on: b",
    ]
    assert summed_up(recorded(*rows, GOOD), is_over=True, **texts)["problem"] is None


def test_a_table_has_what_stops_a_rollout_first_and_its_columns_in_line() -> None:
    good = rollout_state("a-long-name", 1, {"changed": True}, info(device("a")), None, None)
    bad = rollout_state("b", 12, {"failed": True, "msg": "broken"}, None, None, None)
    header, *lines = summed_up(recorded(good, bad, waiting=("c",)))["lines"][:4]
    assert [line.split()[0] for line in lines] == ["b", "a-long-name", "c"]
    starts = [header.index(word) for word in ("WAVE", "OUTCOME", "DETAILS")]
    assert [lines[0][start:].split()[0] for start in starts] == ["12", "failed", "broken."]
    assert lines[2].split() == ["c", "-", "not", "started"]


def test_a_table_fits_a_terminal_and_has_hosts_that_are_alike_in_one_row() -> None:
    names = [f"board-{number}" for number in range(40)]
    good = [rollout_state(name, 1, {"changed": True}, info(), None, None) for name in names]
    long = {"failed": True, "msg": "/soc/crypto@b000000 " + "cannot be bound, " * 17}
    bad = rollout_state("broken", 2, long, None, None, None)
    waiting = tuple(f"later-{number}" for number in range(6))
    lines = summed_up(recorded(*good, bad, waiting=waiting))["lines"]
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 120
    start = table[0].index("DETAILS")
    details = [line[start:] for line in table[1:] if line.startswith(("broken", " "))]
    assert " ".join(details) == bad["message"]
    assert len(details) > 1
    others = [line.split("  ")[0] for line in table[len(details) + 1 :]]
    assert others == ["board-0 and 39 more", "later-0 and 5 more"]


def test_an_interruption_is_reported_with_the_name_and_the_hosts_that_are_open() -> None:
    hostvars = recorded(GOOD, begun=("e", "f"), waiting=("d",))
    assert report(list(hostvars), hostvars) == [
        "",
        "Rollout x was interrupted in wave 2 of 3: 1 changed, 1 not started.",
        "Hosts that may have been changed: e, f",
        "Roll back: y",
        "Continue: z",
    ]
    waiting = recorded(waiting=("a", "b"))
    assert report(["a", "b"], waiting)[1] == (
        "Rollout x was interrupted before its first wave: 2 not started."
    )
    del waiting["a"]["rollout_texts"]
    assert report(["a", "b"], waiting)


def test_an_interruption_tells_hosts_with_their_list_from_those_that_may_have_it() -> None:
    hostvars = recorded(GOOD, begun=("e", "f", "g", "h"), waiting=("d",))
    hostvars["e"]["passthrough_applied"] = {"changed": True, "devices": []}
    hostvars["f"]["passthrough_applied"] = {"failed": True, "msg": "its disk is full"}
    hostvars["g"]["passthrough_applied"] = {"unreachable": True, "msg": "No route to host"}
    totals = "1 failed, 1 unreachable, 1 changed, 1 not started"
    assert report(list(hostvars), hostvars)[1:5] == [
        f"Rollout x was interrupted in wave 2 of 3: {totals}.",
        "Hosts that failed: f, g",
        "Hosts with their list, whose devices were not read back: e",
        "Hosts that may have been changed: h",
    ]
    rows = {row["host"]: row for row in states(list(hostvars), hostvars)}
    assert [rows[host]["outcome"] for host in "efgh"] == [
        "failed",
        "failed",
        "unreachable",
        "failed",
    ]
    assert rows["f"]["message"] == "its disk is full."
    # A host that failed with the sentence of one without a result has failed.
    row = {**rows["h"], "host": "i"}
    ended = {**hostvars, "i": {**hostvars["h"], "rollout_row": row}}
    lines = report(list(ended), ended)
    assert {"Hosts that failed: f, g, i", "Hosts that may have been changed: h"} <= {*lines}
    # In check mode no list was applied.
    hostvars["e"]["rollout_texts"] = {**hostvars["e"]["rollout_texts"], "is_check": True}
    assert "Hosts that may have been changed: e, h" in report(list(hostvars), hostvars)


def test_what_was_reported_is_no_interruption() -> None:
    hostvars = recorded(GOOD, waiting=("d",))
    hostvars["a"]["rollout_is_reported"] = True
    assert report(list(hostvars), hostvars) == []
    assert report(["x"], {"x": {}}) == []


@pytest.mark.parametrize(
    ("names", "end"),
    [
        (["r1"], "in sync: one device."),
        (["r3", "r2", "r1"], "in sync: one device. Rolled back with it: r3, r2."),
        ([], "in sync: one device."),
    ],
)
def test_a_host_names_the_rollouts_that_were_rolled_back_with_the_one_that_was_named(
    names: list[str], end: str
) -> None:
    applied = {"changed": True, "rolled_back": names}
    row = result_of(applied, info(device("a")), None, "It did not change it.")
    assert row[1].endswith(end)
    assert "with it" not in result_of({"failed": True, "msg": "no", "rolled_back": names})[1]
