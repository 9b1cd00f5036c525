# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What foreign configuration makes of modules and of those that they depend on. Reads only.

Only libkmod knows which commands of modprobe.d it runs: of several that match a module the first
one, and none for a module with softdeps that exist, whether it is asked for or another module
depends on it (__kmod_module_fill_softdep and kmod_module_get_install_commands in
libkmod/libkmod-module.c). A command that fails for a dependency ends the loading
(kmod_module_probe_insert_module); without the dependency the kernel does not find its symbols.
So modprobe is asked, and the files are read for the location.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from .. import _text
from .._system.kmod import Kmod, canonical_name
from . import modprobe_d
from .installed_kernels import InstalledKernels
from .modprobe_d import INSTALL, KERNEL_BLACKLIST, Line

_SHOWN = "modprobe --show-depends "


class ModuleLoading:
    """``known`` are the foreign lines of modprobe.d and of the kernel command line."""

    def __init__(self, kmod: Kmod, known: Sequence[Line], kernels: InstalledKernels) -> None:
        self._kmod = kmod
        self._known = known
        self._kernels = kernels
        self._has_commands = any(line.command == INSTALL for line in known)
        self._concerns_dependencies = self._has_commands or any(
            line.command == KERNEL_BLACKLIST or line.refused for line in known
        )

    def needed(self, modules: Iterable[str]) -> set[str]:
        """Return the modules, and those that they depend on as far as that matters here.

        Of what this kernel does not have, only what VFIO's modules depend on is known.
        """
        if not self._concerns_dependencies:
            return modprobe_d.with_needs(modules)
        needed = set()
        for module in map(canonical_name, modules):
            dependencies = self._kernels.dependencies(module)
            by_table = modprobe_d.with_needs([module])
            needed |= by_table if dependencies is None else {module, *dependencies}
        return needed

    def blocking(self, modules: Iterable[str]) -> list[Line]:
        """Return the lines by which ``modules``, or what they need, are not loaded at boot."""
        named = list(modules)
        needed = self.needed(named)
        return modprobe_d.blocking(self.followed(needed), named, needed)

    def running_commands(self, modules: Iterable[str]) -> list[Line]:
        """Return the lines by which it depends on a command whether ``modules`` are loaded."""
        needed = self.needed(modules)
        return modprobe_d.running_commands(self.followed(needed), needed)

    def of_module(self, module: str) -> list[Line]:
        """Return the lines about a module, and those by which a dependency keeps it away."""
        needed = self.needed([module])
        return [
            line._replace(module=module)
            for line in self.followed(needed)
            if line.module == module
            or (line.module in needed and (line.blocks_all_loading or line.runs_command))
        ]

    def followed(self, modules: Iterable[str]) -> list[Line]:
        """Return all lines but for commands, and of these the ones that are run instead of loading
        one of ``modules``, each with that module.
        """
        if not self._has_commands:
            return list(self._known)
        run = [
            (line, module)
            for module in sorted(set(map(canonical_name, modules)))
            for line in [self._command_of(module)]
            if line
        ]
        lines: list[Line] = []
        for known in self._known:
            if known.command != INSTALL:
                lines.append(known)
            lines += [line._replace(module=module) for line, module in run if line is known]
        return lines + [line for line, _module in run if line not in self._known]

    def _command_of(self, module: str) -> Line | None:
        """Return the line of the command that is run instead of loading a module."""
        candidates = [
            line for line in self._known if line.command == INSTALL and line.is_about(module)
        ]
        command = self._kmod.command_instead(module)
        if command is None:
            return candidates[0] if candidates else None
        if not command:
            return None
        words = _text.words(command)
        of_files = [*candidates, *(line for line in self._known if line.command == INSTALL)]
        # The options of the module follow the command.
        by_text = [line for line in of_files if words[: len(line.rest)] == list(line.rest)]
        shown = Line(_SHOWN + module, "install " + command, INSTALL, module, words)
        return by_text[0] if by_text else shown
