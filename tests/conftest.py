# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated hosts of a run of tests are its own: other runs beside it use the same names."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

_folder = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # A socket's path is short, and pytest's own folders have long ones.
    config.stash[_folder] = tempfile.mkdtemp(prefix="armfleet-")
    os.environ["ARMFLEET_SIMULATOR_HOSTS"] = config.stash[_folder]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_folder], ignore_errors=True)
