# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A variable of a playbook has a valid value, or is refused with a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    problem_of,
    problems_of,
)

VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "rollout_waves": (
        [1, 5, "5", "1%", "100%", [1], [1, "10%", "50%", "100%"], ["3", 2], [10**6]],
        [
            *([], [0], [-1], 0, -1, None, "", "abc", ["abc"], "0%", ["0%"], ["101%"], ["-5%"]),
            *(["%"], ["10.5%"], "1,2", [[1]], [None], [1.5], 1.0, [True], True, {"a": 1}, {}),
            *([1, 0, "100%"], [" 1"], ["1 %"], ["\uff11"], ["1%%"], ["+1"], [float("nan")]),
        ],
    ),
    "rollout_max_failures": (
        [0, 3, "0", "12"],
        [-1, "-1", "one", "10%", "", None, True, False, 1.5, [1], {}, " 1", "\u0663"],
    ),
    "passthrough_rollout": (
        ["a", "crypto-v3", "2026.1_x:+", "x" * 64, 5],
        ["", None, "x" * 65, "-a", "a b", "../x", "a/b", "a\n", "ä", True, ["a"], {}, 1.5, -1],
    ),
    "reboot_timeout": ([1, 600, "600"], [0, -5, "soon", "10m", None, True, 0.5, []]),
    "drift_accepted": (
        [[], ["reboot_required"], ["drift", "failed", "unreachable", "unmanaged", "in_sync"]],
        [
            None,
            "reboot_required",
            ["rebot"],
            [None],
            ["reboot_required", 1],
            {"reboot_required": 1},
            True,
            [["reboot_required"]],
        ],
    ),
    "report_formats": (
        [["html"], ["csv", "json", "prometheus"]],
        [[], None, "csv", ["pdf"], ["csv", None], {"csv": 1}, 1],
    ),
    "report_title": (["Boards", "0"], [None, "", " ", {}, [], 5]),
    "report_mode": (
        ["0600", "644", "u=rw,g=r", "+r"],
        [644, "rw", "", None, "999", "06", True, ["0644"], "0644\n"],
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
    assert of_one == "reboot_timeout is 0. It must be a number of seconds, 1 or more. (b)"
    (of_all,) = problems_of(["a"], {"a": {"rollout_max_failures": -1}}, names)
    assert of_all.startswith("rollout_max_failures is -1. ")
    assert not of_all.endswith("(a)")


def test_a_value_is_shown_in_printable_characters() -> None:
    problem = problem_of("rollout_max_failures", "\x9b31m\u202e")
    assert problem is not None
    assert problem.startswith('rollout_max_failures is "\\x9b31m\\u202e".')
