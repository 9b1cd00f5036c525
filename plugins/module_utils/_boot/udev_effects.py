# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an assignment of a udev rule, a command or a unit does to the driver of a device. Reads.

``udev_rule_apply_token_to_event`` in src/udev/udev-rules.c of systemd, ``driver_set_override`` in
drivers/base/driver.c of Linux. Commands are not run: what a script or a unit does is not known
beyond the names in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES, PCI
from .._system.files import Files

if TYPE_CHECKING:
    from .._system.sysfs import Sysfs
    from .udev_device import ListedDevice, UdevDevice
    from .udev_event import Event
    from .udev_syntax import Token

OVERRIDE, UNBIND, BIND, REMOVE = "override", "unbind", "bind", "remove"

_KINDS = {"driver_override": OVERRIDE, "unbind": UNBIND, "bind": BIND, "remove": REMOVE}
# As in RUN+="/bin/sh -c 'echo vfio-platform > /sys/%p/driver_override'", or with tee.
_WRITE = re.compile(
    r"(?:echo|printf)\s+(?!\s)(?:-\w+\s+(?!\s)){0,8}([^\s;&|>]*(?:\\n)?)\s*"
    r"(?:>>?\s*|\|\s*(?:\S*sudo\s+)?\S*tee\s+(?:-a\s+)?)([^\s;&|]+)"
)
_SHELL = re.compile(r"(?:^|[/\s])(?:ba|da|k|z)?sh\s")
_QUOTES = "\\\"'"
# After these the shell may not come to what follows.
_CONDITION = re.compile(r"&&|\|\||\b(?:if|for|while|until|case|test)\b|\[")
_DRIVERCTL = re.compile(r"\bdriverctl\s+([^;&|]*)")
# What its own rule starts for each device: it sets what is stored, which is read as such.
_LOADING_STORED = re.compile(r"\bdriverctl\s+load-override\b")
_SYSTEMCTL = re.compile(r"\bsystemctl\s+([^;&|]*)")
_STARTING = frozenset(("start", "restart", "try-restart", "reload-or-restart", "enable"))
# modprobe(8) with -r or --remove, or rmmod(8), of a module of a VFIO driver. The bound devices hold
# no reference to it (module_add_driver in drivers/base/module.c), so that it can be unloaded unless
# somebody has one of them open.
_UNLOADING = re.compile(
    r"\b(?:modprobe(?=[^;&|\n]{0,200}\s(?:-[a-z]{0,9}r|--rem))|rmmod)\s+(?=[^;&|\n]{0,200}vfio)"
    r"([^;&|\n]{0,200})"
)
_BINDING_WORDS = re.compile(
    r"driver_override|driverctl|drivers_probe|\bunbind\b|[/}\]]bind\b|\bnew_id\b"
    r"|(?:>|\btee\s(?:\s*-a\s)?)\s*[^\s;&|>]*/remove(?![\w./-])|%s" % _UNLOADING.pattern
)
_PATH = re.compile(r"(?<![\w.$%}])/[\w./+@:-]+")
_NO_SCRIPTS = ("/sys/", "/dev/", "/proc/", "/run/udev/")
_SUBSYSTEM_DEVICE = re.compile(r"\[([^/\]]*)/([^\]]*)\]/?(.+)", re.DOTALL)
_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_EXEC = re.compile(
    r"^[ \t]*Exec(?:StartPre|StartPost|Start|Condition)[ \t]*=[ \t@:+!|-]*(.*)", re.MULTILINE
)
_UNIT_TYPES = (".service", ".target", ".socket", ".timer", ".path", ".mount")
_DEEPEST = 3
# Names of units with instances have no end: so many are followed from a command.
_MOST_UNITS = 64


class Effect(NamedTuple):
    """What is done to a device: ``value`` is the override, or the driver that it is bound to.

    ``value`` is None if that is not known, or is none. Without ``is_sure``, it may be done.
    """

    kind: str
    value: str | None = None
    is_sure: bool = True


class Target(NamedTuple):
    """The device in question, and whether the event is its own."""

    device: ListedDevice
    is_event: bool

    @property
    def names(self) -> Sequence[str]:
        """What it is called in commands and scripts."""
        identity = self.device.identity
        called = (identity.name, identity.dt_path, identity.acpi_path, self.device.path)
        return [name for name in called if name]

    def is_named_in(self, text: str) -> bool:
        """Return whether the text has one of its names, not as a part of another one."""
        return any(
            re.search(r"(?<![\w.:@-])%s(?![\w:@-]|\.\w)" % re.escape(name), text)
            for name in self.names
        )

    def is_at(self, directory: str) -> bool:
        """Return whether a directory is that of the device; the path is relative to /sys."""
        device = self.device
        plain = "/".join(part for part in directory.split("/") if part)
        own = "bus/%s/devices/%s" % (device.identity.bus, device.identity.name)
        if plain in (own, device.path or own):
            return True
        return bool(device.path) and _canonical(device.sysfs, plain) == device.path

    def is_at_or_below(self, directory: str) -> bool:
        """Return whether a directory is that of the device or of one above it."""
        if self.is_at(directory):
            return True
        above = _canonical(self.device.sysfs, directory)
        return bool(above) and self.device.path.startswith("%s/" % above)


