# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The history of a fleet is rendered from the answers of its hosts, which are data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_samples import CRYPTO, DMA, SERIAL, call, information, sample_board

from ansible_collections.armfleet.vfio.plugins.filter.rollout_history import rollout_history
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._rollout_history import WIDTH

DIGEST = "80f0de075efff840" * 4


def record(name: str, state: str = "applied", **values: Any) -> dict[str, Any]:
    changed = {"device": "/soc/x", "before": "acme", "after": "vfio-platform"}
    return {
        "name": name,
        "state": state,
        "time": "2026-11-29T06:12:55Z",
        "user": "alice@control",
        "digest": DIGEST,
        "changed_devices": [changed, changed],
        "more_devices": 0,
        "rolled_back": None,
        **values,
    }


def answer(*records: Mapping[str, Any]) -> dict[str, Any]:
    return {"devices": [], "rollouts": list(records)}


def shown(results: Mapping[str, Any]) -> Any:
    hostvars = {host: {"result": result} for host, result in results.items()}
    return rollout_history(list(results), hostvars, "result")


def test_rollouts_are_grouped_and_the_newest_comes_first() -> None:
    earlier = {"time": "2026-11-28T10:00:00Z", "user": "bob@control"}
    results = {
        **{
            f"board-{number}": answer(record("crypto-v3"), record("base", "overtaken", **earlier))
            for number in range(1, 8)
        },
        "board-8": answer(
            record("crypto-v3", "rolled_back"), record("base", digest="f" * 64, **earlier)
        ),
        "board-9": answer(record("crypto-v3", "replaced")),
        "new": answer(),
        "gone": {"unreachable": True, "msg": "ssh: connect: No route to host"},
        "unasked": None,
    }
    assert shown(results)["lines"] == [
        "ROLLOUT    TIME (UTC)        BY             DIGEST        HOSTS  DEVICES",
        "crypto-v3  2026-11-29 06:12  alice@control  80f0de075eff  9      18",
        "  newest on board-1, board-2, board-3, board-4, board-5 and 2 more",
        "  newest, but replaced by a run without a rollout, on board-9",
        "  rolled back on board-8",
        "base       2026-11-28 10:00  bob@control    2 lists       8      16",
        "  newest on board-8",
        "  overtaken on board-1, board-2, board-3, board-4, board-5 and 2 more",
        "Without a rollout: new",
        *shown({"gone": results["gone"]})["lines"],
        "unasked: It was not read: the run ended before it or skipped it.",
    ]
    assert "No route to host" in "".join(shown({"gone": results["gone"]})["lines"])


def test_programs_get_all_of_it() -> None:
    result = shown({"a": answer(record("r1", more_devices=3)), "b": answer(), "c": {}})
    (rollout,) = result["rollouts"]
    assert rollout["devices"] == 5
    assert (rollout["users"], rollout["digests"]) == (["alice@control"], [DIGEST])
    assert rollout["hosts"] == [{"host": "a", **record("r1", more_devices=3)}]
    assert (result["without"], [host["host"] for host in result["unread"]]) == (["b"], ["c"])
    assert json.loads(json.dumps(result)) == result


def test_a_host_that_was_not_read_has_the_reason() -> None:
    message = "It was not read: the run ended before it or skipped it."
    assert shown({"c": {}})["unread"] == [{"host": "c", "message": message}]


def test_a_host_counts_by_its_last_record_of_a_name() -> None:
    result = shown(
        {"a": answer(record("r1"), record("r2", "overtaken"), record("r1", "overtaken"))}
    )
    assert [(past["name"], len(past["hosts"])) for past in result["rollouts"]] == [
        ("r1", 1),
        ("r2", 1),
    ]
    assert result["rollouts"][0]["hosts"][0]["state"] == "applied"


