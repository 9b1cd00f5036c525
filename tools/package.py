# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/package.py

Builds the collection, installs it, deletes everything but its content, and uses what is left. The
package is in build/package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_TESTS = {"config.yml"}
_KEPT = {"plugins", "roles", "playbooks", "meta", "MANIFEST.json", "FILES.json"}
_MODULES = [f"armfleet.vfio.{path.stem}" for path in Path("plugins/modules").glob("*.py")]
_PLAYBOOKS = [f"armfleet.vfio.{path.stem}" for path in Path("playbooks").glob("*.yml")]


def _strip(collection: Path) -> None:
    for path in collection.iterdir():
        if path.name in _KEPT:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def main(directory: Path) -> None:
    """Build, install and check the package in ``directory``."""
    shutil.rmtree(directory, ignore_errors=True)
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(directory)}
    # The working tree's copy must not provide a file that the package lacks.
    del environment["PYTHONPATH"]

    def run(*words: str, cwd: Path = directory.parent) -> str:
        done = subprocess.run(
            words, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    source = Path.cwd()
    run("ansible-galaxy", "collection", "build", "--output-path", str(directory), str(source))
    (archive,) = directory.glob("*.tar.gz")
    run("ansible-galaxy", "collection", "install", "--offline", "-p", str(directory), str(archive))
    installed = directory / "ansible_collections/armfleet/vfio"
    tests = {path.name for path in (installed / "tests").iterdir()}
    if tests != _TESTS:
        sys.exit(f"galaxy.yml lets {sorted(tests)} of tests into the package")
    run(sys.executable, "-m", "extensions.simulator", "status", cwd=installed)
    _strip(installed)
    documented = json.loads(run("ansible-doc", "--json", *_MODULES))
    for module in _MODULES:
        if not documented[module]["doc"]["filename"].startswith(str(directory)):
            sys.exit(f"ansible-doc shows another {module} than the installed one")
    run("ansible-playbook", "--syntax-check", "--inventory", "localhost,", *_PLAYBOOKS)


if __name__ == "__main__":
    main(Path.cwd().parents[2] / "package")