def _canonical(sysfs: Sysfs, path: str) -> str | None:
    # Here, because nearly no host has rules that name a device.
    from .udev_device import canonical  # noqa: PLC0415

    return canonical(sysfs, path)


def attribute_paths(device: UdevDevice, attribute: str) -> list[str]:
    """Return the paths below /sys that ``ATTR{attribute}`` can write to at an event of a device.

    An absolute path is one below the directory of the device, where there is no such file.
    """
    base = device.path or "bus/%s/devices/%s" % (
        device.subsystem,
        device.kernel.replace("/", "!"),
    )
    named = _SUBSYSTEM_DEVICE.fullmatch(attribute)
    if named:
        subsystem, name, attribute = named.groups()
        base = _directory_of(device, subsystem, name.replace("/", "!"))
    elif device.linked and attribute.startswith("device/"):
        base, attribute = device.linked, attribute[len("device/") :]
    elif attribute.startswith(("/", "[")):
        return []
    if "/*/" not in "/" + attribute:
        return ["%s/%s" % (base, attribute)]
    head, _star, tail = ("%s/%s" % (base, attribute)).partition("/*/")
    return [
        "%s/%s/%s" % (head, name, tail)
        for name in device.sysfs.names(head)
        if not name.startswith(".") and device.sysfs.exists("%s/%s/%s" % (head, name, tail))
    ]


def _directory_of(device: UdevDevice, subsystem: str, name: str) -> str:
    """Return the directory of [subsystem/name]: sd_device_new_from_subsystem_sysname."""
    if subsystem == "drivers":
        bus, _colon, driver = name.partition(":")
        return "bus/%s/drivers/%s" % (bus, driver)
    if subsystem == "module":
        return "module/" + name
    of_class = "class/%s/%s" % (subsystem, name)
    if device.sysfs.exists(of_class):
        return of_class
    return "bus/%s/devices/%s" % (subsystem, name)


def of_write(target: Target, path: str, value: str | None, *, is_sure: bool) -> Effect | None:
    """Return what a write of a value to a file below /sys does; a value of None is not known."""
    directory, _slash, name = path.rpartition("/")
    kind = _KINDS.get(name)
    if kind is None:
        return None
    if kind == OVERRIDE:
        if not target.is_at(directory):
            return None
        # The kernel takes what is before a line end. Before systemd 258 udev writes no empty text.
        override = None if value is None else value.split("\n")[0]
        return Effect(OVERRIDE, override or None, is_sure and override != "")
    if kind == REMOVE:
        is_removed = target.is_at_or_below(directory) and not _is_zero(value)
        return Effect(REMOVE, is_sure=False) if is_removed else None
    if not _is_on_bus(target.device, directory):
        return None
    if value is not None and value.split("\n")[0] != target.device.identity.name:
        return None
    if value is None and not target.is_event:
        return None
    driver = directory.rpartition("/")[2] if directory.startswith("bus/") else None
    return Effect(kind, driver if kind == BIND else None, is_sure and value is not None)


def _is_zero(value: str | None) -> bool:
    # remove_store in drivers/pci/pci-sysfs.c.
    return value is not None and not value.strip().lower().replace("x", "").strip("0")


def _is_on_bus(device: ListedDevice, directory: str) -> bool:
    parts = directory.split("/")
    return parts[0] != "bus" or parts[1:2] == [device.identity.bus]


def of_attribute(event: Event, target: Target, token: Token, *, is_sure: bool) -> list[Effect]:
    """Return what an assignment to ``ATTR`` does."""
    paths = attribute_paths(event.device, token.attribute or "")
    value = event.expand(token.value)
    effects = [of_write(target, path, value, is_sure=is_sure and len(paths) == 1) for path in paths]
    return [effect for effect in effects if effect]


def is_binding_attribute(token: Token) -> bool:
    """Return whether an assignment to ``ATTR`` can change how devices are bound."""
    return _kind(token) is not None


def unbinds_or_binds(token: Token) -> str | None:
    """Return UNBIND or BIND if an assignment to ``ATTR`` does that to the device of its value."""
    kind = _kind(token)
    return kind if kind in (UNBIND, BIND) else None


