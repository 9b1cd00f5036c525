# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator does what the real kernel does: same operations, same answers, same /sys after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from extensions.simulator.host import Host, Plan, start
from extensions.simulator.inventory import SSH
from tests.conformance import runner
from tests.conformance.comparison import (
    Difference,
    Explanation,
    describe,
    differences,
    explained,
    leftovers,
    unexpected,
)
from tests.conformance.explanations import CORNERS, EXPLANATIONS
from tests.conformance.operations import SCENARIOS, Scenario
from tests.conformance.runner import Step
from tests.guest import Guest
from tests.guest.board import device_trees

DESCRIPTION = Path(runner.__file__).with_name("guest.yml")
SECONDS = 500
# All errors of driver_override, bind, unbind, drivers_probe and VFIO's drivers, except for ENOMEM,
# which no operation can provoke.
ERRNOS = {"EACCES", "EAGAIN", "EBUSY", "EINVAL", "EIO", "ENODEV", "ENOENT", "EPERM", "EROFS"}


class Machines(NamedTuple):
    """The steps of the same operations on the real kernel and on the simulator."""

    real: list[Step]
    simulated: list[Step]


def answers(steps: Sequence[Step]) -> Counter[str]:
    """Return how often each errno was returned, and how often an operation did not return."""
    return Counter(step.result for step in steps if re.fullmatch("E[A-Z]+|waits", step.result))


@contextmanager
def simulated(board: str) -> Iterator[Host]:
    device_tree = device_trees().ensure() / f"{board}.dtb"
    (host,) = start([Plan(f"conformance-{board}", device_tree, DESCRIPTION)])
    try:
        yield host
    finally:
        host.stop()


def on_both(guest: Guest, board: str, scenarios: Sequence[Scenario]) -> Machines:
    real = runner.run(guest.ssh_argv(), scenarios, SECONDS)
    with simulated(board) as host:
        return Machines(real, runner.run([str(SSH), str(host.folder)], scenarios, SECONDS))


def tell(mismatches: Sequence[Difference], explanations: Sequence[Explanation]) -> None:
    print(f"{len(mismatches)} differences")
    for why in explanations:
        print(f"  {sum(map(why.covers, mismatches)):3}  {why.sentence}")


def check(mismatches: Sequence[Difference], explanations: Sequence[Explanation]) -> None:
    """Assert that every difference is explained, and that every explanation is needed."""
    bare, idle = explained(mismatches, explanations)
    assert not list(map(str, bare))
    assert not [why.sentence for why in idle]


@pytest.fixture(scope="module")
def machines(start: Callable[[str, str], Guest]) -> Machines:
    return on_both(start("test-a", "a"), "a", SCENARIOS)


def test_the_real_kernel_answers_as_the_list_says(machines: Machines) -> None:
    assert not unexpected(SCENARIOS, machines.real)


def test_each_scenario_goes_back_to_the_state_after_boot(machines: Machines) -> None:
    assert not leftovers(SCENARIOS, machines.real)


def test_the_list_has_every_answer(machines: Machines) -> None:
    assert len(machines.real) > 150
    assert set(answers(machines.real)) >= {*ERRNOS, "waits"}


def test_the_simulator_does_the_same_but_for_what_is_explained(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    mismatches = differences(SCENARIOS, machines.real, machines.simulated)
    told = (f"{number} {answer}" for answer, number in sorted(answers(machines.real).items()))
    with capsys.disabled():
        print(f"\n{len(machines.real) - 1} operations in {len(SCENARIOS)} scenarios")
        print(f"the real kernel's answers: {', '.join(told)}, otherwise success")
        tell(mismatches, EXPLANATIONS)
    check(mismatches, EXPLANATIONS)


def test_a_device_tree_with_every_corner_becomes_the_same_devices(
    start: Callable[[str, str], Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    (real,), (other,) = on_both(start("test-c", "c"), "c", [])
    mismatches = differences([], [real], [other])
    with capsys.disabled():
        print(f"\n{len(real.state)} parts of the state after boot")
        tell(mismatches, CORNERS)
    check(mismatches, CORNERS)
    assert len(real.state) > 500


def test_a_step_that_differs_is_named() -> None:
    (scenario, *_others) = SCENARIOS
    steps = [Step("ok", {"a": 1})] * (len(scenario.operations) + 1)
    changed = [*steps[:-1], Step("EIO", {"a": 2})]
    lines = [str(mismatch) for mismatch in differences([scenario], steps, changed)]
    step = f"{scenario.name} / {describe(scenario.operations[-1])}"
    assert lines == [
        f"{step} / result: real 'ok', simulated 'EIO'",
        f"{step} / a: real 1, simulated 2",
    ]
