# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sessions of nox are the versions of the matrix, and the hooks of pre-commit fetch nothing."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

ROOT = Path(__file__).parents[3]
VERSIONS = tomllib.loads((ROOT / "tests/matrix/versions.toml").read_text())
HOOKS = [
    hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
]


@pytest.fixture(scope="module")
def sessions() -> dict[str, dict[str, Any]]:
    """Return the sessions of the matrix."""
    command = ["nox", "--list", "--json", "--tags", "matrix-nightly"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {session["session"]: session for session in json.loads(listed.stdout)}


def test_each_version_has_a_session_with_its_python(sessions: dict[str, dict[str, Any]]) -> None:
    expected = {row["ansible_core"].rpartition(".")[0]: row for row in VERSIONS["controllers"]}
    expected |= {row["python"]: row for row in VERSIONS["targets"]}
    pythons = {name: session["python"] for name, session in sessions.items()}
    assert pythons == {f"matrix-{name}": row["python"] for name, row in expected.items()}


def test_make_test_has_the_oldest_and_the_newest_core_and_the_oldest_python_of_hosts(
    sessions: dict[str, dict[str, Any]],
) -> None:
    often = {name for name, session in sessions.items() if "matrix-test" in session["tags"]}
    cores, pythons = (
        [row[key] for row in VERSIONS[kind]]
        for kind, key in (("controllers", "ansible_core"), ("targets", "python"))
    )
    expected = [cores[0], cores[-1], f"{pythons[0]}.0"]
    assert often == {f"matrix-{version.rpartition('.')[0]}" for version in expected}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_what_the_lock_pins(hook: dict[str, Any]) -> None:
    assert hook["language"] == "system"
    assert re.match(r"tools/setup check [a-z]", hook["entry"])


def test_no_hook_is_fetched() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in repositories} == {"local"}
