# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Foreign configuration of kernel modules: modprobe.d(5), kernel parameters. Reads only.

systemd-modules-load and udev load by libkmod, which asks both; a module's own dependencies are
loaded whatever is blacklisted, but not against the kernel. What commands do is in
module_loading.py.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

from .. import _text
from .._discovery.kernel_version import running_version
from .._model.buses import BUSES
from .._model.policy import CONTAINER_MODULE, VFIO_PARAMETERS
from .._system import modprobe_conf
from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE, kernel_parameters
from .._system.kmod import canonical_name
from .last_applied import MODPROBE
from .vfio_parameters import TYPED, is_refused, is_true

_NEEDS = {bus.vfio_module: bus.vfio_needs for bus in BUSES.values()}
ALIAS, BLACKLIST, INSTALL, OPTIONS, KERNEL_BLACKLIST = (
    "alias",
    "blacklist",
    "install",
    "options",
    "module_blacklist",
)
# How many words each command must have: kmod_config_parse in libkmod/libkmod-config.c, which
# ignores all other lines.
_LEAST_WORDS = {
    ALIAS: 3,
    BLACKLIST: 2,
    INSTALL: 3,
    OPTIONS: 3,
    "remove": 3,
    "softdep": 3,
    "weakdep": 3,
}
# Commands of an install line that load nothing, whatever their arguments.
_NO_LOADING = frozenset(("true", "false", ":", "exit", "echo", "logger"))
# What starts another command in a line of sh, which modprobe has run it.
_MORE_COMMANDS = re.compile("[;&|`]|\\$\\(")
_SEPARATORS = re.compile(r"(&&|\|\||[;&|])")
_CONDITIONAL = ("&&", "||")
_IGNORES_INSTALL = re.compile("--ignore-install|-[A-Za-z]*i[A-Za-z]*")
# command_do in libkmod/libkmod-module.c.
_OWN_NAME = ("$MODPROBE_MODULE", "${MODPROBE_MODULE}", '"$MODPROBE_MODULE"')
# A module that has to be loaded now is kept away now as well, but for "blacklist".
_OR_NOT_PERSISTENT = ", or set `persistent: false`"
_NOT_LOADED = (
    "%s, so %s, which this list requires, is not loaded at boot. Remove that line or parameter%s"
)
_OTHER_VALUE = (
    "%s sets %s, but this list sets it to %d at each boot. Remove that setting, or omit `%s`"
)
_KERNEL_BLACKLIST = KERNEL_BLACKLIST + "="


class Requirements(NamedTuple):
    """Modules to be loaded at the next boot, and parameters by "module.parameter"; values 0, 1."""

    modules: Sequence[str]
    parameters: Mapping[str, bool]


