# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Select the examples of the tests on simulated machines, and print their counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import seed, settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.simulated.counts import Counts

# Every run has the same examples unless a seed is given, and stores none in the checkout.
settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.register_profile("seeded", database=None, deadline=None)
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "armfleet-vfio-hypothesis")

Test = TypeVar("Test", bound=Callable[..., Any])

_counted = pytest.StashKey[dict[str, Counts]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_counted] = {}
    seed = config.getoption("hypothesis_seed", None)
    settings.load_profile("suite" if seed is None else "seeded")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for test, counts in config.stash[_counted].items():
        terminalreporter.section(test)
        for what, number in counts.items():
            terminalreporter.line(f"{number:9,}  {what}")


@pytest.fixture
def examples_of_depth(request: pytest.FixtureRequest, depth: str) -> Callable[[Test], Test]:
    """Return a decorator that gives a test other examples at each depth, unless a seed is set."""
    is_seeded = request.config.getoption("hypothesis_seed") is not None
    return (lambda test: test) if is_seeded else seed(depth)


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Counts:
    """Return counters that are printed at the end of the run."""
    numbers = Counts()
    request.config.stash[_counted][request.node.name] = numbers
    return numbers
