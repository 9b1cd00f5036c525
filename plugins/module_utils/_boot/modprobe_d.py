# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Foreign configuration of kernel modules: modprobe.d(5), kernel parameters. Reads only.

systemd-modules-load and udev load by libkmod, which asks both; a module's own dependencies are
loaded whatever is blacklisted, but not against the kernel.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES
from .._model.policy import VFIO_PARAMETERS
from .._system.files import KERNEL_COMMAND_LINE, Files
from .._system.kmod import CONFIGURATION, canonical_name

_NEEDS = {bus.vfio_module: bus.vfio_needs for bus in BUSES.values()}
BLACKLIST, INSTALL, OPTIONS, KERNEL_BLACKLIST = (
    "blacklist",
    "install",
    "options",
    "module_blacklist",
)
_OF_COMMAND_LINE = {"modprobe.blacklist": BLACKLIST, "module_blacklist": KERNEL_BLACKLIST}


class Requirements(NamedTuple):
    """Modules to be loaded at the next boot, and parameters by "module.parameter"; values 0, 1."""

    modules: Sequence[str]
    parameters: Mapping[str, bool]


class Line(NamedTuple):
    """A line about one module: its location, its text and what it comes to.

    ``module`` is spelt as the kernel does it; ``rest`` follows it.
    """

    location: str
    text: str
    command: str
    module: str
    rest: Sequence[str] = ()

    @property
    def blocks_autoload(self) -> bool:
        """Whether the module is not loaded at boot."""
        return self.command == BLACKLIST or self.blocks_all_loading

    @property
    def blocks_all_loading(self) -> bool:
        """Whether it is not even loaded where another module needs it."""
        return self.command == KERNEL_BLACKLIST or (
            self.command == INSTALL and not {"-i", "--ignore-install"} & set(self.rest)
        )

    @property
    def label(self) -> str:
        return "%s has '%s'" % (self.location, self.text)

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        """What it sets: each parameter as "module.parameter", and the text that sets it."""
        for word in self.rest if self.command == OPTIONS else ():
            yield "%s.%s" % (self.module, canonical_name(word.partition("=")[0])), word

    def conflicts(self, parameters: Mapping[str, bool]) -> Iterator[tuple[str, bool]]:
        """Yield what it sets to another value than ``parameters``: its text, and their value."""
        for name, word in self.settings:
            value = word.partition("=")[2]
            wanted = parameters.get(name)
            if wanted is not None and (value[:1] in ("1", "y", "Y")) != wanted:
                yield "%s.%s" % (self.module, word), wanted


def lines(files: Files, ours: str, *, is_running: bool = True) -> list[Line]:
    """Return all foreign lines; kernel parameters count for a system that is running."""
    configured = [
        line
        for path in files.drop_in_files(CONFIGURATION, ".conf", ours)
        for line in parsed(path, files.read(path) or "")
    ]
    return configured + (
        _on_command_line(files.read(KERNEL_COMMAND_LINE) or "") if is_running else []
    )


def parsed(path: str, content: str) -> list[Line]:
    """Return the lines of one file of modprobe.d."""
    parsed_lines = []
    waiting = ""
    for number, text in enumerate(_text.lines(content), 1):
        whole = waiting + text
        waiting = whole[:-1] + " " if whole.endswith("\\") else ""
        words = _text.words(whole)
        if not waiting and len(words) > 1 and not words[0].startswith("#"):
            command, module, *rest = words
            location = "%s:%d" % (path, number)
            parsed_lines.append(
                Line(location, " ".join(words), command, canonical_name(module), rest)
            )
    return parsed_lines


def _on_command_line(content: str) -> list[Line]:
    lines_of_kernel = []
    for word in _text.words(content):
        key, _equals, value = word.partition("=")
        module, dot, parameter = key.partition(".")
        if key in _OF_COMMAND_LINE:
            lines_of_kernel += [
                Line(KERNEL_COMMAND_LINE, word, _OF_COMMAND_LINE[key], canonical_name(name))
                for name in value.split(",")
            ]
        elif dot:
            rest = ["%s=%s" % (parameter, value)]
            lines_of_kernel.append(
                Line(KERNEL_COMMAND_LINE, word, OPTIONS, canonical_name(module), rest)
            )
    return lines_of_kernel


def blocking(known: Sequence[Line], modules: Sequence[str]) -> list[Line]:
    """Return the lines by which ``modules``, or what they need, are not loaded at boot."""
    named = {canonical_name(module) for module in modules}
    needed = with_needs(named)
    return [
        line
        for line in known
        if line.module in (needed if line.blocks_all_loading else named) and line.blocks_autoload
    ]


def with_needs(modules: Iterable[str]) -> set[str]:
    """Return the modules and those that they need, as far as they are VFIO's."""
    named = {canonical_name(module) for module in modules}
    return named.union(*(_NEEDS.get(module, ()) for module in named))


def value_at_boot(known: Sequence[Line], parameter: str) -> str | None:
    """Return the value that lines of others give to "module.parameter"; the last one counts."""
    words = [word for line in known for name, word in line.settings if name == parameter]
    if not words:
        return None
    _key, equals, value = words[-1].partition("=")
    # The kernel takes a name alone for true: param_set_bool in kernel/params.c.
    return value if equals else "1"


def find_conflicts(known: Sequence[Line], required: Requirements) -> list[str]:
    """Return a sentence for each line that conflicts with what is ``required``."""
    sentences = [
        "%s, so %s, which this list requires, is not loaded at boot. Remove that line or "
        "parameter, or set `persistent: false`" % (line.label, line.module)
        for line in blocking(known, required.modules)
    ]
    return sentences + [
        "%s sets %s, but this list sets it to %d at each boot. Remove that setting, or omit `%s`"
        % (line.location, word, value, VFIO_PARAMETERS[word.partition("=")[0]])
        for line in known
        for word, value in line.conflicts(required.parameters)
    ]
