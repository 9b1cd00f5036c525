# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Script and style of the page, as biome lints and formats them."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.harness.npm import install, run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


@pytest.fixture(scope="session")
def biome() -> Path:
    """Return biome as package-lock.json pins it by its hash, and install it if it is missing."""
    modules = install(HERE, "biome")
    return modules / f"@biomejs/cli-linux-{ARCHITECTURES[platform.machine()]}/biome"


def test_biome_finds_nothing_to_fix_or_to_format(biome: Path) -> None:
    done = run([str(biome), "ci", "--colors=off", "--error-on-warnings"], ROOT)
    assert done.returncode == 0, done.stdout
    assert "Checked 3 files" in done.stdout
