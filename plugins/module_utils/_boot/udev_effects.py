# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an assignment of a udev rule, a command or a unit does to the driver of a device. Reads.

``udev_rule_apply_token_to_event`` in src/udev/udev-rules.c of systemd, ``driver_set_override`` in
drivers/base/driver.c of Linux. Loaded only if a host has rules that may bind drivers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES, PCI
from .udev_commands import (
    BIND,
    BINDING_WORDS,
    KINDS,
    OVERRIDE,
    QUOTES,
    REMOVE,
    UNBIND,
    UNLOADING,
    WRITE,
    Commands,
    started_units,
)

if TYPE_CHECKING:
    from .._system.sysfs import Sysfs
    from .udev_device import ListedDevice, UdevDevice
    from .udev_event import Event
    from .udev_syntax import Token

_SHELL = re.compile(r"(?:^|[/\s])(?:ba|da|k|z)?sh\s")
# After these the shell may not come to what follows.
_CONDITION = re.compile(r"&&|\|\||\b(?:if|for|while|until|case|test)\b|\[")
_DRIVERCTL = re.compile(r"\bdriverctl\s+([^;&|]*)")
_SUBSYSTEM_DEVICE = re.compile(r"\[([^/\]]*)/([^\]]*)\]/?(.+)", re.DOTALL)


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
    kind = KINDS.get(name)
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
    return KINDS.get((token.attribute or "").rpartition("/")[2].rpartition("]")[2])


def of_command(commands: Commands, target: Target, text: str, *, is_sure: bool) -> list[Effect]:
    """Return what a command does to the device, as far as its text shows.

    What a script or a unit does is never sure.
    """
    effects = _own_effects(commands, target, text, is_sure=is_sure, is_deepest=False)
    if effects is None:
        return _of_units(commands, target, started_units(text), 1)
    return effects


def of_unit(commands: Commands, target: Target, unit: str) -> list[Effect]:
    """Return what the commands of a unit may do to the device."""
    return _of_units(commands, target, [unit], 0)


def _of_units(commands: Commands, target: Target, units: Iterable[str], depth: int) -> list[Effect]:
    collected: dict[Effect, None] = {}
    final: set[str] = set()
    for command, is_deepest in commands.follow(units, depth, final):
        effects = _own_effects(commands, target, command, is_sure=False, is_deepest=is_deepest)
        if effects is not None:
            final.add(command)
            collected.update(dict.fromkeys(effects))
    return list(collected)


def _own_effects(
    commands: Commands, target: Target, text: str, *, is_sure: bool, is_deepest: bool
) -> list[Effect] | None:
    """Return what a command does itself; None if only units that it starts may do something."""
    effects = [
        *_writes(commands, target, text, is_sure=is_sure),
        *_by_driverctl(target, text, is_sure=is_sure),
    ]
    if effects or is_deepest:
        return effects
    if BINDING_WORDS.search(text) and not _is_understood(text):
        if target.is_event or target.is_named_in(text):
            return [Effect(OVERRIDE, is_sure=False)]
        return []
    for script in commands.named_scripts(text):
        is_named = target.is_named_in(text) or target.is_named_in(script)
        if BINDING_WORDS.search(script) and (target.is_event or is_named):
            return [Effect(OVERRIDE, is_sure=False)]
    return None


def _writes(commands: Commands, target: Target, text: str, *, is_sure: bool) -> Iterator[Effect]:
    if any(_unloads_driver(target, part) for part in (text, *commands.named_scripts(text))):
        yield Effect(UNBIND, is_sure=False)
    shell = _first_end(_SHELL, text)
    condition = _first_end(_CONDITION, text)
    for match in WRITE.finditer(text):
        value, path = (part.strip(QUOTES) for part in match.groups())
        kind = KINDS.get(path.rpartition("/")[2])
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


def _first_end(pattern: re.Pattern[str], text: str) -> int:
    """Return where the first match ends; without one, what is after all of the text."""
    match = pattern.search(text)
    return match.end() if match else len(text) + 1


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
        bus.has_vfio_module(word.strip(QUOTES))
        for match in UNLOADING.finditer(text)
        for word in _text.words(match.group(1))
    )


def _driverctl_arguments(text: str) -> tuple[str, list[str]]:
    # Its default.
    bus = PCI
    arguments: list[str] = []
    words = iter([word.strip(QUOTES) for word in _text.words(text)])
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("-b", "--bus"):
            bus = value if equals else next(words, "")
        elif not word.startswith("-"):
            arguments.append(word)
    return bus, arguments


def _is_understood(text: str) -> bool:
    """Return whether all that a command does to drivers is a write or a call of driverctl."""
    rest = UNLOADING.sub("", _DRIVERCTL.sub("", WRITE.sub("", text)))
    return not BINDING_WORDS.search(rest)
