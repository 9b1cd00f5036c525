# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A variable of a playbook has a valid value, or is refused with a message."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    meaning_of,
    problem_of,
    problems_of,
    result_files,
)

VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "rollout_waves": (
        [
            *(1, 5, "5", "1%", "100%", [1], [1, "10%", "50%", "100%"], ["3", 2], [10**6]),
            *(None, "", " ", "1,2", "1,10%", '[1, "10%"]', [" 1"], ["1 %"]),
        ],
        [
            *([], [0], [-1], 0, -1, "abc", ["abc"], "0%", ["0%"], ["101%"], ["-5%"], "[]", ","),
            *(["%"], ["10.5%"], "1,abc", [[1]], [None], [""], [1.5], 1.0, [True], True, {"a": 1}),
            *({}, [1, 0, "100%"], ["\uff11"], ["1%%"], ["+1"], [float("nan")], "1,0", "null"),
        ],
    ),
    "rollout_max_failures": (
        [0, 3, "0", "12", "", None, " 1", "10%", "0%", "100 %"],
        [-1, "-1", "one", "101%", "%", True, False, 1.5, [1], {}, "\u0663"],
    ),
    "rollout_soak": (
        [0, 600, "600", "", None, "90s", "10m", "10 min", "1h"],
        [-1, "-1", "soon", "1d", "m", True, 0.5, [600], {}],
    ),
    "rollout_confirm": (
        [True, False, "true", "False", "yes", "no", "on", "off", "", None, 0, 1],
        ["maybe", 2, [], {}, 1.5],
    ),
    "passthrough_rollout": (
        [
            *("a", "crypto-v3", "2026.1_x:+", "x" * 64, 5, "", " ", None, " a ", "a\n"),
            date(2026, 11, 29),
        ],
        [
            *("x" * 65, "-a", "a b", "../x", "a/b", "ä", True, ["a"], {}, 1.5, -1, "a\nb"),
            datetime(2026, 11, 29, 3, tzinfo=timezone.utc),
        ],
    ),
    "reboot_timeout": (
        [1, 600, "600", "10m", "", None],
        [0, -5, "soon", "0", True, 0.5, []],
    ),
    "drift_fail_outdated": ([True, "yes", "off", "", None], ["maybe", 2, [], {}]),
    "drift_accepted": (
        [
            *([], ["reboot_required"], "drift", "drift,failed", "drift\nfailed\n", "", None, "[]"),
            ["drift", "failed", "unreachable", "unmanaged", "in_sync"],
        ],
        [
            "rebot",
            "drift,rebot",
            ["rebot"],
            [None],
            ["reboot_required", 1],
            {"reboot_required": 1},
            True,
            [["reboot_required"]],
        ],
    ),
    "report_formats": (
        [["html"], ["csv", "json", "prometheus"], "csv", "csv, json", '["csv"]', "", None],
        [[], "[]", "pdf", "csv,pdf", ["pdf"], ["csv", None], {"csv": 1}, 1],
    ),
    "report_title": (["Boards", "0"], [None, "", " ", {}, [], 5]),
    "report_mode": (
        ["0600", "644", "u=rw,g=r", "+r"],
        [640, 644, 416, 0o1777, "rw", "", None, "999", "06", True, ["0644"], "0644\n"],
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_valid_or_gets_a_sentence(name: str) -> None:
    valid, wrong = VALUES[name]
    assert [problem_of(name, value) for value in valid] == [None] * len(valid)
    for value in wrong:
        problem = problem_of(name, value)
        assert problem is not None, value
        assert problem.startswith(f"{name} is ")
        assert ". It must be " in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("rollout_waves", "", [1, "10%", "50%", "100%"]),
        ("rollout_waves", None, [1, "10%", "50%", "100%"]),
        ("rollout_waves", 5, [5]),
        ("rollout_waves", " 5 ", [5]),
        ("rollout_waves", "1,10%", [1, "10%"]),
        ("rollout_waves", "1, 10 %; 100%", [1, "10%", "100%"]),
        ("rollout_waves", "1\n10%\n", [1, "10%"]),
        ("rollout_waves", "[1, \"10%\", '100%']", [1, "10%", "100%"]),
        ("rollout_waves", ["3", 2, "50 %"], [3, 2, "50%"]),
        ("rollout_waves", "abc", ["abc"]),
        ("rollout_max_failures", "", 0),
        ("rollout_max_failures", " 3 ", 3),
        ("rollout_max_failures", "10 %", "10%"),
        ("rollout_soak", "", 0),
        ("rollout_soak", "90", 90),
        ("rollout_soak", "10m", 600),
        ("rollout_soak", "2 h", 7200),
        ("rollout_confirm", "", True),
        ("rollout_confirm", "No", False),
        ("passthrough_rollout", "", None),
        ("passthrough_rollout", " crypto-v3\n", "crypto-v3"),
        ("passthrough_rollout", 5, "5"),
        ("passthrough_rollout", date(2026, 11, 29), "2026-11-29"),
        ("reboot_timeout", "10m", 600),
        ("reboot_timeout", None, 600),
        ("drift_file", "", ""),
        ("rollout_results", "", []),
        ("rollout_results", None, []),
        ("rollout_results", "a.json", ["a.json"]),
        ("drift_results", "a.json, b.xml", ["a.json", "b.xml"]),
        ("drift_results", '["a.json"]', ["a.json"]),
        ("drift_results", ["a.xml"], ["a.xml"]),
        ("rollout_retry_file", " ", None),
        ("drift_retry_file", "failed", "failed"),
        ("drift_accepted", "drift", ["drift"]),
        ("drift_accepted", "drift, 'failed'", ["drift", "failed"]),
        ("drift_accepted", "", []),
        ("report_formats", "csv,json", ["csv", "json"]),
        ("report_formats", '["csv"]', ["csv"]),
        ("report_formats", None, ["html", "json", "csv", "prometheus"]),
    ],
)
def test_a_text_means_what_a_person_means_by_it(name: str, value: Any, meaning: Any) -> None:
    assert meaning_of(name, value) == meaning


