# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator does what the real kernel does: same operations, same answers, same /sys after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.conformance.comparison import (
    describe,
    differences,
    leftovers,
    problems,
    summary,
    unexpected,
)
from tests.conformance.explanations import CORNERS, EXPLANATIONS
from tests.conformance.machines import (
    Machines,
    Subject,
    count_answers,
    describe_run,
    run_on_both,
)
from tests.conformance.operations import SCENARIOS
from tests.conformance.runner import Step

if TYPE_CHECKING:
    from tests.guest import Guest

pytestmark = pytest.mark.nightly

DESCRIPTION = "guest.yml"
# All errors of driver_override, bind, unbind, drivers_probe and VFIO's drivers, except for ENOMEM,
# which no operation can provoke.
ERRNOS = {"EACCES", "EAGAIN", "EBUSY", "EINVAL", "EIO", "ENODEV", "ENOENT", "EPERM", "EROFS"}


@pytest.fixture(scope="module")
def machines(start: Callable[[str, str], Guest]) -> Machines:
    return run_on_both(start("test-a", "a"), Subject("a", DESCRIPTION), SCENARIOS)


def test_the_real_kernel_answers_as_the_list_says(machines: Machines) -> None:
    assert not unexpected(SCENARIOS, machines.real)


def test_each_scenario_goes_back_to_the_state_after_boot(machines: Machines) -> None:
    assert not leftovers(SCENARIOS, machines.real)


def test_the_list_has_every_answer(machines: Machines) -> None:
    assert len(machines.real) > 150
    assert set(count_answers(machines.real)) >= {*ERRNOS, "waits"}


def test_the_simulator_does_the_same_but_for_what_is_explained(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    mismatches = differences(SCENARIOS, machines.real, machines.simulated)
    with capsys.disabled():
        print("", *describe_run(machines.real, SCENARIOS), sep="\n")
        print(*summary(mismatches, EXPLANATIONS), sep="\n")
    assert problems(mismatches, EXPLANATIONS) == []


def test_a_device_tree_with_every_corner_becomes_the_same_devices(
    start: Callable[[str, str], Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    (real,), (other,) = run_on_both(start("test-c", "c"), Subject("c", DESCRIPTION), [])
    mismatches = differences([], [real], [other])
    with capsys.disabled():
        print(f"\n{len(real.state)} parts of the state after boot")
        print(*summary(mismatches, CORNERS), sep="\n")
    assert problems(mismatches, CORNERS) == []
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