def is_removing_attribute(token: Token) -> bool:
    """Return whether an assignment to ``ATTR`` can remove a device, and all below it."""
    return _kind(token) == REMOVE


def _kind(token: Token) -> str | None:
    return _KINDS.get((token.attribute or "").rpartition("/")[2].rpartition("]")[2])


class Commands:
    """Judges commands by their text, and by the scripts and units that they name."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._scripts: dict[str, str | None] = {}
        self._units: dict[str, list[str]] = {}
        self._can_bind: dict[str, bool] = {}
        self._can_unit_bind: dict[str, bool] = {}

    def can_bind(self, text: str) -> bool:
        """Return whether a command, a script or a unit in it has words for binding drivers."""
        if text not in self._can_bind:
            self._can_bind[text] = self._has_words(text, is_deepest=False) or self._have_words(
                _started_units(text), 1
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
            for command, is_deepest in self._commands(units, depth, set())
        )

    def _has_words(self, text: str, *, is_deepest: bool) -> bool:
        if _BINDING_WORDS.search(_LOADING_STORED.sub("", text)) or _writes_attribute(text):
            return True
        return not is_deepest and any(map(_BINDING_WORDS.search, self._named_scripts(text)))

    def _commands(
        self, units: Iterable[str], depth: int, final: set[str]
    ) -> Iterator[tuple[str, bool]]:
        """Yield the commands of units and of those that they start, each unit once.

        Beside each whether it is too deep to be followed. What the user of it adds to ``final`` is
        not followed either.
        """
        level = list(dict.fromkeys(units))[:_MOST_UNITS]
        visited = set(level)
        for current in range(depth, _DEEPEST + 2):
            started: dict[str, None] = {}
            for command in dict.fromkeys(c for unit in level for c in self._unit_commands(unit)):
                yield command, current > _DEEPEST
                if command not in final:
                    started.update(dict.fromkeys(_started_units(command)))
            level = [unit for unit in started if unit not in visited]
            level = level[: _MOST_UNITS - len(visited)]
            visited.update(level)

    def effects(self, target: Target, text: str, *, is_sure: bool) -> list[Effect]:
        """Return what a command does to the device, as far as its text shows.

        What a script or a unit does is never sure.
        """
        effects = self._own_effects(target, text, is_sure=is_sure, is_deepest=False)
        if effects is None:
            return self._effects_of_units(target, _started_units(text), 1)
        return effects

    def unit_effects(self, target: Target, unit: str) -> list[Effect]:
        """Return what the commands of a unit may do to the device."""
        return self._effects_of_units(target, [unit], 0)

    def _effects_of_units(self, target: Target, units: Iterable[str], depth: int) -> list[Effect]:
        collected: dict[Effect, None] = {}
        final: set[str] = set()
        for command, is_deepest in self._commands(units, depth, final):
            effects = self._own_effects(target, command, is_sure=False, is_deepest=is_deepest)
            if effects is not None:
                final.add(command)
                collected.update(dict.fromkeys(effects))
        return list(collected)

    def _own_effects(
        self, target: Target, text: str, *, is_sure: bool, is_deepest: bool
    ) -> list[Effect] | None:
        """Return what a command does itself; None if only units that it starts may do something."""
        effects = [
            *self._writes(target, text, is_sure=is_sure),
            *_by_driverctl(target, text, is_sure=is_sure),
        ]
        if effects or is_deepest:
            return effects
        if _BINDING_WORDS.search(text) and not _is_understood(text):
            if target.is_event or target.is_named_in(text):
                return [Effect(OVERRIDE, is_sure=False)]
            return []
        for script in self._named_scripts(text):
            is_named = target.is_named_in(text) or target.is_named_in(script)
            if _BINDING_WORDS.search(script) and (target.is_event or is_named):
                return [Effect(OVERRIDE, is_sure=False)]
        return None

    def _writes(self, target: Target, text: str, *, is_sure: bool) -> Iterator[Effect]:
        if any(_unloads_driver(target, part) for part in (text, *self._named_scripts(text))):
            yield Effect(UNBIND, is_sure=False)
        shell = _first_end(_SHELL, text)
        condition = _first_end(_CONDITION, text)
        for match in _WRITE.finditer(text):
            value, path = (part.strip(_QUOTES) for part in match.groups())
            kind = _KINDS.get(path.rpartition("/")[2])
            # udev itself starts no shell.
            if kind is None or match.start() < shell:
                continue
            is_plain = is_sure and match.start() < condition
            if "$" in path or "*" in path or not path.startswith("/"):
                if target.is_event or target.is_named_in(text):
                    yield Effect(kind, is_sure=False)
                continue
            is_known = "$" not in value and "`" not in value
            written = value.replace("\\n", "\n") if is_known else None
            below = path[len("/sys/") :] if path.startswith("/sys/") else ""
            effect = of_write(target, below, written, is_sure=is_plain)
            if effect:
                yield effect

    def _named_scripts(self, text: str) -> list[str]:
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

    def _unit_commands(self, unit: str) -> list[str]:
        if unit not in self._units:
            self._units[unit] = self._read_unit(unit)
        return self._units[unit]

    def _read_unit(self, unit: str) -> list[str]:
        name = unit if unit.endswith(_UNIT_TYPES) else unit + ".service"
        stem, at, rest = name.partition("@")
        instance, _dot, kind = rest.rpartition(".")
        names = [name, "%s@.%s" % (stem, kind)] if at else [name]
        for directory in _UNIT_DIRECTORIES:
            for file in names:
                content = self._script("%s/%s" % (directory, file)) if "/" not in file else None
                if content is not None:
                    joined = content.replace("\\\n", " ")
                    return [_specified(command, instance) for command in _EXEC.findall(joined)]
        return []


def _specified(command: str, instance: str) -> str:
    """Return a command of a unit with its instance: specifiers of systemd.unit(5)."""
    unescaped = _unescaped_unit(instance)
    values = {"i": instance, "I": unescaped, "f": "/" + unescaped, "%": "%"}
    return re.sub("%([%fiI])", lambda match: values[match.group(1)], command)


def _unescaped_unit(instance: str) -> str:
    def replace(match: re.Match[str]) -> str:
        return chr(int(match.group(1), 16)) if match.group(1) else "/"

    return re.sub(r"\\x([0-9A-Fa-f]{2})|-", replace, instance)


def _first_end(pattern: re.Pattern[str], text: str) -> int:
    """Return where the first match ends; without one, what is after all of the text."""
    match = pattern.search(text)
    return match.end() if match else len(text) + 1


def _writes_attribute(text: str) -> bool:
    """Return whether a command writes to a file by whose name a device is bound, in any directory.

    It can change its directory before.
    """
    return any(
        match.group(2).strip(_QUOTES).rpartition("/")[2] in _KINDS
        for match in _WRITE.finditer(text)
    )


def _started_units(text: str) -> list[str]:
    units = []
    for match in _SYSTEMCTL.finditer(text):
        words = [word.strip(_QUOTES) for word in _text.words(match.group(1))]
        plain = [word for word in words if word and not word.startswith("-")]
        if plain and plain[0] in _STARTING:
            units += plain[1:]
    return list(dict.fromkeys(units))


def _by_driverctl(target: Target, text: str, *, is_sure: bool) -> Iterator[Effect]:
    """Yield what driverctl(8) is asked for; overrides that it has stored are read as such."""
    identity = target.device.identity
    condition = _first_end(_CONDITION, text)
    for match in _DRIVERCTL.finditer(text):
        bus, arguments = _driverctl_arguments(match.group(1))
        if arguments[:1] not in (["set-override"], ["unset-override"]):
            continue
        device = arguments[1:2]
        is_plain = is_sure and match.start() < condition
        if device and ("$" in device[0] or "%" in device[0]):
            if target.is_event:
                yield Effect(OVERRIDE, is_sure=False)
        elif (bus, device) == (identity.bus, [identity.name]):
            value = arguments[2] if arguments[0] == "set-override" and arguments[2:] else None
            yield Effect(OVERRIDE, None if value and "$" in value else value, is_plain)


def _unloads_driver(target: Target, text: str) -> bool:
    """Return whether a command or a script unloads the module of a VFIO driver for the device.

    The device can be that of any event: a driver that is unloaded is unbound from all.
    """
    bus = BUSES.get(target.device.identity.bus)
    return bus is not None and any(
        bus.has_vfio_module(word.strip(_QUOTES))
        for match in _UNLOADING.finditer(text)
        for word in _text.words(match.group(1))
    )


def _driverctl_arguments(text: str) -> tuple[str, list[str]]:
    # Its default.
    bus = PCI
    arguments: list[str] = []
    words = iter([word.strip(_QUOTES) for word in _text.words(text)])
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("-b", "--bus"):
            bus = value if equals else next(words, "")
        elif not word.startswith("-"):
            arguments.append(word)
    return bus, arguments


def _is_understood(text: str) -> bool:
    """Return whether all that a command does to drivers is a write or a call of driverctl."""
    rest = _UNLOADING.sub("", _DRIVERCTL.sub("", _WRITE.sub("", text)))
    return not _BINDING_WORDS.search(rest)
