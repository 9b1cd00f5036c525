# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small checkout with the tools of this repository and with fast parts of the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
_PEOPLE = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
# Replaces tools/setup, which installs packages.
_SETUP = """\
#!/bin/sh
shift
if [ $# -gt 0 ]; then exec "$@"; fi
"""


class Checkout:
    """A git repository; its commands find programs in ``programs`` first."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "clone"
        self.programs = directory / "programs"
        self.environment = {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **dict.fromkeys(_PEOPLE, "test@example.com"),
        }

    def create(self) -> None:
        """Create the files without a commit."""
        self.programs.mkdir()
        (self.root / "tools").mkdir(parents=True)
        for tool in ("suite.py", "parts.py", "stage.py"):
            shutil.copy(ROOT / "tools" / tool, self.root / "tools")
        self.write("tools/setup", _SETUP)
        (self.root / "tools/setup").chmod(0o755)
        self.write(".gitignore", "/build/\n__pycache__/\n")
        self.git("init", "--quiet", "--initial-branch", "main")

    def set_parts(self, python: str) -> None:
        """Replace SHARED and parts() of tools/parts.py."""
        text = (ROOT / "tools/parts.py").read_text()
        self.write("tools/parts.py", f"{text}\n\n{python}")

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def git(self, *words: str) -> str:
        return self.run("git", *words, check=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change something")

    def suite(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "tools/suite.py", *words)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )
