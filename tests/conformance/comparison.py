# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The differences between the real kernel and the simulator, and their explanations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .operations import Operation, Scenario
from .runner import State, Step

BOOT = "boot"
# State that the first probe of a device changes permanently.
_LASTING = (" group", " awaits first driver")


class Difference(NamedTuple):
    """A difference; ``what`` is 'result', or the key of a part of the state."""

    scenario: str
    operation: str
    what: str
    real: Any
    simulated: Any

    def __str__(self) -> str:
        return (
            f"{self.scenario} / {self.operation} / {self.what}: "
            f"real {self.real!r}, simulated {self.simulated!r}"
        )


class Explanation(NamedTuple):
    """The reason for every difference whose parts match the patterns."""

    sentence: str
    scenario: str
    what: str
    real: str
    simulated: str
    operation: str = ".*"

    def covers(self, difference: Difference) -> bool:
        return all(
            re.fullmatch(getattr(self, part), str(value), re.DOTALL)
            for part, value in difference._asdict().items()
        )


def differences(
    scenarios: Sequence[Scenario], real: Sequence[Step], simulated: Sequence[Step]
) -> list[Difference]:
    """Return each difference once, at the operation where it begins."""
    mismatches = list(_new(BOOT, BOOT, {}, real[0].state, simulated[0].state))
    known = {
        (mismatch.what, _frozen(mismatch.real), _frozen(mismatch.simulated))
        for mismatch in mismatches
    }
    for number, (scenario, operation) in enumerate(_flat(scenarios), 1):
        text = describe(operation)
        if real[number].result != simulated[number].result:
            ends = real[number].result, simulated[number].result
            mismatches.append(Difference(scenario.name, text, "result", *ends))
        here = list(_new(scenario.name, text, {}, real[number].state, simulated[number].state))
        now = {
            (mismatch.what, _frozen(mismatch.real), _frozen(mismatch.simulated)): mismatch
            for mismatch in here
        }
        mismatches += [mismatch for key, mismatch in now.items() if key not in known]
        known = set(now)
    return mismatches


def unexpected(scenarios: Sequence[Scenario], steps: Sequence[Step]) -> list[str]:
    """Return the operations whose result is not the expected one."""
    return [
        f"{scenario.name} / {describe(operation)}: {step.result} instead of {operation.gives}"
        for (scenario, operation), step in zip(_flat(scenarios), steps[1:], strict=True)
        if step.result != operation.gives
    ]


def leftovers(scenarios: Sequence[Scenario], steps: Sequence[Step]) -> list[str]:
    """Return the parts of the state after boot that a scenario does not restore."""
    lines: list[str] = []
    number = 0
    for scenario in scenarios:
        before = _passing(steps[number].state)
        number += len(scenario.operations)
        after = _passing(steps[number].state)
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        lines += [
            f"{scenario.name}: {key} {before.get(key)!r} -> {after.get(key)!r}" for key in keys
        ]
    return lines


def problems(mismatches: Sequence[Difference], explanations: Sequence[Explanation]) -> list[str]:
    """Return a line for each difference without an explanation, and each needless explanation."""
    bare = [
        mismatch for mismatch in mismatches if not any(why.covers(mismatch) for why in explanations)
    ]
    idle = [why for why in explanations if not any(why.covers(mismatch) for mismatch in mismatches)]
    return [*map(str, bare), *(f"explains nothing: {why.sentence}" for why in idle)]


def summary(mismatches: Sequence[Difference], explanations: Sequence[Explanation]) -> list[str]:
    """Return lines with the number of differences, and how many each explanation covers."""
    covered = (f"  {sum(map(why.covers, mismatches)):3}  {why.sentence}" for why in explanations)
    return [f"{len(mismatches)} differences", *covered]


def describe(operation: Operation) -> str:
    """Return an operation as one line of text."""
    reported = [
        argument if len(argument) < 60 else f"{argument[:20]}… ({len(argument)})"
        for argument in operation.arguments
    ]
    by = "" if operation.by == "root" else f" by {operation.by}"
    return f"{operation.kind} {' '.join(map(repr, reported))}{by}"


def _flat(scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, Operation]]:
    for scenario in scenarios:
        for operation in scenario.operations:
            yield scenario, operation


def _new(
    scenario: str, operation: str, known: State, real: State, simulated: State
) -> Iterator[Difference]:
    for key in sorted({*real, *simulated} - set(known)):
        if real.get(key) != simulated.get(key):
            yield Difference(scenario, operation, key, real.get(key), simulated.get(key))


def _frozen(value: Any) -> str:
    return repr(value)


def _passing(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith(_LASTING)}
