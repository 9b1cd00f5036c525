# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of a fleet is read on one screen, kept in a file, and applied as it is or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.playbook import Run, play, rows
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

GONE = {"simulated": {"gone": {"ansible_host": "/nowhere/gone"}}}


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Fleet]:
    plans = alike(tmp_path, ("a", "b", "c"), PARTS, DRIVERS)
    with fleet(tmp_path, plans, VARIABLES, GONE) as running:
        yield running


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    done = play(boards.inventory, f"armfleet.vfio.{playbook}", *arguments, variables=variables)
    assert "Traceback" not in done.output
    return done


def outcomes(done: Run) -> dict[str, str]:
    return {name: row.outcome for name, row in rows(done).items()}


def test_a_plan_is_kept_and_only_that_is_applied(boards: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    given = {"passthrough_hosts": "a,b,c", "plan_file": str(file)}
    made = run(boards, "plan", **given, passthrough_rollout="as-planned")
    assert made.code == 0, made.output
    assert set(made.changed.values()) == {0}
    assert set(boards.on_vfio().values()) == {0}
    assert file.stat().st_mode & 0o7777 == 0o600
    assert "Plan: 3 hosts to change. Nothing was changed." in made.output

    moved = run(boards, "apply", passthrough_hosts="b", passthrough_runtime=False)
    assert moved.code == 0, moved.output
    plan = {"passthrough_plan": str(file), "rollout_waves": "100%", "passthrough_hosts": "a,b"}
    preview = run(boards, "rollout", "--check", **plan)
    assert outcomes(preview) == {"a": "would change", "b": "failed"}
    assert boards.on_vfio()["a"] == 0
    done = run(boards, "rollout", **plan)
    assert done.code == 2
    assert "Rollout as-planned" in done.output
    assert outcomes(done) == {"a": "changed", "b": "failed"}
    assert "not as it was when the plan was made" in rows(done)["b"].sentence
    assert boards.on_vfio()["a"] > 0
    assert boards.on_vfio()["b"] == 0

    plan["passthrough_hosts"] = "c"
    other = run(boards, "rollout", **plan, passthrough_devices=[])
    assert outcomes(other) == {"c": "failed"}
    assert "the list or its options changed" in rows(other)["c"].sentence
    plan["passthrough_hosts"] = "a,c"
    again = run(boards, "rollout", **plan)
    assert again.code == 0, again.output
    assert outcomes(again) == {"a": "unchanged", "c": "changed"}


def test_a_plan_counts_hosts_that_have_none_and_a_rollout_of_it_refuses_them(
    boards: Fleet, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    made = run(boards, "plan", passthrough_hosts="a,gone", plan_file=str(file))
    assert made.code != 0
    assert "Plan: 1 host to change, 1 unreachable. Nothing was changed." in made.output
    assert list(json.loads(file.read_text())["hosts"]) == ["a", "gone"]
    done = run(
        boards,
        "rollout",
        passthrough_hosts="a,b",
        passthrough_plan=str(file),
        rollout_waves="100%",
    )
    assert outcomes(done) == {"a": "changed", "b": "failed"}
    assert "The plan has nothing for this host" in rows(done)["b"].sentence
    file.write_text(file.read_text().replace("to change", "unchanged"))
    edited = run(boards, "rollout", passthrough_hosts="a", passthrough_plan=str(file))
    assert edited.code == 2
    assert "was edited or is damaged" in edited.output
    missing = run(boards, "rollout", passthrough_hosts="a", passthrough_plan="/nowhere/plan")
    assert missing.code == 1
    assert "It must be the path of a plan file" in missing.output


def test_forty_like_boards_are_planned_in_forty_lines(tmp_path: Path) -> None:
    names = [f"board-{number}" for number in range(1, 41)]
    with fleet(tmp_path, alike(tmp_path, names, PARTS, DRIVERS), VARIABLES) as boards:
        made = run(boards, "plan", plan_boot_files=False)
        assert made.code == 0, made.output
        (lines,) = [task.result["lines"] for task in made.tasks if task.task == "Show the plan"]
        assert lines[0].startswith("40 hosts: ")
        assert lines[-1] == "Plan: 40 hosts to change. Nothing was changed."
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 120
