# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that are meant for hosts do not reach the files that a run writes on this machine."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.playbook import Run, play
from tests.matrix.test_role import BOARDS, DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

NOWHERE = {"ansible_python_interpreter": "/nowhere/python3.99"}
# By `-e`, these precede what a task has for the control node.
GIVEN: dict[str, dict[str, Any]] = {
    "interpreter": NOWHERE,
    "other interpreter": {"ansible_python_interpreter": "/usr/bin/python3"},
    "become": {
        "ansible_become": True,
        "ansible_become_user": "nobody",
        "ansible_become_exe": "/bin/false",
    },
}
REPORT = ["report.csv", "report.html", "report.json", "report.prom"]


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("files")
    with fleet(directory, alike(directory, BOARDS, PARTS, DRIVERS), VARIABLES) as running:
        yield running


def run(boards: Fleet, playbook: str, **variables: Any) -> Run:
    done = play(boards.inventory, f"armfleet.vfio.{playbook}", variables=variables)
    assert "Traceback" not in done.output
    assert set(done.changed.values()) == {0}
    return done


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_given_for_hosts_is_not_for_the_files_of_drift(
    boards: Fleet, tmp_path: Path, given: str
) -> None:
    (tmp_path / "drift.jsonl").write_text("old\n")
    files = {
        "drift_file": str(tmp_path / "drift.jsonl"),
        "drift_results": str(tmp_path / "drift.xml"),
        "drift_retry_file": str(tmp_path / "failed"),
    }
    run(boards, "drift", **GIVEN[given], **files)
    states = {line["host"]: line["state"] for line in rows(tmp_path / "drift.jsonl")}
    assert set(states) == set(BOARDS)
    assert set(states.values()) == {"outdated" if given == "other interpreter" else "failed"}
    assert stat.S_IMODE((tmp_path / "drift.jsonl").stat().st_mode) == 0o644
    assert (tmp_path / "drift.xml").exists()
    assert (tmp_path / "failed").exists() == (given != "other interpreter")


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_given_for_hosts_is_not_for_plans_and_reports(
    boards: Fleet, tmp_path: Path, given: str
) -> None:
    run(boards, "plan", **GIVEN[given], plan_file=str(tmp_path / "plan.json"))
    outcomes = json.loads((tmp_path / "plan.json").read_text())["hosts"]
    assert {name: host["outcome"] for name, host in outcomes.items()} == dict.fromkeys(
        BOARDS, "to change" if given == "other interpreter" else "refused"
    )
    assert stat.S_IMODE((tmp_path / "plan.json").stat().st_mode) == 0o600
    report = tmp_path / "report"
    done = run(boards, "report", **GIVEN[given], report_path=str(report), report_mode="u=rw,g=r")
    assert done.code == 0, done.output
    assert sorted(path.name for path in report.iterdir()) == REPORT
    assert {stat.S_IMODE(path.stat().st_mode) & 0o770 for path in report.iterdir()} == {0o640}


def test_what_is_given_for_hosts_is_not_for_the_results_of_a_rollout(
    boards: Fleet, tmp_path: Path
) -> None:
    files = {
        "rollout_results": f"{tmp_path}/rollout.json,{tmp_path}/rollout.xml",
        "rollout_retry_file": str(tmp_path / "failed"),
    }
    done = run(boards, "rollout", **NOWHERE, **files, rollout_waves="100%")
    assert done.code == 2
    assert json.loads((tmp_path / "rollout.json").read_text())["totals"] == {"failed": 2}
    assert (tmp_path / "rollout.xml").exists()
    assert (tmp_path / "failed").read_text().split() == list(BOARDS)


def test_what_the_inventory_has_for_all_is_not_for_the_control_node(
    boards: Fleet, tmp_path: Path
) -> None:
    variables = boards.inventory.parent / "group_vars/all.yml"
    variables.parent.mkdir()
    variables.write_text(json.dumps({**NOWHERE, "ansible_remote_tmp": "/nowhere"}))
    (tmp_path / "drift.jsonl").write_text("old\n")
    run(boards, "drift", drift_file=str(tmp_path / "drift.jsonl"))
    variables.unlink()
    assert len(rows(tmp_path / "drift.jsonl")) == len(BOARDS)


def test_the_plan_of_one_host_is_json(boards: Fleet, tmp_path: Path) -> None:
    """ansible-core before 2.19 makes a mapping of a text that looks like one."""
    for playbook in ("plan", "drift"):
        files = {"plan_file": f"{tmp_path}/plan.json", "drift_file": f"{tmp_path}/drift.jsonl"}
        done = run(boards, playbook, passthrough_hosts="one", **files)
        assert done.code == 0, done.output
    assert list(json.loads((tmp_path / "plan.json").read_text())["hosts"]) == ["one"]
    assert [row["host"] for row in rows(tmp_path / "drift.jsonl")] == ["one"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
