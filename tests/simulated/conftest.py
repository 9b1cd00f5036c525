# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of the tests on simulated machines, and what was counted in them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.simulated.counts import Counts

# The same examples in every run, unless a seed is given; nothing of them in the checkout.
settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.register_profile("seeded", database=None, deadline=None)
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "armfleet-vfio-hypothesis")

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
def counts(request: pytest.FixtureRequest) -> Counts:
    """Numbers that are printed at the end of the run."""
    found = Counts()
    request.config.stash[_counted][request.node.name] = found
    return found
