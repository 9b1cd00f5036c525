# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/importer.py FOLDER

Has Galaxy's importer read the package in FOLDER, as Galaxy does; a warning of it is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from environments import Environment

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_VERSIONS = Path("tests/matrix/versions.toml")
_SETTINGS = """\
[galaxy-importer]
check_required_tags = true
"""


def _import(archive: Path) -> tuple[int, str]:
    """The importer's exit status, and what it says."""
    packages = tomllib.loads(_VERSIONS.read_text())["galaxy_importer"]["packages"]
    programs = Environment(_PYTHON, tuple(packages)).ensure()
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    # The working tree's copy must not stand in for a file that the package lacks.
    environment.pop("PYTHONPATH", None)
    environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.cfg"
        settings.write_text(_SETTINGS)
        done = subprocess.run(
            [str(programs / "python"), "-m", "galaxy_importer.main", str(archive)],
            # It leaves its result in the folder in which it runs.
            cwd=folder,
            env={**environment, "GALAXY_IMPORTER_CONFIG": str(settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return done.returncode, done.stdout


def main(place: Path) -> int:
    """Returns the exit status."""
    (archive,) = place.glob("*.tar.gz")
    status, said = _import(archive)
    complaints = [line for line in said.splitlines() if line.startswith(("WARNING", "ERROR"))]
    if status or complaints:
        print(said)
    return status or bool(complaints)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
