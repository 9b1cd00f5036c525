# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks that are refused before any connection, with an exit code and one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.playbook import Run, play

PLAYBOOKS = sorted(path.stem for path in (Path(__file__).parents[2] / "playbooks").glob("*.yml"))
GROUPS = {
    "boards": {"hosts": {"a": {}, "b": {}, "c": {}}},
    "nobody": {"hosts": {}},
    "others": {"hosts": {"outside": {}, "switch": {}}},
}
RESULTS = ("report.html", "report.json", "report.csv", "report.prom")
LIST = {"passthrough_devices": [], "passthrough_rollout": "test"}

Refuse = Callable[..., Run]


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    """Run a playbook that must end with exit code 1, one sentence and no connection."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {tmp_path}/touched\nexit 255\n")
    ssh.chmod(0o755)
    variables = {"ansible_ssh_executable": str(ssh), "ansible_host": "127.0.0.1"}
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"children": GROUPS, "vars": variables}})
    )
    (tmp_path / "empty.yml").write_text("all: {}\n")

    def run(
        playbook: str,
        sentence: str,
        *arguments: str,
        inventory: str = "hosts.yml",
        code: int = 1,
        **given: Any,
    ) -> Run:
        done = play(
            tmp_path / inventory,
            f"armfleet.vfio.{playbook}",
            *arguments,
            variables={**LIST, "report_path": str(tmp_path), **given},
        )
        assert sentence in done.output.replace('\\"', '"')
        assert done.code == code
        assert "Traceback" not in done.output
        assert not (tmp_path / "touched").exists()
        return done

    return run


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_play_without_hosts_is_refused(refuse: Refuse, playbook: str) -> None:
    refuse(
        playbook,
        'passthrough_hosts has "bords", but the inventory has no such group or host.',
        passthrough_hosts="bords",
    )
    refuse(
        playbook,
        'passthrough_hosts is "boards", but `--limit outside` excludes all of its hosts.',
        "--limit=outside",
        passthrough_hosts="boards",
    )


@pytest.mark.parametrize("playbook", ["apply", "drift", "rollout"])
def test_an_empty_group_or_inventory_is_refused(refuse: Refuse, playbook: str) -> None:
    refuse(
        playbook,
        'passthrough_hosts is "nobody", which matches no host of the inventory.',
        passthrough_hosts="nobody",
    )
    refuse(playbook, "The inventory has no host.", inventory="empty.yml")


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("boards,bords", 'has "bords"'),
        (["boards", "web*"], 'has "web*", which matches no host'),
        ("boards[7]", "No hosts matched the subscripted pattern 'boards[7]'"),
        (None, "passthrough_hosts is null."),
    ],
)
def test_a_wrong_pattern_is_refused(refuse: Refuse, pattern: Any, sentence: str) -> None:
    refuse("apply", sentence, passthrough_hosts=pattern)


def test_a_limit_that_matches_nothing_ends_with_one_as_well(refuse: Refuse) -> None:
    # Ansible itself refuses this, before it reads the playbook.
    refuse("drift", "leaves us with no hosts to target", "--limit=nothing")


@pytest.mark.parametrize(
    ("canaries", "sentence"),
    [
        (["outside"], "that passthrough_hosts does not match: outside."),
        (["others"], "that passthrough_hosts does not match: outside, switch."),
        (["a", "cannary"], 'rollout_canaries has "cannary", but the inventory has no such'),
        (["nobody"], 'rollout_canaries has "nobody", which matches no host'),
        (["boards:&others"], 'rollout_canaries has "&others", but canaries must be'),
        ([None], "rollout_canaries is [null]."),
    ],
)
def test_canaries_are_hosts_of_the_rollout(refuse: Refuse, canaries: Any, sentence: str) -> None:
    refuse("rollout", sentence, passthrough_hosts="boards", rollout_canaries=canaries)


def test_canaries_are_hosts_that_are_rebooted(refuse: Refuse) -> None:
    sentence = "that passthrough_hosts does not match: outside."
    refuse("reboot", sentence, passthrough_hosts="boards", rollout_canaries=["outside"])


def test_a_limit_leaves_a_canary(refuse: Refuse) -> None:
    sentence = 'rollout_canaries is "a", but `--limit b,c` excludes all of these hosts.'
    refuse("rollout", sentence, "--limit=b,c", rollout_canaries=["a"])


@pytest.mark.parametrize(
    "waves",
    [[], [0], [-1], "abc", "0%", "1,10%,x", [[1]], [1.5], [True], [1, 0, "100%"]],
    ids=str,
)
def test_waves_have_hosts(refuse: Refuse, waves: Any) -> None:
    refuse("rollout", "It must be a number of hosts from 1, a percentage", rollout_waves=waves)


@pytest.mark.parametrize(
    ("playbook", "given"),
    [
        ("reboot", {"rollout_waves": [0], "rollout_max_failures": -1, "reboot_timeout": 0}),
        ("reboot", {"rollout_max_failures": "one", "reboot_timeout": "soon"}),
        ("rollout", {"rollout_max_failures": "101%", "passthrough_rollout": "a b"}),
        ("rollout", {"rollout_max_failures": True, "passthrough_rollout": "../x"}),
        ("rollout", {"rollout_soak": "soon", "rollout_confirm": "perhaps"}),
        ("rollback", {"passthrough_rollout": ["a"], "passthrough_rollback_overtaken": "perhaps"}),
        ("history", {"history_format": "xml"}),
        ("drift", {"drift_file": "/", "drift_accepted": ["rebot"]}),
        ("drift", {"drift_file": "/dev/null", "drift_accepted": "rebot"}),
        ("drift", {"drift_file": "/nowhere/drift.jsonl", "drift_accepted": 5}),
        (
            "report",
            {"report_path": "/dev/null/x", "report_formats": [], "report_mode": 644},
        ),
        ("report", {"report_formats": "pdf", "report_mode": "rw", "report_title": {}}),
    ],
    ids=str,
)
def test_wrong_values_are_refused_all_at_once(
    refuse: Refuse, playbook: str, given: dict[str, Any]
) -> None:
    first, *others = [
        f"{name} is {json.dumps(value)}. It must be " for name, value in given.items()
    ]
    done = refuse(playbook, first, **given)
    assert all(sentence in done.output for sentence in others)


@pytest.mark.parametrize(
    ("playbook", "variables", "sentence"),
    [
        ("rollout", {"rollout_max_failures": -1}, "rollout_max_failures is -1."),
        ("reboot", {"reboot_timeout": "soon"}, 'reboot_timeout is "soon".'),
        ("drift", {"drift_accepted": ["rebot"]}, 'drift_accepted is ["rebot"].'),
        ("report", {"report_mode": 644}, "report_mode is 644."),
    ],
)
def test_a_wrong_value_of_a_group_is_refused(
    refuse: Refuse, tmp_path: Path, playbook: str, variables: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/boards.yml").write_text(yaml.safe_dump(variables))
    refuse(playbook, sentence, code=2, passthrough_hosts="boards")
    refuse(playbook, sentence, code=2)


def test_a_rollback_is_of_the_list_before(refuse: Refuse) -> None:
    sentence = "passthrough_state was given on the command line"
    refuse("rollback", sentence, code=2, passthrough_state="present")
    refuse("rollback", "Give its name with -e", code=2, passthrough_rollout="")


def test_what_is_for_all_hosts_has_one_value(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/b.yml").write_text("rollout_max_failures: 1\n")
    sentence = "rollout_max_failures must be the same for all hosts. Give it with `-e`."
    refuse("rollout", sentence, code=2)


@pytest.mark.parametrize("playbook", ["rollout", "rollback", "reboot"])
def test_a_part_of_a_rollout_is_refused(refuse: Refuse, playbook: str) -> None:
    start = "`--start-at-task` skips tasks that this playbook requires."
    done = refuse(playbook, start, "--start-at-task=Apply the list", "--tags=boards")
    assert "`--tags boards` selects no task of this playbook" in done.output
    refuse(
        playbook,
        "Variable serial has no effect, because it is a keyword of plays. Omit it, and set "
        "`rollout_waves`.",
        serial=1,
    )


@pytest.mark.parametrize("keyword", ["strategy", "any_errors_fatal", "max_fail_percentage"])
def test_a_keyword_is_no_variable_of_a_rollout(refuse: Refuse, keyword: str) -> None:
    refuse("rollout", f"Variable {keyword} has no effect", **{keyword: "free"})


def test_problems_are_reported_together(refuse: Refuse) -> None:
    done = refuse("rollout", 'has "bords"', passthrough_hosts="bords", rollout_waves=[0])
    assert "rollout_waves is [0]." in done.output


def test_results_of_an_earlier_run_are_removed(refuse: Refuse, tmp_path: Path) -> None:
    for name in ("drift.jsonl", *RESULTS):
        (tmp_path / name).write_text("old\n")
    (tmp_path / "notes").write_text("of somebody\n")
    drift = {"drift_file": str(tmp_path / "drift.jsonl")}
    refuse("drift", 'has "bords"', passthrough_hosts="bords", **drift)
    assert not (tmp_path / "drift.jsonl").exists()
    refuse("report", 'has "bords"', passthrough_hosts="bords")
    assert not any((tmp_path / name).exists() for name in RESULTS)
    assert (tmp_path / "notes").exists()


def test_drift_removes_earlier_results_before_it_checks_the_inventory(
    refuse: Refuse, tmp_path: Path
) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/boards.yml").write_text("drift_accepted: [rebot]\n")
    (tmp_path / "drift.jsonl").write_text("old\n")
    drift = {"drift_file": str(tmp_path / "drift.jsonl")}
    refuse("drift", 'drift_accepted is ["rebot"]', code=2, **drift)
    assert not (tmp_path / "drift.jsonl").exists()


def test_no_directory_is_removed(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "kept/below").mkdir(parents=True)
    settings = {"drift_file": str(tmp_path / "kept")}
    (tmp_path / "group_vars/all.yml").write_text(yaml.safe_dump(settings))
    refuse("drift", "It must be the path of a file", code=2)
    refuse("drift", "It must be the path of a file", **settings)
    assert (tmp_path / "kept/below").is_dir()


@pytest.mark.parametrize("option", ["--syntax-check", "--list-tasks", "--list-tags"])
def test_what_runs_nothing_needs_no_inventory(refuse: Refuse, option: str) -> None:
    refuse("rollout", "playbook: ", option, inventory="empty.yml", code=0)