class Line(NamedTuple):
    """A line about one module: its location, its text and what it comes to.

    ``module`` is spelt as the kernel does it, or the pattern of an alias or of modules that a
    command is for; ``rest`` follows it. The kernel does not load the module with what is
    ``refused``, parameters with their values.
    """

    location: str
    text: str
    command: str
    module: str
    rest: Sequence[str] = ()
    refused: Sequence[str] = ()

    @property
    def blocks_autoload(self) -> bool:
        """Whether the module is not loaded at boot."""
        return self.command == BLACKLIST or self.blocks_all_loading

    @property
    def leads_away(self) -> bool:
        """Whether the module's name means another module to who asks for it, or "off" none."""
        return self.command == ALIAS and canonical_name(self.rest[0]) != self.module

    @property
    def blocks_all_loading(self) -> bool:
        """Whether it is not even loaded where another module needs it."""
        return (
            self.command == KERNEL_BLACKLIST
            or bool(self.refused)
            or (self.command == INSTALL and not self._loads_it and self._loads_nothing)
        )

    @property
    def runs_command(self) -> bool:
        """Whether a command is run instead of loading the module, which may load it or not.

        It is often a script that sets overrides before it loads the module.
        """
        return self.command == INSTALL and not self._loads_it and not self._loads_nothing

    def is_about(self, module: str) -> bool:
        """Return whether it is about a module; that of a command is a pattern, as is an alias.

        kmod_module_get_install_commands in libkmod/libkmod-module.c.
        """
        if self.command not in (INSTALL, ALIAS):
            return self.module == module
        # fnmatch(3) takes both characters for "none of".
        return _text.is_like(module, self.module.replace("[^", "[!"))

    @property
    def _loads_it(self) -> bool:
        """Whether one of its commands is modprobe itself, for the module, on no condition."""
        separator = ""
        for part in _SEPARATORS.split(" ".join(self.rest)):
            if _SEPARATORS.fullmatch(part):
                separator = part
            elif separator not in _CONDITIONAL and self._is_modprobe(modprobe_conf.words(part)):
                return True
        return False

    def _is_modprobe(self, words: Sequence[str]) -> bool:
        program, *arguments = [*words[words[:1] == ["exec"] :], ""]
        return (
            program.rpartition("/")[2] == "modprobe"
            and any(map(_IGNORES_INSTALL.fullmatch, arguments))
            and any(word in _OWN_NAME or self.is_about(canonical_name(word)) for word in arguments)
        )

    @property
    def _loads_nothing(self) -> bool:
        program = self.rest[0].rpartition("/")[2]
        return program in _NO_LOADING and not _MORE_COMMANDS.search(" ".join(self.rest))

    @property
    def label(self) -> str:
        label = "%s has '%s'" % (self.location, self.text)
        if self.refused:
            label += ", and the kernel refuses %s" % " and ".join(self.refused)
        return label

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        """What it sets: each parameter as "module.parameter", and the text that sets it.

        They are split and unquoted as the kernel does it, which modprobe leaves it to; parse_args
        in kernel/params.c stops at "--".
        """
        parameters = kernel_parameters(" ".join(self.rest)) if self.command == OPTIONS else ()
        for word in takewhile("--".__ne__, parameters):
            yield "%s.%s" % (self.module, canonical_name(word.partition("=")[0])), word

    @property
    def comes_after_ours(self) -> bool:
        """Whether modprobe reads it after our own file, and the kernel takes its value therefore.

        Files are read in the order of their names, and after them the command line:
        kmod_config_new in libkmod/libkmod-config.c.
        """
        path = self.location.rpartition(":")[0]
        return not path or path.rpartition("/")[2] > MODPROBE.rpartition("/")[2]


def lines(files: Files, ours: str, *, is_running: bool = True) -> list[Line]:
    """Return all foreign lines; kernel parameters count for a system that is running."""
    known = [
        line
        for path in modprobe_conf.paths(files, ours)
        for line in parsed(path, files.read_drop_in(path) or "")
    ]
    if is_running:
        known += on_command_line(files.read(KERNEL_COMMAND_LINE) or "")
    return _with_refused(files, known)


def _with_refused(files: Files, known: list[Line]) -> list[Line]:
    if not any(name in TYPED for line in known for name, _word in line.settings):
        return known
    version = running_version(files)
    return [
        line._replace(
            refused=[
                word for name, word in line.settings if is_refused(name, _given(word), version)
            ]
        )
        for line in known
    ]


def parsed(path: str, content: str) -> list[Line]:
    """Return the lines of one file of modprobe.d that modprobe does not ignore."""
    parsed_lines = []
    for number, text in modprobe_conf.lines(content):
        words = modprobe_conf.words(text)
        if words and len(words) >= _LEAST_WORDS.get(words[0], len(words) + 1):
            command, module, *rest = words
            location = "%s:%d" % (path, number)
            parsed_lines.append(
                Line(location, " ".join(words), command, canonical_name(module), rest)
            )
    return parsed_lines


def on_command_line(content: str) -> list[Line]:
    """Return the lines of the kernel command line, as libkmod and the kernel each read it."""
    known = []
    for text, module, name, value in modprobe_conf.module_parameters(content):
        if (module, name) == ("modprobe", BLACKLIST) and value is not None:
            # kcmdline_parse_result in libkmod/libkmod-config.c: a name is compared with those of
            # modules as it is, with its dashes and quotation marks.
            known += [Line(KERNEL_COMMAND_LINE, text, BLACKLIST, name) for name in value.split(",")]
        else:
            rest = [name if value is None else "%s=%s" % (name, value)]
            known.append(Line(KERNEL_COMMAND_LINE, text, OPTIONS, canonical_name(module), rest))
    return known + _blacklisted_by_kernel(kernel_parameters(content))


