# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subset of udev that rules for drivers need, on a simulated machine.

Match values with glob characters go through fnmatch, all others are compared; values that are
assigned, TEST and PROGRAM have ``$env{}``, ``$kernel`` and the like filled in. An event has the
properties at the time when the kernel sent it, including DRIVER; ATTR and TEST read the current
state, which a removed device does not have. The few programs by which rules create links are
simulated.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shlex
from collections import deque
from typing import NamedTuple

from .device import Device
from .errors import SimulatorError
from .kernel import uevent, uevent_properties
from .machine import Machine
from .programs import PROGRAMS, operands, sed
from .tree import File, Link

_DEV, _SYS = "/dev/vfio/", "/sys/"
# udev_replace_chars in src/shared/udev-util.c.
_REPLACED = re.compile(r"[^0-9A-Za-z#+\-.:=@_/ ]")
_SUBSTITUTION = re.compile(r"\$env\{([^}]+)\}|\$(?:kernel|devpath|result)|\$\$|%%")
_TOKEN = re.compile(r'([A-Z]+)(?:\{([^}]+)\})?(==|!=|\+=|=)"((?:[^"\\]|\\.)*)"')


class Token(NamedTuple):
    """One part of a rule, such as ``ATTR{driver_override}="none"``."""

    key: str
    attribute: str | None
    operator: str
    value: str


# Wherever it is in a rule, names of links are as the rule has them.
_UNCHANGED = Token("OPTIONS", None, "=", "string_escape=none")


class Event(NamedTuple):
    """An event of a device, as the kernel sends it."""

    action: str
    device: Device
    properties: dict[str, str]
    programs: list[list[str]]
    # The name of the device's own node, if the event is of that node.
    node: str | None = None

    @property
    def name(self) -> str:
        return self.node or self.device.name

    @property
    def kernel_name(self) -> str:
        """Return the name as rules see it: device_set_sysname in systemd's sd-device.c."""
        return self.name.replace("!", "/")


def parse(text: str) -> list[list[Token]]:
    """Return a file's rules; raise SimulatorError if a line is not keys, operators and values."""
    rules = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        matches = list(_TOKEN.finditer(line))
        if ", ".join(match.group() for match in matches) != line:
            raise SimulatorError(f"udev would not take the line {line!r}")
        rules.append([Token(*match.groups()) for match in matches])
    labels = [token.value for rule in rules for token in rule if token.key == "LABEL"]
    targets = {token.value for rule in rules for token in rule if token.key == "GOTO"}
    if len(labels) != len(set(labels)) or not targets <= set(labels):
        raise SimulatorError("a GOTO has no LABEL of its own")
    return rules


def event_of(action: str, device: Device) -> Event:
    """Return the event that the kernel would send for a device now."""
    properties = dict(line.partition("=")[::2] for line in uevent_properties(device))
    return Event(action, device, {**properties, "SUBSYSTEM": device.bus}, [])


