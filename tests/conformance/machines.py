# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest, and a simulated host with the same device tree, on which the same operations run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from extensions.simulator.host import Host, Plan, start
from extensions.simulator.inventory import SSH
from tests.guest import Guest
from tests.guest.board import device_trees

from .operations import Scenario
from .runner import BY_DEFAULT, Observed, Step, run

_SECONDS = 500


class Machines(NamedTuple):
    """The steps of the same operations on the real kernel and on the simulator."""

    real: list[Step]
    simulated: list[Step]


class Subject(NamedTuple):
    """What is compared: a board, the description of its simulated host, and what is observed.

    ``description`` is the name of a file of this directory.
    """

    board: str
    description: str
    observed: Observed = BY_DEFAULT


def run_on_both(guest: Guest, subject: Subject, scenarios: Sequence[Scenario]) -> Machines:
    """Run the scenarios on a guest and on a simulated host; ``subject`` describes both."""
    real = run(guest.ssh_argv(), scenarios, _SECONDS, subject.observed)
    with _simulated(subject) as host:
        login = [str(SSH), str(host.directory)]
        return Machines(real, run(login, scenarios, _SECONDS, subject.observed))


def count_answers(steps: Sequence[Step]) -> Counter[str]:
    """Return how often each errno was returned, and how often an operation did not return."""
    return Counter(step.result for step in steps if re.fullmatch("E[A-Z]+|waits", step.result))


def describe_run(steps: Sequence[Step], scenarios: Sequence[Scenario]) -> list[str]:
    """Return lines with the number of operations, and the errors that they returned."""
    answers = (f"{number} {answer}" for answer, number in sorted(count_answers(steps).items()))
    return [
        f"{len(steps) - 1} operations in {len(scenarios)} scenarios",
        f"the real kernel's answers: {', '.join(answers)}, otherwise success",
    ]


@contextmanager
def _simulated(subject: Subject) -> Iterator[Host]:
    device_tree = device_trees().ensure() / f"{subject.board}.dtb"
    description = Path(__file__).with_name(subject.description)
    (host,) = start([Plan(f"conformance-{subject.board}", device_tree, description)])
    try:
        yield host
    finally:
        host.stop()
