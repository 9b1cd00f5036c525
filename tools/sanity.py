# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/sanity.py WORD...

Runs ``ansible-test sanity WORD...`` of this Python in the collection's directory. Its environments
are in the cache, separate for each version, and it downloads no pip. The sessions that
antsibull-nox has for it need containers, and ansible-core from GitHub.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible.release import __version__
from ansible_test._internal.python_requirements import get_venv_packages

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armfleet-vfio"
_HOME = _CACHE / f"ansible-test-{__version__}-{_PYTHON}"

# Replaces the program that ansible-test would download.
_GET_PIP = """\
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
"""


def _environment(program: Path) -> dict[str, str]:
    """Return an environment with a separate HOME, so that our get_pip is not in the user's."""
    _offer_pip(_HOME / ".ansible/test/cache")
    return {
        **os.environ,
        "HOME": str(_HOME),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),
        # Without it, ansible-test asks git for the files, and git ignores the copy.
        "ANSIBLE_TEST_CONTENT_ROOT": str(Path.cwd()),
        "PATH": os.pathsep.join([str(program.parent), *_other_pythons(), os.environ["PATH"]]),
    }


def _offer_pip(directory: Path) -> None:
    version = get_venv_packages(SimpleNamespace(version=_PYTHON))["pip"]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"get_pip_{version.replace('.', '_')}.py").write_text(_GET_PIP)


def _other_pythons() -> list[str]:
    """Return the directories of pyenv's interpreters; its shims would run only some of them."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(path) for path in sorted(root.glob("versions/3.*/bin"))]


def _wait_for_others(home: Path) -> None:
    """Take a lock until this process ends: two would break an environment that both create."""
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)


def main() -> None:
    """Replace this process by ansible-test."""
    _wait_for_others(_HOME)
    program = Path(sys.executable).with_name("ansible-test")
    os.execve(program, [str(program), "sanity", *sys.argv[1:]], _environment(program))


if __name__ == "__main__":
    main()
