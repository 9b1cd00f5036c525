# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-doc shows every module, filter and role, with all parts of their documentation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PLUGINS = [
    (kind, f"armfleet.vfio.{path.stem}")
    for kind, directory in (("module", "plugins/modules"), ("filter", "plugins/filter"))
    for path in sorted((ROOT / directory).glob("*.py"))
]


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    command = ["ansible-doc", "--metadata-dump", "armfleet.vfio"]
    dump = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    documented: dict[str, Any] = json.loads(dump.stdout)["all"]
    return documented


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_has_options_examples_and_results(
    documented: dict[str, Any], kind: str, name: str
) -> None:
    plugin = documented[kind][name]
    assert [part for part in ("doc", "examples", "return") if not plugin[part]] == []


def test_each_role_is_shown(documented: dict[str, Any]) -> None:
    roles = {f"armfleet.vfio.{path.name}" for path in (ROOT / "roles").iterdir()}
    assert roles <= documented["role"].keys()
