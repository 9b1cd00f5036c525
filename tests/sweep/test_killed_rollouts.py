# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout over 40 boards whose control node is killed twice, continued, and rolled back.

There are 200 boards in make nightly, and a second rollout before the roll-back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.playbook import Run, play
from tests.harness.started_playbook import StartedPlaybook
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet, on_vfio

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

BOARDS, BOARDS_AT_NIGHT = 40, 200
NAME = "crypto-v3"
LISTED = 2
# The default of Ansible.
FORKS = 5
SHORT = VARIABLES["passthrough_devices"][:1]
OLD = "of an earlier run\n"


class Rollout:
    """A rollout over all boards: a tenth of them, then the others."""

    def __init__(self, boards: Fleet, directory: Path, runs: contextlib.ExitStack) -> None:
        self.boards = boards
        self.directory = directory
        self._runs = runs
        self.names = list(boards.boards)
        self.first = len(self.names) // 10
        self.results, self.retry = directory / "results.json", directory / "failed"
        self.variables = {
            "passthrough_rollout": NAME,
            "rollout_waves": [self.first, "100%"],
            "rollout_results": str(self.results),
            "rollout_retry_file": str(self.retry),
        }

    def changed(self) -> set[str]:
        return {name for name, number in self.boards.on_vfio().items() if number}

    def has_list(self, name: str) -> bool:
        return len(on_vfio(self.boards.boards[name])) == LISTED

    def killed_in_wave_two(self, number: signal.Signals) -> tuple[int, str]:
        """Return the exit status and the output; files of an earlier run are there before it."""
        for path in (self.results, self.retry):
            path.write_text(OLD)
        before = self.changed()
        later = [name for name in self.names[self.first :] if name not in before]
        run = StartedPlaybook(
            self.boards.inventory, "armfleet.vfio.rollout", self.directory, **self.variables
        )
        self._runs.callback(run.close)
        # Those of one fork more: a board is done then, while others are not.
        run.wait_until(lambda: sum(1 for name in later if self.has_list(name)) > FORKS)
        return run.end(number, whole_group=False), run.output

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {row["host"]: row for row in json.loads(self.results.read_text())["hosts"]}

    def run(self, playbook: str, **variables: Any) -> Run:
        done = play(self.boards.inventory, f"armfleet.vfio.{playbook}", variables=variables)
        assert "Traceback" not in done.output
        assert done.code == 0, done.output
        return done


@pytest.fixture
def rollout(tmp_path: Path, depth: str) -> Iterator[Rollout]:
    number_of_boards = BOARDS_AT_NIGHT if depth == "nightly" else BOARDS
    names = [f"board-{number:03}" for number in range(1, number_of_boards + 1)]
    plans = alike(tmp_path, names, PARTS, DRIVERS)
    with fleet(tmp_path, plans, VARIABLES) as boards, contextlib.ExitStack() as runs:
        yield Rollout(boards, tmp_path, runs)


def test_a_fleet_whose_rollout_is_killed_twice_is_continued_and_rolled_back(
    rollout: Rollout, depth: str
) -> None:
    code, output = rollout.killed_in_wave_two(signal.SIGINT)
    assert code == 99
    assert_interruption_is_reported(rollout, output)

    code, output = rollout.killed_in_wave_two(signal.SIGKILL)
    assert code == -signal.SIGKILL
    # Nothing could report it, so that there are no results, neither of it nor of another run.
    assert not rollout.results.exists()
    assert not rollout.retry.exists()
    assert (
        f"Roll back: ansible-playbook armfleet.vfio.rollback -e passthrough_rollout={NAME}"
        in (output[: output.index("Number the wave")])
    )

    rollout.run("rollout", **rollout.variables)
    assert rollout.boards.on_vfio() == dict.fromkeys(rollout.names, LISTED)
    assert {row["outcome"] for row in rollout.rows().values()} <= {"changed", "unchanged"}
    assert not rollout.retry.exists()

    back = {"passthrough_rollout": NAME}
    if depth == "nightly":
        later = {"passthrough_rollout": "later", "passthrough_devices": SHORT}
        rollout.run("rollout", rollout_waves="100%", **later)
        assert rollout.boards.on_vfio() == dict.fromkeys(rollout.names, 1)
        back["passthrough_rollback_overtaken"] = "true"
    rollout.run("rollback", **back)
    assert rollout.boards.on_vfio() == dict.fromkeys(rollout.names, 0)


def assert_interruption_is_reported(rollout: Rollout, output: str) -> None:
    assert "Traceback" not in output
    end = output[output.index("User interrupted") :]
    assert f"Rollout {NAME} was interrupted in wave 2 of 2: {rollout.first} changed." in end
    assert f"armfleet.vfio.rollback -e passthrough_rollout={NAME}" in end
    assert f"armfleet.vfio.rollout -e passthrough_rollout={NAME}" in end
    assert f"add --limit @{rollout.retry}" in end
    first, later = rollout.names[: rollout.first], rollout.names[rollout.first :]
    applied = listed(end, "Hosts with their list, whose devices were not read back")
    unknown = listed(end, "Hosts that may have been changed")
    assert applied
    assert unknown
    # Hosts of a wave end in any order.
    assert sorted([*applied, *unknown]) == later
    rows = rollout.rows()
    assert {name: row["outcome"] for name, row in rows.items()} == {
        **dict.fromkeys(first, "changed"),
        **dict.fromkeys(later, "failed"),
    }
    assert {rows[name]["message"] for name in unknown} == {
        "The run ended on this host without a result."
    }
    assert {rows[name]["message"] for name in applied} == {
        "Its list was applied, and the run ended before its devices were read back."
    }
    assert rollout.retry.read_text().split() == later
    assert {*first, *applied} <= rollout.changed() < {*rollout.names}


def listed(output: str, title: str) -> list[str]:
    (names,) = re.findall(f"^{title}: (.*)$", output, re.MULTILINE)
    return str(names).split(", ")
