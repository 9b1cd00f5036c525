# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs all operations on a machine by the agent, in one login."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from .agent import BUSES, MODULES
from .operations import Operation, Scenario

_AGENT = Path(__file__).with_name("agent.py")

State = dict[str, Any]


class ConformanceError(Exception):
    """A machine did not run all operations."""


class Step(NamedTuple):
    """The result of an operation, and the whole state after it."""

    result: str
    state: State


class Observed(NamedTuple):
    """Whose state is observed: devices and drivers by their buses, and modules by name."""

    buses: tuple[str, ...] = BUSES
    modules: tuple[str, ...] = MODULES


BY_DEFAULT = Observed()


def run(
    login: Sequence[str],
    scenarios: Sequence[Scenario],
    timeout: float,
    observed: Observed = BY_DEFAULT,
) -> list[Step]:
    """Run all operations through ``login``; the first step has the state before them."""
    operations = [operation for scenario in scenarios for operation in scenario.operations]
    done = subprocess.run(
        [*login, "python3 -"],
        input=_program(operations, observed),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    if len(reports) != len(operations) + 1:
        raise ConformanceError(
            f"{len(reports) - 1} of {len(operations)} operations were done: {done.stderr}"
        )
    return _steps(reports)


def _program(operations: Sequence[Operation], observed: Observed) -> str:
    asked = json.dumps([[asdict(operation) for operation in operations], *observed])
    return f"{_AGENT.read_text()}\nmain(*json.loads({asked!r}))\n"


def _steps(reports: Sequence[dict[str, Any]]) -> list[Step]:
    steps: list[Step] = []
    state: State = {}
    for report in reports:
        reported = {**state, **report["changes"]}
        state = {key: value for key, value in reported.items() if value is not None}
        steps.append(Step(report["result"], state))
    return steps
