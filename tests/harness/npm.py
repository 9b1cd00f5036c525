# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages of npm that a package-lock.json pins by their hashes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armfleet-vfio"


def install(manifests: Path, name: str) -> Path:
    """Return the node_modules of a directory's package-lock.json, installed if they are missing."""
    manifest, lock = manifests / "package.json", manifests / "package-lock.json"
    directory = CACHE / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.copy(manifest, directory)
            shutil.copy(lock, directory)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = run(command, directory)
            assert done.returncode == 0, done.stdout
            (directory / "complete").touch()
    return directory / "node_modules"


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
