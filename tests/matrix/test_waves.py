# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Canaries and tolerated failures, with the first ansible-playbook in PATH."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.playbook import Run, play, rows, summary
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

GONE = ("gone-1", "gone-2")
ORDER = "gone-1,one,gone-2,two"
LISTED = 2


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two boards, and two hosts that cannot be reached."""
    directory = tmp_path_factory.mktemp("waves")
    plans = alike(directory, ("one", "two"), PARTS, DRIVERS)
    gone = {"simulated": {name: {"ansible_host": f"/nowhere/{name}"} for name in GONE}}
    with fleet(directory, plans, VARIABLES, gone) as running:
        yield running


@pytest.fixture(autouse=True)
def release(boards: Fleet) -> Iterator[None]:
    yield
    if any(boards.on_vfio().values()):
        assert run(boards, "release", passthrough_hosts="one,two").code == 0


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    done = play(boards.inventory, f"armfleet.vfio.{playbook}", *arguments, variables=variables)
    assert "Traceback" not in done.output
    return done


def outcomes(done: Run) -> dict[str, tuple[str, str]]:
    return {name: (row.wave, row.outcome) for name, row in rows(done).items()}


def advice(done: Run) -> list[str]:
    """Return what a rollout showed below its table."""
    lines = summary(done)
    return lines[lines.index("") + 1 :]


def roll_out(boards: Fleet, *arguments: str, **variables: Any) -> Run:
    given = {"passthrough_rollout": "test", "passthrough_hosts": ORDER, "rollout_waves": 1}
    return run(boards, "rollout", *arguments, **{**given, **variables})


def names_in(lines: list[str]) -> set[str]:
    return {name for line in lines for name in re.findall(r"passthrough_rollout=(\S+)", line)}


def test_failures_are_counted_over_all_waves(boards: Fleet) -> None:
    done = roll_out(boards, rollout_max_failures=1)
    assert done.code == 2, done.output
    assert outcomes(done) == {
        "gone-1": ("1", "unreachable"),
        "gone-2": ("3", "unreachable"),
        "one": ("2", "changed"),
        "two": ("-", "not started"),
    }
    assert boards.on_vfio() == {"one": LISTED, "two": 0}
    stopped, failed, back, again, *_rest = advice(done)
    assert stopped == (
        "Rollout test stopped in wave 3 of 4: 2 unreachable, 1 changed, 1 not started. "
        "No later wave was started."
    )
    assert failed == "Hosts that failed: gone-1, gone-2"
    assert "armfleet.vfio.rollback -e passthrough_rollout=test" in back
    assert "armfleet.vfio.rollout -e passthrough_rollout=test" in again


@pytest.mark.nightly
def test_a_rollout_with_a_failure_does_not_end_well(boards: Fleet) -> None:
    done = roll_out(boards, passthrough_hosts="one,gone-1,two", rollout_max_failures=1)
    assert done.code == 2, done.output
    assert outcomes(done) == {
        "gone-1": ("2", "unreachable"),
        "one": ("1", "changed"),
        "two": ("3", "changed"),
    }
    assert boards.on_vfio() == {"one": LISTED, "two": LISTED}
    ended, failed, back, *_rest = advice(done)
    assert ended == ("Rollout test ended, but not all hosts are in sync: 1 unreachable, 2 changed.")
    assert failed == "Hosts that failed: gone-1"
    assert "armfleet.vfio.rollback -e passthrough_rollout=test" in back
    assert "no simulated host runs in /nowhere/gone-1" in rows(done)["gone-1"].sentence
    last = done.output[done.output.rindex("TASK [") :]
    assert "The reason is in the table above." in last

    reversed_ = run(boards, "rollback", passthrough_rollout="test", passthrough_hosts=ORDER)
    assert reversed_.code == 2
    assert boards.on_vfio() == {"one": 0, "two": 0}
    ended, failed, _again = advice(reversed_)
    assert ended == (
        "The rollback of test ended, but not all hosts are in sync: 2 unreachable, 2 changed."
    )
    assert failed == "Hosts that failed: gone-1, gone-2"


def test_a_reboot_counts_failures_in_the_same_way(boards: Fleet) -> None:
    given = {"passthrough_hosts": ORDER, "rollout_waves": 1}
    stopped = run(boards, "reboot", rollout_max_failures=1, **given)
    assert stopped.code == 2
    assert outcomes(stopped) == {
        "gone-1": ("1", "unreachable"),
        "gone-2": ("3", "unreachable"),
        "one": ("2", "unchanged"),
        "two": ("-", "not started"),
    }
    assert advice(stopped)[0].startswith("The reboot stopped in wave 3 of 4: 2 unreachable, ")
    ended = run(boards, "reboot", rollout_max_failures=2, **given)
    assert ended.code == 2
    assert outcomes(ended)["two"] == ("4", "unchanged")
    assert advice(ended)[0].startswith("The reboot ended, but not all hosts are in sync: ")
    assert advice(ended)[1] == "Hosts that failed: gone-1, gone-2"


@pytest.mark.nightly
def test_a_rollout_without_a_failure_ends_well_and_the_next_playbook_begins_again(
    boards: Fleet,
) -> None:
    given = {"passthrough_hosts": "one,two", "rollout_waves": 1, "passthrough_rollout": "test"}
    done = run(boards, "reboot", "armfleet.vfio.rollout", **given)
    assert done.code == 0, done.output
    assert advice(done) == ["The reboot ended: 2 unchanged."]
    assert boards.on_vfio() == {"one": LISTED, "two": LISTED}
    assert outcomes(done) == {"one": ("1", "unchanged"), "two": ("2", "unchanged")}


def test_canaries_outside_the_rollout_are_left_alone(boards: Fleet) -> None:
    done = roll_out(boards, passthrough_hosts="one", rollout_canaries=["two"])
    assert done.code == 1
    assert "rollout_canaries has hosts that passthrough_hosts does not match: two." in done.output
    assert not done.tasks
    assert boards.on_vfio() == {"one": 0, "two": 0}


def test_canaries_come_first_and_are_put_back_with_the_rollout(boards: Fleet) -> None:
    given = {"passthrough_hosts": ORDER, "rollout_waves": 1}
    done = run(boards, "rollout", rollout_canaries="two", **given)
    assert done.code == 2, done.output
    assert outcomes(done)["two"] == ("1", "changed")
    assert boards.on_vfio() == {"one": 0, "two": LISTED}
    (name,) = names_in(advice(done))
    back = run(boards, "rollback", passthrough_hosts="one,two", passthrough_rollout=name)
    assert back.code == 0, back.output
    assert boards.on_vfio() == {"one": 0, "two": 0}


@pytest.mark.nightly
def test_the_advice_has_the_name_of_the_rollout_if_a_canary_is_unreachable(boards: Fleet) -> None:
    given = {"passthrough_hosts": ORDER, "rollout_waves": 1}
    done = run(boards, "rollout", rollout_canaries=["gone-2"], **given)
    assert done.code == 2, done.output
    assert outcomes(done)["gone-2"] == ("1", "unreachable")
    assert boards.on_vfio() == {"one": 0, "two": 0}
    (name,) = names_in(advice(done))
    assert re.fullmatch(r"rollout-20\d{6}T\d{6}Z-[0-9a-f]{4}", name)


@pytest.mark.parametrize("name", ["", pytest.param(None, marks=pytest.mark.nightly)])
def test_texts_mean_what_a_person_means_and_nothing_is_the_default(
    boards: Fleet, name: str | None
) -> None:
    done = roll_out(
        boards,
        passthrough_rollout=name,
        passthrough_hosts='["one", "two"]',
        rollout_canaries="",
        rollout_waves=name,
        rollout_max_failures="50%",
        rollout_soak=name,
    )
    assert done.code == 0, done.output
    assert outcomes(done) == {"one": ("1", "changed"), "two": ("2", "changed")}
    assert "Hosts: 2. Waves: 1, 1. Hosts that may fail: 1." in done.output
    (given,) = names_in(done.output.splitlines()[:30])
    assert re.fullmatch(r"rollout-20\d{6}T\d{6}Z-[0-9a-f]{4}", given)
    assert advice(done)[0] == f"Rollout {given} ended: 2 changed."
