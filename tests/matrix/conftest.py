# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ansible-core that is expected in PATH, and what make test runs on the oldest one only."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

VERSIONS = tomllib.loads((Path(__file__).parent / "versions.toml").read_text())
# The files whose tests run on the oldest one, each with the tests that run on the newest as well.
ON_OLDEST = {
    "test_refused_playbooks.py": (),
    "test_waves.py": ("test_canaries_come_first_and_are_put_back_with_the_rollout",),
    "test_hostile_host.py": (
        "test_no_playbook_does_what_a_host_says[report]",
        "test_the_name_of_a_board_is_no_template",
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ansible-core", help="the version of the ansible-playbook in PATH")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_oldest = config.getoption("--ansible-core") == VERSIONS["controllers"][0]["ansible_core"]
    if config.getoption("--depth") == "test" and not is_oldest:
        left = [
            item
            for item in items
            if item.path.name in ON_OLDEST and item.name not in ON_OLDEST[item.path.name]
        ]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
