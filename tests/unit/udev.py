"""As much of udev as the collection's rules use, acting on the fake kernel.

Match values with glob characters go through fnmatch, all others are compared; values that are
assigned, TEST and PROGRAM have ``$env{}``, ``$kernel`` and the like filled in; DRIVER is that of
the moment of the event, TEST sees what is there now. The few programs that rules run are played.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from fake_kernel import TREE, FakeKernel, FakeKmod

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import KernelRefusedError
from extensions.simulator.programs import PROGRAMS, operands, sed

_TOKEN = re.compile(r'([A-Z]+)(?:\{([^}]+)\})?(==|!=|\+=|=)"((?:[^"\\]|\\.)*)"')


class Token(NamedTuple):
    key: str
    attribute: str | None
    operator: str
    value: str


class UdevError(Exception):
    """A line that udev would not take."""


def parse(text: str) -> list[list[Token]]:
    """The rules of a file; UdevError where a line is more or less than key, operator and value."""
    rules = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        tokens = [Token(*found.groups()) for found in _TOKEN.finditer(line)]
        if ", ".join(found.group() for found in _TOKEN.finditer(line)) != line:
            raise UdevError(line)
        rules.append(tokens)
    labels = [token.value for rule in rules for token in rule if token.key == "LABEL"]
    targets = {token.value for rule in rules for token in rule if token.key == "GOTO"}
    if len(labels) != len(set(labels)) or not targets <= set(labels):
        raise UdevError("GOTO without LABEL")
    return rules


class Event:
    """One event of one device, met by the rules of a file."""

    def __init__(
        self, kernel: FakeKernel, kmod: FakeKmod, bus: str, name: str, action: str = "add"
    ) -> None:
        self._action = action
        self._kernel, self._kmod = kernel, kmod
        self._bus, self._name = bus, name
        self._home = f"devices/platform/{name}"
        self._driver = kernel.driver_of(name) or ""
        self.programs: list[list[str]] = []
        self._result = ""
        self.properties: dict[str, str] = {"SUBSYSTEM": bus}
        target = kernel.link(f"{self._home}/of_node")
        if target:
            path = target.partition("/" + TREE)[2]
            self.properties["OF_FULLNAME"] = path
            compatible = kernel.strings(f"{self._home}/of_node/compatible")
            for number, value in enumerate(compatible):
                self.properties[f"OF_COMPATIBLE_{number}"] = value
            aliases = kernel.names(f"{TREE}/aliases")
            mine = [name for name in aliases if kernel.strings(f"{TREE}/aliases/{name}") == (path,)]
            for number, alias in enumerate(mine):
                self.properties[f"OF_ALIAS_{number}"] = alias

    def run(self, rules: list[list[Token]]) -> None:
        label = None
        for rule in rules:
            if label and Token("LABEL", None, "=", label) not in rule:
                continue
            label = None
            for token in rule:
                if not self._meet(token):
                    break
                if token.key == "GOTO":
                    label = token.value
        for words in self.programs:
            self._run(words)

    def _meet(self, token: Token) -> bool:
        if token.key == "PROGRAM":
            self._result = self._run(self._filled(token.value).split())
            return bool(self._result)
        if token.operator in ("==", "!="):
            # What is missing neither has a value nor lacks it.
            value = self._value(token)
            return value is not None and value == (token.operator == "==")
        self._act(token)
        return True

    def _act(self, token: Token) -> None:
        if token.key == "ENV" and token.attribute:
            self.properties[token.attribute] = self._filled(token.value)
        elif token.key == "ATTR" and token.attribute:
            # udev logs an error and goes on.
            with contextlib.suppress(KernelRefusedError):
                self._kernel.write(self._path(token.attribute), self._filled(token.value))
        elif token.key == "RUN":
            self.programs.append(self._filled(token.value).split())
        elif token.key == "MODE":
            self._place(self.properties["DEVNAME"]).chmod(int(token.value, 8))
        elif token.key == "SYMLINK":
            self._make_link(f"/dev/{self._filled(token.value)}", f"../{self._name}")
        elif token.key == "IMPORT":
            self._import(token)

    def _import(self, token: Token) -> None:
        if token.attribute == "program":
            name, _equals, value = self._run(self._filled(token.value).split()).partition("=")
            self.properties[name] = value
        elif token.attribute == "parent":
            self._import_parent(token.value)
        else:
            command, verb, *modules = self._filled(token.value).split()
            if (token.attribute, command, verb) != ("builtin", "kmod", "load"):
                raise UdevError(str(token))
            for module in modules:
                with contextlib.suppress(PolicyError):
                    self._kmod.load(module)

    def _import_parent(self, pattern: str) -> None:
        raise UdevError(f"the parent of {self._name} is no device: {pattern}")

    def _run(self, words: list[str]) -> str:
        """What a program says; links that it makes are those of the fake's /dev."""
        if words[:2] == ["/bin/sed", "-n"]:
            return sed(words[3:-2:2], self._content(words[-1]))
        if words[:-1] == ["/usr/bin/realpath", "--relative-to=/sys/kernel/iommu_groups", "--"]:
            return self._kernel.link_name(_in_sys(words[-1])) or ""
        if words[:2] == ["/bin/mkdir", "-p"]:
            self._place(operands(words)[0]).mkdir(parents=True, exist_ok=True)
        elif words[:2] == ["/bin/chmod", "--"]:
            mode, path = operands(words)
            self._place(path).chmod(int(mode, 8))
        elif words[:2] == ["/bin/chgrp", "--"]:
            group, path = operands(words)
            shutil.chown(self._place(path), group=group)
        elif words[:2] == ["/bin/ln", "-sfT"]:
            target, path = operands(words)
            self._make_link(path, target)
        elif words[:2] == ["/bin/rm", "-f"]:
            for path in operands(words):
                self._place(path).unlink(missing_ok=True)
        else:
            raise UdevError(" ".join(words))
        return ""

    def _content(self, path: str) -> str:
        if path.endswith("/uevent"):
            return "".join(f"{key}={value}\n" for key, value in self.properties.items())
        return self._kernel.read(_in_sys(path)) or ""

    def _make_link(self, path: str, target: str) -> None:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    def _place(self, path: str) -> Path:
        return self._kernel.dev / os.path.relpath(path, "/dev")

    def _value(self, token: Token) -> bool | None:
        if token.key == "ATTR" and self._kernel.read(self._path(token.attribute or "")) is None:
            return None
        return self._matches(token)

    def _matches(self, token: Token) -> bool:
        value = {
            "ACTION": self._action,
            "SUBSYSTEM": self._bus,
            "KERNEL": self._name,
            "DRIVER": self._driver,
            "DEVPATH": f"/{self._home}",
            "RESULT": self._result,
        }.get(token.key)
        if token.key == "TEST":
            return self._exists(self._filled(token.value))
        if token.key == "ENV":
            value = self.properties.get(token.attribute or "", "")
        elif token.key == "ATTR":
            value = self._kernel.read(self._path(token.attribute or ""))
        if value is None:
            return False
        return any(
            fnmatch.fnmatchcase(value, pattern) if set("*?[") & set(pattern) else value == pattern
            for pattern in token.value.split("|")
        )

    def _exists(self, path: str) -> bool:
        if path in PROGRAMS:
            return True
        if path.startswith("/"):
            return self._kernel.exists(_in_sys(path))
        return self._kernel.exists(self._path(path))

    def _path(self, attribute: str) -> str:
        first, _slash, rest = attribute.partition("/")
        if first == "subsystem":
            return f"bus/{self._bus}/{rest}"
        if first == "driver":
            return f"bus/{self._bus}/drivers/{self._kernel.driver_of(self._name)}/{rest}"
        return f"{self._home}/{attribute}"

    def _filled(self, value: str) -> str:
        filled = re.sub(
            r"\$env\{([^}]+)\}", lambda found: self.properties.get(found.group(1), ""), value
        )
        for name, value in (
            ("$kernel", self._name),
            ("$devpath", f"/{self._home}"),
            ("$result", self._result),
        ):
            filled = filled.replace(name, value)
        if "$" in filled or "%" in filled:
            raise UdevError(value)
        return filled


