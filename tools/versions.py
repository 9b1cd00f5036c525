# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints the versions of tests/matrix/versions.toml as outputs of a step of GitHub's workflows.

``nox --list --json`` prints the same, but needs an environment, which would delay all jobs.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

_VERSIONS = Path(__file__).parents[1] / "tests/matrix/versions.toml"

versions = tomllib.loads(_VERSIONS.read_text())
for row in versions["controllers"]:
    # The name that users write, as in make matrix VERSIONS=2.16.
    row["minor"] = row["ansible_core"].rpartition(".")[0]
for kind in ("controllers", "targets"):
    print(f"{kind}={json.dumps(versions[kind])}")
