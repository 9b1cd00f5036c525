# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Script and style of the page, as biome lints and formats them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armfleet-vfio"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


@pytest.fixture(scope="session")
def biome() -> Path:
    """The program that package-lock.json pins by its hash, installed if it is not there yet."""
    manifest, lock = HERE / "package.json", HERE / "package-lock.json"
    directory = CACHE / f"biome-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    directory.mkdir(parents=True, exist_ok=True)
    program = f"node_modules/@biomejs/cli-linux-{ARCHITECTURES[platform.machine()]}/biome"
    with (directory / "lock").open("a") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.copy(manifest, directory)
            shutil.copy(lock, directory)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = run(command, directory)
            assert done.returncode == 0, done.stdout
            (directory / "complete").touch()
    return directory / program


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def test_biome_finds_nothing_to_fix_or_to_format(biome: Path) -> None:
    done = run([str(biome), "ci", "--colors=off", "--error-on-warnings"], ROOT)
    assert done.returncode == 0, done.stdout
    assert "Checked 3 files" in done.stdout