class NodeEvent(Event):
    """One event of the node that a device on VFIO has for itself."""

    def __init__(self, kernel: FakeKernel, kmod: FakeKmod, name: str, parent: Event) -> None:
        super().__init__(kernel, kmod, "vfio-dev", name)
        self._parent = parent
        self.properties["DEVNAME"] = f"/dev/vfio/devices/{name}"

    def _import_parent(self, pattern: str) -> None:
        for key, value in self._parent.properties.items():
            if fnmatch.fnmatchcase(key, pattern):
                self.properties[key] = value


def coldplug(kernel: FakeKernel, kmod: FakeKmod, text: str) -> None:
    """Replay ``add`` for every device, as at boot and as 'udevadm trigger -c add' does."""
    rules = parse(text)
    for bus in ("amba", "platform"):
        for name in kernel.names(f"bus/{bus}/devices"):
            before = kernel.driver_of(name)
            event = Event(kernel, kmod, bus, name)
            event.run(rules)
            if kernel.driver_of(name) not in (None, before):
                event = Event(kernel, kmod, bus, name, "bind")
                event.run(rules)
            for node in kernel.names(f"devices/platform/{name}/vfio-dev"):
                NodeEvent(kernel, kmod, node, event).run(rules)


def _in_sys(path: str) -> str:
    """As the fake kernel has paths."""
    return path[len("/sys/") :] if path.startswith("/sys/") else path