class Udev:
    """The daemon of one machine; ``configuration`` is modprobe's, for modules that rules load."""

    def __init__(self, machine: Machine, rules: str, configuration: str = "") -> None:
        self._machine = machine
        self._rules = parse(rules)
        self._configuration = configuration
        self._events: deque[Event] = deque()

    def coldplug(self) -> None:
        """Replay ``add`` for every device, as at boot, and handle the resulting events."""
        for device in list(self._machine.kernel.devices.values()):
            self._queue("add", device)
        self._machine.kernel.send_event = self._queue
        try:
            self._settle()
        finally:
            self._machine.kernel.send_event = None

    def properties(self, action: str, device: Device) -> dict[str, str]:
        """Run the rules for one event; return the resulting properties of the device."""
        event = event_of(action, device)
        self.run(event)
        return event.properties

    def _queue(self, action: str, device: Device) -> None:
        self._events.append(event_of(action, device))

    def _settle(self) -> None:
        while self._events:
            event = self._events.popleft()
            if event.device.is_present or event.action == "remove":
                self.run(event)
            if event.device.is_present:
                # Runs after all rules, as RUN of 80-drivers.rules does.
                modalias = event.properties["MODALIAS"]
                self._load_modules(["--use-blacklist", "--quiet", "--", modalias])
                self.add_nodes(event)

    def add_nodes(self, event: Event) -> None:
        """Run the rules for the nodes of an event's device, which are its children."""
        for name in self._machine.tree.names(f"{event.device.home}/vfio-dev"):
            inherited = {
                key: value for key, value in event.properties.items() if key.startswith("ARMFLEET_")
            }
            own = {"SUBSYSTEM": "vfio-dev"}
            if self._machine.vfio.nodes.find(f"devices/{name}"):
                own["DEVNAME"] = f"{_DEV}devices/{name}"
            self.run(Event("add", event.device, {**inherited, **own}, [], name))

    def run(self, event: Event) -> None:
        """Run the rules for one event, without the events that result from it."""
        label = None
        for rule in self._rules:
            if label and Token("LABEL", None, "=", label) not in rule:
                continue
            label = None
            for token in rule:
                if not self._meets(event, token, rule):
                    break
                if token.key == "GOTO":
                    label = token.value
        for words in event.programs:
            self._play(event, words)

    def _meets(self, event: Event, token: Token, rule: list[Token]) -> bool:
        if token.key == "PROGRAM":
            event.properties["$result"] = self._play(event, _words(event, token.value))
            return bool(event.properties["$result"])
        if token.key == "ATTR" and token.operator == "!=" and self._value(event, token) is None:
            return False
        if token.operator in ("==", "!="):
            return self._matches(event, token) == (token.operator == "==")
        self._act(event, token, rule)
        return True

    def _act(self, event: Event, token: Token, rule: list[Token]) -> None:
        if token.key == "ENV" and token.attribute:
            event.properties[token.attribute] = _filled(event, token.value)
        elif token.key == "ATTR" and token.attribute:
            self._write(event, token.attribute, _filled(event, token.value))
        elif token.key == "RUN":
            event.programs.append(_words(event, token.value))
        elif token.key == "MODE" and event.node:
            self._change(["/bin/chmod", "--", token.value, event.properties["DEVNAME"]])
        elif token.key == "SYMLINK":
            name = _filled(event, token.value)
            if _UNCHANGED not in rule:
                name = _REPLACED.sub("_", name)
            self._link(f"/dev/{name}", f"../{event.name}")
        elif (token.key, token.attribute) == ("IMPORT", "program"):
            played = self._play(event, _words(event, token.value))
            name, _equals, value = played.partition("=")
            event.properties[name] = value
        # IMPORT{parent} does nothing: an event of a node is created with its parent's properties.
        elif token.key == "IMPORT" and token.attribute != "parent":
            self._load(token, _filled(event, token.value).split())

    def _matches(self, event: Event, token: Token) -> bool:
        if token.key == "TEST":
            return self._exists(event, _filled(event, token.value))
        value = self._value(event, token)
        if value is None:
            return False
        return any(
            fnmatch.fnmatchcase(value, pattern) if set("*?[") & set(pattern) else value == pattern
            for pattern in token.value.split("|")
        )

    def _value(self, event: Event, token: Token) -> str | None:
        if token.key == "ENV":
            return event.properties.get(token.attribute or "", "")
        if token.key == "ATTR":
            content = self._machine.tree.read(f"{event.device.home}/{token.attribute}")
            return None if content is None else content.decode().rstrip()
        return {
            "ACTION": event.action,
            "SUBSYSTEM": event.properties["SUBSYSTEM"],
            "KERNEL": event.kernel_name,
            "DRIVER": event.properties.get("DRIVER", ""),
            "DEVPATH": f"/{event.device.home}",
            "RESULT": event.properties.get("$result", ""),
        }.get(token.key)

    def _exists(self, event: Event, path: str) -> bool:
        if path in PROGRAMS:
            return True
        file = _below(_SYS, path) if path.startswith(_SYS) else f"{event.device.home}/{path}"
        return self._machine.tree.find(file) is not None

    def _write(self, event: Event, attribute: str, value: str) -> None:
        path = self._machine.tree.resolve(f"{event.device.home}/{attribute}")
        file = None if path is None else self._machine.tree.lookup(path)
        if path is not None and isinstance(file, File):
            # udev logs an error and goes on.
            with contextlib.suppress(OSError):
                self._machine.watch.around(path, value.encode(), file.write)

    def _play(self, event: Event, words: list[str]) -> str:
        """Run a program, and return its output."""
        if words[:2] == ["/bin/sed", "-n"] and words[-2] == "--":
            return sed(words[3:-2:2], self._content(event, words[-1]))
        if words[:-1] == ["/usr/bin/realpath", "--relative-to=/sys/kernel/iommu_groups", "--"]:
            target = self._machine.tree.link(_below(_SYS, words[-1]))
            return (target or "").rpartition("/")[2]
        self._change(words)
        return ""

    def _change(self, words: list[str]) -> None:
        """Run a program that changes nodes; all nodes belong to the group root."""
        nodes = self._machine.vfio.nodes
        if words[:2] == ["/bin/mkdir", "-p"]:
            nodes.make_directory(_below(_DEV, operands(words)[0]))
        elif words[:2] == ["/bin/chmod", "--"]:
            mode, path = operands(words)
            node = nodes.find(_below(_DEV, path))
            if isinstance(node, File):
                node.mode = int(mode, 8)
        elif words[:2] == ["/bin/ln", "-sfT"]:
            target, path = operands(words)
            self._link(path, target)
        elif words[:2] == ["/bin/rm", "-f"]:
            for path in (_below(_DEV, word) for word in operands(words)):
                if nodes.lookup(path):
                    nodes.remove(path)
        elif words[:2] != ["/bin/chgrp", "--"]:
            raise SimulatorError(f"the simulator's udev does not know {' '.join(words)}")

    def _content(self, event: Event, path: str) -> str:
        if path.endswith("/uevent"):
            return uevent(event.device).decode()
        return (self._machine.tree.read(_below(_SYS, path)) or b"").decode()

    def _link(self, path: str, target: str) -> None:
        directory, _slash, name = _below(_DEV, path).rpartition("/")
        self._machine.vfio.nodes.make_directory(directory).entries[name] = Link(target)

    def _load(self, token: Token, words: list[str]) -> None:
        if (token.attribute, words[:2]) != ("builtin", ["kmod", "load"]):
            raise SimulatorError(f"the simulator's udev does not know {token}")
        for module in words[2:]:
            self._load_modules(["--", module])

    def _load_modules(self, arguments: list[str]) -> None:
        self._machine.modules.modprobe(arguments, self._configuration)


def _below(directory: str, path: str) -> str:
    """Return the path relative to ``directory``, if it is below that."""
    return path[len(directory) :] if path.startswith(directory) else path


def _words(event: Event, command: str) -> list[str]:
    """Return the words of a command, of which one in single quotes may have spaces."""
    return shlex.split(_filled(event, command))


def _filled(event: Event, value: str) -> str:
    if set("$%") & set(_SUBSTITUTION.sub("", value)):
        raise SimulatorError(f"the simulator's udev does not know what {value!r} means")
    known = {
        "$$": "$",
        "%%": "%",
        "$kernel": event.kernel_name,
        "$devpath": f"/{event.device.home}",
        "$result": event.properties.get("$result", ""),
    }
    return _SUBSTITUTION.sub(
        lambda match: (
            known[match.group()]
            if match.group(1) is None
            else event.properties.get(match.group(1), "")
        ),
        value,
    )
