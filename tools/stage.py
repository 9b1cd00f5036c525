# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/stage.py COMMAND [ARGUMENT...]

Runs COMMAND in a copy of the working tree, at a path where Ansible searches for collections:
build/ansible_collections/armfleet/vfio. The copy has the files that git tracks or does not ignore.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
COLLECTION = BUILD / "ansible_collections" / "armfleet" / "vfio"
# ansible-test has its temporary files there, and may run while another command is staged.
_OUTPUT = COLLECTION / "tests" / "output"


def sources() -> set[Path]:
    """Return the files of the working tree that git tracks or does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names = (Path(name) for name in listing.split("\0") if name)
    return {name for name in names if (ROOT / name).is_file()}


def _is_same(source: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    ours, theirs = source.stat(), copy.stat()
    return (ours.st_size, ours.st_mtime_ns, ours.st_mode) == (
        theirs.st_size,
        theirs.st_mtime_ns,
        theirs.st_mode,
    )


def _copies() -> Iterator[Path]:
    """Yield what is in the copy but for the output of ansible-test."""
    for directory, directories, files in os.walk(COLLECTION):
        if directory == str(_OUTPUT.parent) and _OUTPUT.name in directories:
            directories.remove(_OUTPUT.name)
        yield from (Path(directory, name) for name in [*directories, *files])


def stage() -> None:
    """Make the copy the same as the working tree, but for the output of ansible-test."""
    names = sources()
    for copy in sorted(_copies(), reverse=True):
        name = copy.relative_to(COLLECTION)
        if copy.is_dir() and not copy.is_symlink():
            if not any(copy.iterdir()):
                copy.rmdir()
        elif name not in names:
            copy.unlink()
    for name in names:
        source, copy = ROOT / name, COLLECTION / name
        if not _is_same(source, copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def environment() -> dict[str, str]:
    """Return variables by which Python and Ansible find the copy, and caches are outside it."""
    cache = BUILD / "cache"
    return {
        **os.environ,
        "PYTHONPATH": str(BUILD),
        "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
        # With a prefix, Python ignores what pip compiled, and would compile all in each process.
        "PYTHONDONTWRITEBYTECODE": "",
        "ANSIBLE_COLLECTIONS_PATH": str(BUILD),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(cache / "hypothesis"),
        "MYPYPATH": str(BUILD),
        "MYPY_CACHE_DIR": str(cache / "mypy"),
        "PYTEST_ADDOPTS": f"-o cache_dir={cache / 'pytest'}",
        "RUFF_CACHE_DIR": str(cache / "ruff"),
    }


def main() -> None:
    """Stage, then replace this process by the command."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "stage.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage()
    os.chdir(COLLECTION)
    os.execvpe(sys.argv[1], sys.argv[1:], environment())


if __name__ == "__main__":
    main()
