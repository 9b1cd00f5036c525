# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each playbook prints of a host that cannot be reached, and what its recap counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.nightly import at_night
from tests.harness.playbook import Run, play
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

# A host's name, which nothing else in the output has.
GONE = "unplugged"
REASON = f"no simulated host runs in /nowhere/{GONE}"
# Each with its exit code if a host cannot be reached.
OFTEN = {"drift": 2, "rollout": 2, "plan": 2}
AT_NIGHT = {
    "apply": 4,
    "boards": 4,
    "candidates": 2,
    "history": 2,
    "reboot": 2,
    "release": 4,
    "report": 0,
    "rollback": 2,
}
READING = ("boards", "candidates", "drift", "history", "plan", "report")


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("output")
    gone = {"simulated": {GONE: {"ansible_host": f"/nowhere/{GONE}"}}}
    plans = alike(directory, ("one", "two"), PARTS, DRIVERS)
    with fleet(directory, plans, VARIABLES, gone) as running:
        yield running


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    # No host has anything of the name that is rolled back.
    names = {"rollout": "test", "rollback": "nothing"}
    given = {"passthrough_rollout": names[playbook]} if playbook in names else {}
    done = play(
        boards.inventory,
        f"armfleet.vfio.{playbook}",
        *arguments,
        variables={"rollout_waves": "100%", **given, **variables},
    )
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize("playbook", [*OFTEN, *at_night(*AT_NIGHT)])
def test_a_host_that_cannot_be_reached_takes_a_few_lines(boards: Fleet, playbook: str) -> None:
    done = run(boards, playbook)
    assert done.code == {**OFTEN, **AT_NIGHT}[playbook], done.output
    # When it happened, and in the table.
    assert done.output.count(REASON) <= 2
    assert len([line for line in done.output.splitlines() if GONE in line]) <= 16
    # From 2.19 on, ansible-core shows an error with the lines of its task: the one at the end.
    assert done.output.count("[ERROR]") <= 1
    for alarm in ("undefined", "has no attribute", "Error while", "conditional check"):
        assert alarm not in done.output


def test_several_hosts_that_cannot_be_reached_show_one_error(boards: Fleet, tmp_path: Path) -> None:
    more = tmp_path / "more.yml"
    more.write_text(
        "simulated:\n  hosts:\n"
        + "".join(f"    more-{number}: {{ansible_host: /nowhere/{GONE}}}\n" for number in range(4))
    )
    done = run(boards, "drift", f"--inventory={more}")
    assert done.code == 2
    assert done.output.count("[ERROR]") <= 1
    assert "Hosts that failed: " in done.output
    assert len(re.findall(r"^fatal: .*UNREACHABLE!", done.output, re.MULTILINE)) == 5


@pytest.mark.parametrize(
    ("playbook", "arguments"),
    [
        *((playbook, "") for playbook in READING),
        ("report", "--check"),
        ("plan", "--check --diff"),
        *at_night(
            *((playbook, "--check") for playbook in READING if playbook != "report"),
            *((playbook, "--check --diff") for playbook in READING if playbook != "plan"),
        ),
    ],
)
def test_a_run_that_only_reads_changes_nothing_in_the_recap(
    boards: Fleet, tmp_path: Path, playbook: str, arguments: str
) -> None:
    given = {"plan_file": str(tmp_path / "plan.json"), "drift_retry_file": str(tmp_path / "retry")}
    done = run(boards, playbook, *arguments.split(), passthrough_hosts="one,two", **given)
    assert done.code == 0, done.output
    assert done.changed == {"one": 0, "two": 0}
    assert "changed: [" not in done.output
    if playbook == "report":
        assert (tmp_path / "fleet-report").exists() == (not arguments)
        assert ("The report is in" in done.output) == (not arguments)
        assert ("Check mode: no report was written to" in done.output) == bool(arguments)
