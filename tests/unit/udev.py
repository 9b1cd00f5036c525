"""As much of udev as the collection's rules use, acting on the fake kernel.

Match values with glob characters go through fnmatch, all others are compared; values that are
assigned, and TEST, have ``$env{}`` and ``$kernel`` filled in; DRIVER is that of the moment of the
event, TEST sees what is there now.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from typing import NamedTuple

from fake_kernel import TREE, FakeKernel, FakeKmod

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import KernelRefusedError

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

    def _meet(self, token: Token) -> bool:
        if token.operator in ("==", "!="):
            return self._matches(token) == (token.operator == "==")
        if token.key == "ENV" and token.attribute:
            self.properties[token.attribute] = self._filled(token.value)
        elif token.key == "ATTR" and token.attribute:
            # udev logs an error and goes on.
            with contextlib.suppress(KernelRefusedError):
                self._kernel.write(self._path(token.attribute), self._filled(token.value))
        elif token.key == "IMPORT":
            command, verb, *modules = self._filled(token.value).split()
            if (token.attribute, command, verb) != ("builtin", "kmod", "load"):
                raise UdevError(str(token))
            for module in modules:
                with contextlib.suppress(PolicyError):
                    self._kmod.load(module)
        return True

    def _matches(self, token: Token) -> bool:
        value = {
            "ACTION": self._action,
            "SUBSYSTEM": self._bus,
            "KERNEL": self._name,
            "DRIVER": self._driver,
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
        if path.startswith("/"):
            return self._kernel.exists(path.removeprefix("/sys/"))
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
        ).replace("$kernel", self._name)
        if "$" in filled or "%" in filled:
            raise UdevError(value)
        return filled


def coldplug(kernel: FakeKernel, kmod: FakeKmod, text: str) -> None:
    """Replay ``add`` for every device, as at boot and as 'udevadm trigger -c add' does."""
    rules = parse(text)
    for bus in ("amba", "platform"):
        for name in kernel.names(f"bus/{bus}/devices"):
            Event(kernel, kmod, bus, name).run(rules)
