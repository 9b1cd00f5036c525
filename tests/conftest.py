# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How deep all tests go, which kernel guests have, and simulated hosts for each run of them.

The hosts are a run's own, for other runs beside it use the same names.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest

# The assertions of shared fixtures show what differs, too.
pytest.register_assert_rewrite("tests.harness")

_hosts = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--depth",
        choices=("check", "test", "nightly"),
        default="check",
        help="how much the tests try: as much as there is time for in make check, test or nightly",
    )
    # Its values are in tests/guest, which unit tests on a host's old Python cannot import.
    parser.addoption("--kernel", help="which kernel guests have: 6.12 (default), 7 or debian")
    parser.addoption(
        "--userland", help="which Debian guests have: bullseye, bookworm, trixie (default) or forky"
    )


# Before pytest's own of JUnit, which reads the option then.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # nox ends parallel sessions by SIGTERM, by which pytest would die and leave hosts running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Some parts of make test run several pytest, and tools/suite.py reads what all of them write.
    results = os.environ.get("ARMFLEET_TEST_RESULTS")
    if results:
        config.option.xmlpath = os.path.join(results, f"{os.getpid()}.xml")
    config.addinivalue_line("markers", "nightly: left for make nightly")
    # A socket's path is short, and pytest's own directories have long ones.
    config.stash[_hosts] = tempfile.mkdtemp(prefix="armfleet-")
    os.environ["ARMFLEET_SIMULATOR_HOSTS"] = config.stash[_hosts]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_hosts], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--depth") != "nightly":
        left = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def depth(request: pytest.FixtureRequest) -> str:
    """Return how deep to go: check, test or nightly."""
    return str(request.config.getoption("--depth"))
