# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Only documented targets install system packages, and they list them first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# With these programs no package is installed, and installing one fails.
PROGRAMS = {
    "dpkg-query": "#!/bin/sh\n",
    "apt-get": '#!/bin/sh\necho "$*" >>"$CALLS"\necho "E: no packages here"\nexit 100\n',
    "sudo": '#!/bin/sh\nexec "$@"\n',
}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file to which each call of apt-get adds a line."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("ARMFLEET_INSTALL", raising=False)
    return tmp_path / "calls"


def set_up(environment: str) -> list[str]:
    """Return the messages of tools/setup, which must fail."""
    command = [str(ROOT / "tools/setup"), environment, "echo", "was set up"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()


def test_without_being_asked_all_that_is_missing_is_listed_and_nothing_installed(
    calls: Path,
) -> None:
    lines = set_up("report")
    assert [line for line in lines if "make check" in line and "shellcheck" in line]
    assert [line for line in lines if "make report" in line and "chromium" in line]
    assert lines[-1] == "setup: run make setup, which installs system packages"
    assert not calls.exists()


def test_what_is_installed_is_listed_before(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFLEET_INSTALL", "yes")
    lines = set_up("report")
    assert "shellcheck" in lines[0]
    assert "chromium" in lines[1]
    assert lines[2].startswith("setup: installing ")
    assert lines[-1].endswith("E: no packages here")
    assert "shellcheck" in calls.read_text()


def test_targets_that_promise_a_set_up_are_those_that_install() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\nsetup test nightly demo: export ARMFLEET_INSTALL = yes\n" in makefile
