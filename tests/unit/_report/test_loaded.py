# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info only reads, and loads nothing else: the host compiles all that it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

PACKAGE = device_info.__name__.partition("._report")[0]
INSPECTION = f"{PACKAGE}._report.device_info"
LOADED = f"""\
import sys
import {INSPECTION}
print(*(name for name in sys.modules if name.startswith("{PACKAGE}.")))
"""
# What a refusal of a trial is made by, and the names of links.
SHARED = {f"{PACKAGE}._apply", f"{PACKAGE}._apply.readiness", f"{PACKAGE}._apply.symlinks"}


def test_device_info_loads_nothing_of_the_write_path() -> None:
    path = Path(device_info.__file__)
    root = next(parent for parent in path.parents if parent.name == "ansible_collections")
    output = subprocess.run(
        [sys.executable, "-c", LOADED],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(root.parent)},
        text=True,
        check=True,
    ).stdout
    loaded = set(output.split())
    assert INSPECTION in loaded
    assert {name for name in loaded if name.startswith(f"{PACKAGE}._apply")} <= SHARED
    assert f"{PACKAGE}._boot.boot_files" not in loaded
