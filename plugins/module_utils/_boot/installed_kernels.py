# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the installed kernels have the modules that a list needs. Reads only."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, Sequence

from .. import _text
from .._system.files import Files
from .._system.kmod import module_of

_MODULES = "/lib/modules/"
_DEPENDENCIES, _BUILT_IN = "modules.dep", "modules.builtin"


class Kernel(NamedTuple):
    """An installed kernel, and which modules that were asked for it lacks.

    One that ``is_new`` was installed after this machine was booted, so that no boot loader has
    passed it over yet.
    """

    release: str
    is_running: bool
    is_new: bool
    missing: Sequence[str]


class InstalledKernels:
    """The kernels of /lib/modules; the files of each are read once, and if they are needed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._texts: dict[str, tuple[str, str]] = {}
        self._lost: dict[str, str | None] = {}

    def lacking(self, modules: Sequence[str]) -> list[Kernel]:
        """Return every kernel, with those of ``modules`` that it lacks."""
        if not modules:
            return []
        running = os.uname().release
        booted = self._booted_at()
        return [
            Kernel(
                release,
                release == running,
                release != running and self._is_newer(release, booted),
                [module for module in modules if self._explain_missing(release, module)],
            )
            for release in self._files.names(_MODULES[:-1])
            if any(self._text(release))
        ]

    def lost_file(self, module: str) -> str | None:
        """Return a file of the running kernel that loading ``module`` needs and that is gone."""
        if module not in self._lost:
            path = self._explain_missing(os.uname().release, module)
            self._lost[module] = path if path != module else None
        return self._lost[module]

    def _explain_missing(self, release: str, module: str) -> str | None:
        """Return the module, if it is not known, or else the path of a file that is not there."""
        built_in = self._text(release)[1]
        if re.search(r"^\S*/%s\.ko$" % _pattern(module), built_in, re.MULTILINE):
            return None
        entry = self._paths(release, module)
        if not entry:
            return module
        paths = [_MODULES + release + "/" + path for path in entry]
        return next((path for path in paths if self._files.changed_at(path) is None), None)

    def dependencies(self, module: str) -> set[str] | None:
        """Return the modules of the running kernel that ``module`` depends on, in the kernel's
        spelling, but for what is built in; None if it has no such module.
        """
        paths = self._paths(os.uname().release, module)
        return set(map(module_of, paths[1:])) if paths else None

    def _paths(self, release: str, module: str) -> list[str]:
        """Return the paths of a module and of its dependencies in modules.dep; none without it."""
        line = r"^(\S*/)?%s\.ko[.\w]*:.*$" % _pattern(module)
        entry = re.search(line, self._text(release)[0], re.MULTILINE)
        return _text.words(entry[0].replace(":", " ", 1)) if entry else []

    def _text(self, release: str) -> tuple[str, str]:
        if release not in self._texts:
            directory = _MODULES + release + "/"
            self._texts[release] = (
                self._files.read_drop_in(directory + _DEPENDENCIES) or "",
                self._files.read_drop_in(directory + _BUILT_IN) or "",
            )
        return self._texts[release]

    def _booted_at(self) -> float | None:
        match = re.fullmatch("btime ([0-9]+)", self._files.read_line("/proc/stat", "btime ") or "")
        return float(match.group(1)) if match else None

    def _is_newer(self, release: str, moment: float | None) -> bool:
        # depmod writes its own files again and again; this one comes with the kernel alone.
        placed = self._files.placed_at(_MODULES + release + "/" + _BUILT_IN)
        return moment is not None and placed is not None and placed > moment


def _pattern(module: str) -> str:
    """Return the expression for the name of a module in either spelling."""
    return re.sub("[-_]", "[-_]", re.escape(module).replace("\\-", "-"))
