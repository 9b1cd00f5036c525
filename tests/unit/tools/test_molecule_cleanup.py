# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""extensions/molecule/cleanup removes what molecule left, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

CLEANUP = Path(__file__).parents[3] / "extensions/molecule/cleanup"
IMAGES = "images --format {{.ID}} --filter reference=localhost/armfleet-simulated"
CONTAINERS = "ps --all --format {{.Names}} --filter ancestor=%s"
PODMAN = """#!/bin/sh
echo "podman $*" >>"$CALLS"
case $1 in
    images) printf '%s\\n' 0a1b 0a1b 2c3d ;;
    ps) case $* in *0a1b) [ ! -e "$CALLS.running" ] || echo overdrive ;; esac ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"$CALLS"
case $1 in
    list-unit-files)
        echo 'podman.socket            enabled enabled'
        echo 'podman-auto-update.timer enabled enabled'
        ;;
esac
"""
PYTHON = '#!/bin/sh\necho "python $*" >>"$CALLS"\n'


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file to which each call of podman, systemctl and Python adds a line."""
    programs = {"podman": PODMAN, "systemctl": SYSTEMCTL, "python3": PYTHON}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "armfleet-vfio/debian-dtb-trixie/amd").mkdir(parents=True)
    (tmp_path / "armfleet-vfio/venv-1").mkdir()
    (tmp_path / "armfleet-vfio/simulator/overdrive").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ARMFLEET_SIMULATOR_HOSTS", raising=False)
    monkeypatch.delenv("PYTHON", raising=False)
    return tmp_path / "calls"


def clean_up(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CLEANUP, *options], capture_output=True, text=True, check=False)


def changes(calls: Path) -> Sequence[str]:
    """Return the calls that are no queries."""
    queries = ("podman images", "podman ps", "systemctl list-unit-files")
    return [line for line in calls.read_text().splitlines() if not line.startswith(queries)]


def test_images_and_downloaded_device_trees_are_removed(calls: Path) -> None:
    done = clean_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert changes(calls) == ["podman rmi 0a1b", "podman rmi 2c3d"]
    cache = calls.parent / "armfleet-vfio"
    assert sorted(path.name for path in cache.iterdir()) == ["simulator", "venv-1"]
    assert "Removed image 0a1b" in done.stdout
    queries = calls.read_text().splitlines()
    assert f"podman {IMAGES}" in queries
    assert f"podman {CONTAINERS % '0a1b'}" in queries


def test_boards_that_are_still_there_are_kept_unless_forced(calls: Path) -> None:
    Path(f"{calls}.running").touch()
    refused = clean_up()
    assert refused.returncode == 1
    assert "containers of overdrive exist; run 'molecule destroy' or use --force" in refused.stderr
    assert changes(calls) == []
    assert (calls.parent / "armfleet-vfio/debian-dtb-trixie").is_dir()

    assert clean_up("--force").returncode == 0
    assert changes(calls) == [
        "podman rm --force --time=0 overdrive",
        "python -m extensions.simulator stop overdrive",
        "podman rmi 0a1b",
        "podman rmi 2c3d",
    ]


def test_units_are_disabled_only_if_asked(calls: Path) -> None:
    done = clean_up("--units")
    assert changes(calls)[-1] == "systemctl disable --now podman.socket podman-auto-update.timer"
    assert "Disabled podman.socket podman-auto-update.timer" in done.stdout


def test_an_unknown_option_is_an_error(calls: Path) -> None:
    refused = clean_up("--unit")
    assert refused.stderr == "cleanup: unknown option '--unit'; known: --force, --units\n"
    assert not calls.exists()
