"""The simulator does with PCI functions what Debian's kernel does: same operations, same /sys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.comparison import (
    differences,
    leftovers,
    problems,
    summary,
    unexpected,
)
from tests.conformance.explanations import OF_PCI
from tests.conformance.machines import (
    Machines,
    Subject,
    count_answers,
    describe_run,
    run_on_both,
)
from tests.conformance.pci_operations import BUSES, MODULES, PCI_SCENARIOS
from tests.conformance.runner import Observed

if TYPE_CHECKING:
    from tests.guest import Guest

pytestmark = pytest.mark.nightly

SUBJECT = Subject("pci", "pci.yml", Observed(BUSES, MODULES))
# The errors of what is written to: overrides, drivers, SR-IOV, reset methods, remove and rescan.
ERRNOS = {"EACCES", "EBUSY", "EINVAL", "ENODEV", "ENOENT", "ERANGE", "EROFS"}


@pytest.fixture(scope="module")
def machines(guest: Guest, kernel: str) -> Machines:
    if kernel != "debian":
        pytest.skip("pci.yml describes the drivers of Debian's own kernel")
    return run_on_both(guest, SUBJECT, PCI_SCENARIOS)


def test_the_real_kernel_answers_as_the_list_says(machines: Machines) -> None:
    assert unexpected(PCI_SCENARIOS, machines.real) == []


def test_each_scenario_goes_back_to_the_state_after_boot(machines: Machines) -> None:
    assert leftovers(PCI_SCENARIOS, machines.real) == []


def test_no_function_keeps_a_group_that_it_did_not_have_after_boot(machines: Machines) -> None:
    first, last = (
        {key: value for key, value in step.state.items() if key.endswith(" group")}
        for step in (machines.real[0], machines.real[-1])
    )
    assert last == first


def test_the_list_has_every_answer(machines: Machines) -> None:
    assert len(machines.real) > 150
    assert set(count_answers(machines.real)) >= ERRNOS


def test_the_simulator_does_the_same_but_for_what_is_explained(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    mismatches = differences(PCI_SCENARIOS, machines.real, machines.simulated)
    with capsys.disabled():
        print("", *describe_run(machines.real, PCI_SCENARIOS), sep="\n")
        print(*summary(mismatches, OF_PCI), sep="\n")
    assert problems(mismatches, OF_PCI) == []