def test_the_clocks_of_some_hosts_do_not_order_rollouts() -> None:
    late, early = {"time": "2099-01-01T00:00:00Z"}, {"time": "1970-01-01T00:00:00Z"}
    results = {
        "a": answer(record("r2"), record("r1", time="2026-11-01T00:00:00Z")),
        "b": answer(record("r2"), record("r1", time="2026-11-01T00:00:00Z")),
        "c": answer(record("r2", **early), record("r1", **late)),
        "d": answer(record("r0", time=None)),
    }
    assert [past["name"] for past in shown(results)["rollouts"]] == ["r2", "r1", "r0"]


def test_long_texts_fit_a_terminal() -> None:
    results = {
        "h" * 70 + str(number): answer(record("n" * 64, user="u" * 64, digest=str(number) * 64))
        for number in range(9)
    }
    results["x" * 130] = answer()
    lines = shown(results)["lines"]
    assert lines[1].startswith("n" * 64 + "  2026-11-29 06:12  uuu")
    assert max(len(line) for line in lines if "x" * 119 not in line) <= WIDTH


EVIL = "\x1b[2J\u202e\n"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("name", EVIL, "rollouts has an invalid name or state"),
        ("name", "{{ 1 // 0 }}", "rollouts has an invalid name or state"),
        ("state", "fine", "rollouts has an invalid name or state"),
        ("name", 5, "rollouts[0].name is not a string"),
        ("user", "x" * 65, "rollouts[0].user has more than 64 characters"),
        ("more_devices", -1, "rollouts[0].more_devices is not between"),
        ("changed_devices", {}, "rollouts[0].changed_devices is not a list"),
        ("rolled_back", [], "rollouts[0].rolled_back is no mapping"),
    ],
)
def test_a_malformed_answer_is_a_line(key: str, value: Any, reason: str) -> None:
    lines = shown({"evil": answer({**record("r1"), key: value}), "good": answer(record("r1"))})
    (line,) = [line for line in lines["lines"] if line.startswith("evil: ")]
    assert reason in line
    assert [past["name"] for past in lines["rollouts"]] == ["r1"]
    many = shown({"evil": answer(*[record("r1")] * 11)})["unread"]
    assert "rollouts has more than 10 items" in many[0]["message"]


def test_what_a_host_chose_is_shown_in_printable_characters() -> None:
    result = answer(record("r1", user=EVIL, time=EVIL, digest=EVIL))
    lines = shown(
        {
            "evil": _answers.Record({"rollouts": _answers.DEVICE_INFO["rollouts"]}).read(result, "")
            | {"devices": []}
        }
    )["lines"]
    assert all(line.isprintable() for line in [*lines, *shown({"evil": result})["lines"]])
    assert lines[1].startswith("r1       -           ")


def test_a_history_that_cannot_be_read_has_the_reason() -> None:
    sentence = "/var/lib/armfleet-vfio/previous.json cannot be parsed (x)"
    unread = {"devices": [], "rollouts": None}
    lines = shown({"a": {**unread, "rollouts_problem": sentence}, "b": unread})["lines"]
    assert f"a: Its history cannot be read: {sentence}" in lines[0]
    assert lines[-1] == "b: Its history cannot be read: device_info warns why."


def test_what_device_info_returns_is_a_history(tmp_path: Path) -> None:
    board = sample_board(tmp_path)
    for path, rollout in ((SERIAL, "r1"), (DMA, "r2"), (CRYPTO, "r3")):
        listed = [{"dt_path": path, "policy": "no_autobind"}]
        call(board, "host_policy", listed, rollout=rollout, rollout_by="alice@control")
        call(board, "host_policy", [], state="finished", rollout=rollout)
    call(board, "host_policy", [], state="previous", rollout="r3", rollout_by="bob@control")
    result = shown({"board": information(board)})
    assert [line.split()[0] for line in result["lines"]] == [
        *("ROLLOUT", "r3", "rolled", "r2", "newest", "r1", "overtaken")
    ]
    assert result["rollouts"][0]["hosts"][0]["rolled_back"]["user"] == "bob@control"
