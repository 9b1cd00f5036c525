# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of the tests on simulated machines, and what was counted in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import seed, settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.simulated.counts import Counts

# The same examples in every run, unless a seed is given; nothing of them in the checkout.
settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.register_profile("seeded", database=None, deadline=None)
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "armfleet-vfio-hypothesis")

Test = TypeVar("Test", bound=Callable[..., Any])

_HERE = Path(__file__).parent
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to make check, a part of make test, what is the same in both."""
    if config.getoption("--depth") != "test":
        return
    repeated = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.path.parent == _HERE
        and "depth" not in item.fixturenames
    ]
    config.hook.pytest_deselected(items=repeated)
    items[:] = [item for item in items if item not in repeated]


@pytest.fixture
def examples_of_depth(request: pytest.FixtureRequest, depth: str) -> Callable[[Test], Test]:
    """Give a test other examples at each depth, unless those of a seed are asked for."""
    is_seeded = request.config.getoption("hypothesis_seed") is not None
    return (lambda test: test) if is_seeded else seed(depth)


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Counts:
    """Numbers that are printed at the end of the run."""
    numbers = Counts()
    request.config.stash[_counted][request.node.name] = numbers
    return numbers
