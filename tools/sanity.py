# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/sanity.py WORD...

Become ``ansible-test sanity WORD...`` of this Python, in the collection's directory.
It makes its environments in the cache, for each version apart, and downloads no pip. The sessions
that antsibull-nox has for it need containers, and ansible-core from GitHub.
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

# What ansible-test would download from a host of its own.
_GET_PIP = """\
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
"""


def _environment(program: Path) -> dict[str, str]:
    """Return a home of its own, so that the user's is not given our way to get pip."""
    _offer_pip(_HOME / ".ansible/test/cache")
    return {
        **os.environ,
        "HOME": str(_HOME),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),
        # Without it git is asked for the files, and git ignores the copy.
        "ANSIBLE_TEST_CONTENT_ROOT": str(Path.cwd()),
        "PATH": os.pathsep.join([str(program.parent), *_other_pythons(), os.environ["PATH"]]),
    }


def _offer_pip(folder: Path) -> None:
    version = get_venv_packages(SimpleNamespace(version=_PYTHON))["pip"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"get_pip_{version.replace('.', '_')}.py").write_text(_GET_PIP)


def _other_pythons() -> list[str]:
    """Folders of the interpreters that pyenv keeps; its own shims would only run some of them."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(path) for path in sorted(root.glob("versions/3.*/bin"))]


def _wait_for_others(home: Path) -> None:
    """Two that make the same environment spoil it; the lock is kept until this process ends."""
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)


def main() -> None:
    """Become ansible-test."""
    _wait_for_others(_HOME)
    program = Path(sys.executable).with_name("ansible-test")
    os.execve(program, [str(program), "sanity", *sys.argv[1:]], _environment(program))


if __name__ == "__main__":
    main()