def _blacklisted_by_kernel(parameters: Sequence[str]) -> list[Line]:
    """Return the modules that the kernel does not load, by the last such parameter.

    blacklisted in kernel/module/main.c compares names as modules have them, without dashes. What
    follows "--" is for init.
    """
    of_kernel = parameters[: parameters.index("--")] if "--" in parameters else parameters
    given = [word for word in of_kernel if word.startswith(_KERNEL_BLACKLIST)]
    return [
        Line(KERNEL_COMMAND_LINE, word, KERNEL_BLACKLIST, name)
        for word in given[-1:]
        for name in word[len(_KERNEL_BLACKLIST) :].split(",")
    ]


def _given(word: str) -> str | None:
    _name, equals, value = word.partition("=")
    return value if equals else None


def _value(word: str) -> str:
    """Return what a word sets; a name alone is true: param_set_bool in kernel/params.c."""
    value = _given(word)
    return "1" if value is None else value


def blocking(known: Sequence[Line], modules: Iterable[str], needed: Iterable[str]) -> list[Line]:
    """Return the lines by which ``modules``, or what they need, are not loaded at boot.

    ``needed`` are both.
    """
    named = {canonical_name(module) for module in modules}
    of_modules = [
        line._replace(module=module)
        for line in known
        for module in sorted(needed if line.blocks_all_loading else named)
        if line.is_about(module)
    ]
    return [line for line in of_modules if line.blocks_autoload or line.leads_away]


def running_commands(known: Sequence[Line], needed: Iterable[str]) -> list[Line]:
    """Return the lines by which it depends on a command whether modules are loaded at boot.

    ``needed`` are these modules and all that they need.
    """
    return [line for line in known if line.module in needed and line.runs_command]


def blocking_containers(known: Sequence[Line], *, is_vfio_built_in: bool) -> list[Line]:
    """Return the lines by which no module is loaded at boot that containers of VFIO need.

    vfio asks for it by a softdep, which libkmod follows whatever is blacklisted
    (kmod_module_probe_insert_module in libkmod/libkmod-module.c), unless vfio is built in.
    """
    return [
        line
        for line in known
        if line.module == CONTAINER_MODULE
        and (
            line.blocks_all_loading
            or line.leads_away
            or (line.command == BLACKLIST and is_vfio_built_in)
        )
    ]


def with_needs(modules: Iterable[str]) -> set[str]:
    """Return the modules and those that they need, as far as they are VFIO's."""
    named = {canonical_name(module) for module in modules}
    return named.union(*(_NEEDS.get(module, ()) for module in named))


def value_at_boot(known: Sequence[Line], parameter: str) -> str | None:
    """Return the value that lines of others give to "module.parameter".

    The last one counts that the kernel accepts, which is that of a module that is built in; another
    one is not loaded with what the kernel refuses.
    """
    words = [
        word
        for line in known
        for name, word in line.settings
        if name == parameter and word not in line.refused
    ]
    return _value(words[-1]) if words else None


def find_conflicts(
    known: Sequence[Line],
    required: Requirements,
    needed: Iterable[str],
    is_loaded: Callable[[str], bool],
) -> list[tuple[Line, str]]:
    """Return each line that conflicts with what is ``required``, with a sentence on it.

    ``needed`` are its modules and all that they need; ``is_loaded`` tells it of one of them.
    """
    conflicts = [
        (
            line,
            _NOT_LOADED
            % (
                line.label,
                line.module,
                _OR_NOT_PERSISTENT if line.command == BLACKLIST or is_loaded(line.module) else "",
            ),
        )
        for line in blocking(known, required.modules, needed)
    ]
    return conflicts + [
        (
            line,
            _OTHER_VALUE
            % (
                line.location,
                word,
                value,
                VFIO_PARAMETERS[canonical_name(word.partition("=")[0])],
            ),
        )
        for line, word, value in find_other_values(known, required.parameters)
    ]


def find_other_values(
    known: Sequence[Line], parameters: Mapping[str, bool]
) -> list[tuple[Line, str, bool]]:
    """Return what sets another value than ``parameters`` do at boot: line, text, their value.

    The last of several values counts.
    """
    last: dict[str, tuple[Line, str]] = {}
    for line in known:
        for name, word in line.settings:
            if name in parameters and line.comes_after_ours and word not in line.refused:
                last[name] = line, word
    return [
        (line, "%s.%s" % (line.module, word), parameters[name])
        for name, (line, word) in last.items()
        if is_true(_value(word)) is not parameters[name]
    ]
