# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which commands, scripts and units that udev rules start may bind drivers. Reads only.

Commands are not run: what a script or a unit does is not known beyond the names in it.
"""

from __future__ import annotations

import functools
import re
from typing import Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._system.files import Files

OVERRIDE, UNBIND, BIND, REMOVE = "override", "unbind", "bind", "remove"

KINDS = {"driver_override": OVERRIDE, "unbind": UNBIND, "bind": BIND, "remove": REMOVE}
# As in RUN+="/bin/sh -c 'echo vfio-platform > /sys/%p/driver_override'", or with tee.
WRITE = re.compile(
    r"(?:echo|printf)\s+(?!\s)(?:-\w+\s+(?!\s)){0,8}([^\s;&|>]*(?:\\n)?)\s*"
    r"(?:>>?\s*|\|\s*(?:\S*sudo\s+)?\S*tee\s+(?:-a\s+)?)([^\s;&|]+)"
)
QUOTES = "\\\"'"
# What its own rule starts for each device: it sets what is stored, which is read as such.
_LOADING_STORED = re.compile(r"\bdriverctl\s+load-override\b")
_SYSTEMCTL = re.compile(r"\bsystemctl\s+([^;&|]*)")
_STARTING = frozenset(("start", "restart", "try-restart", "reload-or-restart", "enable"))
# modprobe(8) with -r or --remove, or rmmod(8), of a module of a VFIO driver. The bound devices hold
# no reference to it (module_add_driver in drivers/base/module.c), so that it can be unloaded unless
# somebody has one of them open.
UNLOADING = re.compile(
    r"\b(?:modprobe(?=[^;&|\n]{0,200}\s(?:-[a-z]{0,9}r|--rem))|rmmod)\s+(?=[^;&|\n]{0,200}vfio)"
    r"([^;&|\n]{0,200})"
)
BINDING_WORDS = re.compile(
    r"driver_override|driverctl|drivers_probe|\bunbind\b|[/}\]]bind\b|\bnew_id\b"
    r"|(?:>|\btee\s(?:\s*-a\s)?)\s*[^\s;&|>]*/remove(?![\w./-])|%s" % UNLOADING.pattern
)
_PATH = re.compile(r"(?<![\w.$%}])/[\w./+@:-]+")
_NO_SCRIPTS = ("/sys/", "/dev/", "/proc/", "/run/udev/")
_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
# What starts a command or another unit, at once or later.
_SETTING = re.compile(
    r"^[ \t]*(Exec(?:StartPre|StartPost|Start|Condition)|Wants|Requires|BindsTo|Upholds|OnSuccess"
    r"|OnFailure|Unit|Service)[ \t]*=[ \t]*(.*)$",
    re.MULTILINE,
)
_PREFIXES = "@:+!|- \t"
_PULLING_DIRECTORIES = (".wants", ".requires", ".upholds")
_TRIGGERS = (".timer", ".path", ".socket")
# What each boot starts whatever rules do: systemd.special(7).
_STARTED_ANYWAY = frozenset(
    name + ".target"
    for name in (
        *("basic", "sysinit", "local-fs", "local-fs-pre", "network", "network-pre", "multi-user"),
        *("graphical", "default", "sockets", "timers", "paths", "swap", "network-online"),
    )
)
# A directory beside a unit.
_UNIT_DIRECTORY = re.compile(r"\.(?:d|wants|requires|upholds)\Z")
_SUBSTITUTED = re.compile(r"(?:\$\w+|%\w)(?:\{[^}]*\})?")
_UNIT_TYPES = (".service", ".target", ".socket", ".timer", ".path", ".mount")
_DEEPEST = 3
# Names of units with instances have no end: so many are followed from a command.
_MOST_UNITS = 64


class _Unit(NamedTuple):
    """The commands of a unit, and the units that are started with it or by it."""

    commands: Sequence[str] = ()
    started: Sequence[str] = ()


class Commands:
    """Judges commands by their text, and by the scripts and units that they name."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._scripts: dict[str, str | None] = {}
        self._units: dict[str, _Unit] = {}
        self._can_bind: dict[str, bool] = {}
        self._can_unit_bind: dict[str, bool] = {}

    def can_bind(self, text: str) -> bool:
        """Return whether a command, a script or a unit in it has words for binding drivers."""
        if text not in self._can_bind:
            self._can_bind[text] = self._has_words(text, is_deepest=False) or self._have_words(
                started_units(text), 1
            )
        return self._can_bind[text]

    def can_unit_bind(self, unit: str) -> bool:
        """Return whether the commands of a unit have words for binding drivers."""
        if unit not in self._can_unit_bind:
            self._can_unit_bind[unit] = self._have_words([unit], 0)
        return self._can_unit_bind[unit]

    def _have_words(self, units: Iterable[str], depth: int) -> bool:
        return any(
            self._has_words(command, is_deepest=is_deepest)
            for command, is_deepest in self.follow(units, depth, set())
        )

    def _has_words(self, text: str, *, is_deepest: bool) -> bool:
        if BINDING_WORDS.search(_LOADING_STORED.sub("", text)) or _writes_attribute(text):
            return True
        return not is_deepest and any(map(BINDING_WORDS.search, self.named_scripts(text)))

    def follow(
        self, units: Iterable[str], depth: int, final: set[str]
    ) -> Iterator[tuple[str, bool]]:
        """Yield the commands of units and of those that they start, each unit once.

        Beside each whether it is too deep to be followed. What the user of it adds to ``final`` is
        not followed either.
        """
        level = list(dict.fromkeys(units))[:_MOST_UNITS]
        visited = set(level)
        for current in range(depth, _DEEPEST + 2):
            units_of_level = [self._unit(unit) for unit in level]
            started = dict.fromkeys(name for unit in units_of_level for name in unit.started)
            for command in dict.fromkeys(c for unit in units_of_level for c in unit.commands):
                yield command, current > _DEEPEST
                if command not in final:
                    started.update(dict.fromkeys(started_units(command)))
            level = [unit for unit in started if unit not in visited]
            level = level[: _MOST_UNITS - len(visited)]
            visited.update(level)

    def named_scripts(self, text: str) -> list[str]:
        """Return the beginnings of the files that a command names, but for those of the kernel."""
        paths = [
            path
            for path in _PATH.findall(text)
            if not path.startswith(_NO_SCRIPTS) and not path.endswith("/driverctl")
        ]
        first = _text.words(text)[:1]
        if first and "/" not in first[0]:
            # spawn_prepare in src/udev/udev-spawn.c.
            paths += ["/usr/lib/udev/" + first[0], "/lib/udev/" + first[0]]
        scripts = (self._script(path) for path in dict.fromkeys(paths))
        return [script for script in scripts if script]

    def _script(self, path: str) -> str | None:
        if path not in self._scripts:
            self._scripts[path] = self._files.read_start(path)
        return self._scripts[path]

    def _unit(self, unit: str) -> _Unit:
        if unit not in self._units:
            self._units[unit] = self._read_unit(unit)
        return self._units[unit]

    def _read_unit(self, unit: str) -> _Unit:
        name = unit if unit.endswith(_UNIT_TYPES) else unit + ".service"
        if "/" in name or name in _STARTED_ANYWAY:
            return _Unit()
        stem, at, rest = name.partition("@")
        instance, _dot, kind = rest.rpartition(".")
        names = [name, "%s@.%s" % (stem, kind)] if at else [name]
        paths = [
            "%s/%s" % (directory, file)
            for file in names
            for directory, entries in self._entries.items()
            if file in entries
        ]
        content = next((text for text in map(self._script, paths) if text is not None), None)
        # An empty one is masked.
        if not content:
            return _Unit()
        settings = _settings([content, *self._drop_ins(names)])
        commands = [
            _specified(text.lstrip(_PREFIXES), instance)
            for key, texts in settings.items()
            for text in texts
            if key.startswith("Exec")
        ]
        started = [
            _specified(word, instance)
            for key, texts in settings.items()
            for text in texts
            for word in _text.words(text)
            if not key.startswith("Exec")
        ]
        started += [entry for file in names for entry in self._pulled_by_links(file)]
        if name.endswith(_TRIGGERS):
            started.append(name.rpartition(".")[0] + ".service")
        return _Unit(commands, started)

    def _drop_ins(self, names: Sequence[str]) -> list[str]:
        """Return the contents of what adds to a unit, in the order of their names.

        unit_file_find_dropin_paths in src/shared/dropin.c: also for all units of a type, and for
        those whose names begin in the same way up to a dash.
        """
        paths: dict[str, str] = {}
        directories = dict.fromkeys(other + ".d" for name in names for other in _shortened(name))
        for path in self._links_of_units(directories):
            file = path.rpartition("/")[2]
            if file.endswith(".conf") and not file.startswith("."):
                paths.setdefault(file, path)
        return [self._script(paths[file]) or "" for file in sorted(paths)]

    def _pulled_by_links(self, name: str) -> list[str]:
        paths = self._links_of_units([name + kind for kind in _PULLING_DIRECTORIES])
        return [path.rpartition("/")[2] for path in paths]

    def _links_of_units(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the paths of what is in directories of these names beside units."""
        for name in names:
            for directory, entries in self._entries.items():
                path = "%s/%s" % (directory, name)
                for entry in self._files.names(path) if name in entries else ():
                    yield "%s/%s" % (path, entry)

    @functools.cached_property
    def _entries(self) -> dict[str, frozenset[str]]:
        """What each directory of units has; most units have nothing beside them."""
        return {
            directory: frozenset(self._files.names(directory)) for directory in _UNIT_DIRECTORIES
        }

    def units_like(self, unit: str) -> list[str]:
        """Return the units that a name can mean in which udev substitutes something."""
        pattern = _SUBSTITUTED.sub("*", unit)
        if pattern == unit or pattern.partition(".")[0] in ("", "*"):
            return []
        known = {
            _UNIT_DIRECTORY.sub("", entry)
            for entries in self._entries.values()
            for entry in entries
        }
        return sorted(name for name in known if _text.is_like(name, pattern))[:_MOST_UNITS]


def _settings(contents: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of what starts something; an empty one drops those before it."""
    values: dict[str, list[str]] = {}
    for content in contents:
        for key, value in _SETTING.findall(content.replace("\\\n", " ")):
            values[key] = [*values.get(key, ()), value.rstrip()] if value.strip() else []
    return values


def _shortened(name: str) -> list[str]:
    """Return the names whose drop-in files count for a unit, the most special one first."""
    stem, _dot, kind = name.rpartition(".")
    shorter = [stem[: match.end()] for match in re.finditer("-", stem[:-1])]
    return [name, *("%s.%s" % (part, kind) for part in reversed(shorter)), kind]


def _specified(command: str, instance: str) -> str:
    """Return a command of a unit with its instance: specifiers of systemd.unit(5)."""
    unescaped = _unescaped_unit(instance)
    values = {"i": instance, "I": unescaped, "f": "/" + unescaped, "%": "%"}
    return re.sub("%([%fiI])", lambda match: values[match.group(1)], command)


def _unescaped_unit(instance: str) -> str:
    def replace(match: re.Match[str]) -> str:
        return chr(int(match.group(1), 16)) if match.group(1) else "/"

    return re.sub(r"\\x([0-9A-Fa-f]{2})|-", replace, instance)


def _writes_attribute(text: str) -> bool:
    """Return whether a command writes to a file by whose name a device is bound, in any directory.

    It can change its directory before.
    """
    return any(
        match.group(2).strip(QUOTES).rpartition("/")[2] in KINDS for match in WRITE.finditer(text)
    )


def started_units(text: str) -> list[str]:
    """Return the units that a command starts by systemctl(1), each once."""
    units = []
    for match in _SYSTEMCTL.finditer(text):
        words = [word.strip(QUOTES) for word in _text.words(match.group(1))]
        plain = [word for word in words if word and not word.startswith("-")]
        if plain and plain[0] in _STARTING:
            units += plain[1:]
    return list(dict.fromkeys(units))
