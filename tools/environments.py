# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments of the Pythons on this machine, kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "armfleet-vfio"
_PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


class EnvironmentFailedError(Exception):
    """An environment could not be made; says why."""


@dataclass(frozen=True)
class Environment:
    """A Python, such as 3.8, with packages in it."""

    python: str
    packages: tuple[str, ...]
    # Options of pip, each with the packages that it is for.
    special: tuple[tuple[str, ...], ...] = ()

    def ensure(self) -> Path:
        """The folder of its programs; it is made unless it is there. Needs ``interpreter``."""
        interpreter = find_interpreter(self.python)
        if interpreter is None:
            raise EnvironmentFailedError(f"Python {self.python} is not on this machine")
        place = _CACHE / f"python-{self.python}-{self._identity(interpreter)}"
        _CACHE.mkdir(parents=True, exist_ok=True)
        with (_CACHE / f"{place.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "complete").exists():
                self._make(place, interpreter)
        return place / "bin"

    def _identity(self, interpreter: Path) -> str:
        recipe = repr((str(interpreter), self.packages, self.special))
        return hashlib.sha256(recipe.encode()).hexdigest()[:16]

    def _make(self, place: Path, interpreter: Path) -> None:
        # Without its last file it is what an interrupted run left.
        shutil.rmtree(place, ignore_errors=True)
        _run([str(interpreter), "-m", "venv", str(place)])
        pip = [str(place / "bin/pip"), "install", "--disable-pip-version-check", "--quiet"]
        for words in (self.packages, *self.special):
            _run([*pip, *words])
        (place / "complete").touch()


def find_interpreter(python: str) -> Path | None:
    """An interpreter of this version, among those of pyenv and those in PATH."""
    return next((path for path in _candidates(python) if _is_version(path, python)), None)


def _candidates(python: str) -> Iterator[Path]:
    yield from sorted(_PYENV.glob(f"versions/{python}.*/bin/python{python}"))
    in_path = shutil.which(f"python{python}")
    if in_path:
        yield Path(in_path)


def _is_version(interpreter: Path, python: str) -> bool:
    """Whether it runs at all, too: shims of pyenv do not where their version is not chosen."""
    asked = subprocess.run(
        [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return asked.stdout.strip() == python


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-5:])
        raise EnvironmentFailedError(f"{' '.join(command)} failed:\n{last}")