def test_a_result_goes_to_a_file_in_a_directory_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dangling").symlink_to("later")
    (tmp_path / "directory").mkdir()
    valid = ["old", "new", "link", "dangling", "directory/new"]
    wrong = ["directory", "nowhere/new", "old/new", "new/", ""]
    assert [problem_of("drift_file", f"{tmp_path}/{name}") for name in valid] == [None] * 5
    assert None not in [problem_of("drift_file", f"{tmp_path}/{name}") for name in wrong]
    others = [None, 5, [], "", " ", "a\0b", "/dev/null", True]
    assert None not in [problem_of("drift_file", value) for value in others]


@pytest.mark.parametrize("name", ["rollout_results", "drift_results"])
def test_results_go_to_files_whose_names_have_their_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "inventory.yml").write_text("")
    (tmp_path / "directory.json").mkdir()
    base = str(tmp_path)
    valid = [f"{base}/a.json", f"{base}/a.json,{base}/a.xml", [f"{base}/a.xml"], [], "", None]
    assert [problem_of(name, value) for value in valid] == [None] * 6
    wrong = [f"{base}/inventory.yml", f"{base}/directory.json", f"{base}/nowhere/a.json"]
    assert None not in [problem_of(name, value) for value in [*wrong, 5, [5], {}, "[", "a.json,"]]
    assert result_files({name: f"{base}/a.json", "drift_file": f"{base}/b"}) == [f"{base}/a.json"]
    assert result_files({name: f"{base}/inventory.yml"}) == []


def test_a_report_goes_to_a_directory_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    valid = ["", "new", "new/below"]
    assert [problem_of("report_path", f"{tmp_path}/{name}") for name in valid] == [None] * 3
    wrong = [f"{tmp_path}/file", f"{tmp_path}/file/new", None, "", 5, []]
    assert None not in [problem_of("report_path", value) for value in wrong]


def test_values_are_those_of_all_hosts() -> None:
    names = ["rollout_max_failures", "reboot_timeout"]
    unset: dict[str, Any] = {"a": {}, "b": {}}
    assert problems_of(["a", "b"], unset, names) == []
    slow = {"a": {}, "b": {"reboot_timeout": 900}}
    assert problems_of(["a", "b"], slow, names) == []
    (several,) = problems_of(["a", "b"], {"a": {}, "b": {"rollout_max_failures": 1}}, names)
    assert several == "rollout_max_failures must be the same for all hosts. Give it with `-e`."
    (of_one,) = problems_of(["a", "b"], {"a": {}, "b": {"reboot_timeout": 0}}, names)
    assert of_one.startswith("reboot_timeout is 0. It must be a number of seconds, 1 or more")
    assert of_one.endswith(" (b)")
    same = {"a": {"rollout_max_failures": ""}, "b": {"rollout_max_failures": "0"}, "c": {}}
    assert problems_of(["a", "b", "c"], same, names) == []
    (of_all,) = problems_of(["a"], {"a": {"rollout_max_failures": -1}}, names)
    assert of_all.startswith("rollout_max_failures is -1. ")
    assert not of_all.endswith("(a)")


def test_a_value_is_shown_in_printable_characters() -> None:
    problem = problem_of("rollout_max_failures", "\x9b31m\u202e")
    assert problem is not None
    assert problem.startswith('rollout_max_failures is "\\x9b31m\\u202e".')
