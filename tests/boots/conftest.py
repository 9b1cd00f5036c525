# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests with the kernel of ``--kernel``, and the printed table of their boots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boots.many import ENTRIES, Figures
from tests.boots.table import ROW, Row, rendered
from tests.guest.packages import DEFAULT_SERIES
from tests.guest.userlands import DEFAULT_SUITE
from tests.harness.guests import inventory, kernel, start

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["inventory", "kernel", "start"]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Return a function that adds a row to the table."""
    return lambda row: request.node.user_properties.append((ROW, row))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    recorded = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for _name, value in report.user_properties
    ]
    rows = [value for value in recorded if isinstance(value, Row)]
    if rows:
        chosen = config.getoption("--kernel") or DEFAULT_SERIES
        suite = config.getoption("--userland") or DEFAULT_SUITE
        terminalreporter.section("Boots, Linux %s, Debian %s" % (chosen, suite))
        terminalreporter.write(rendered(rows))
    for value in recorded:
        if isinstance(value, Figures):
            terminalreporter.section("A list of %d entries" % ENTRIES)
            terminalreporter.write(value.sentence)
