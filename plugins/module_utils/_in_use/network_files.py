# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which network interfaces are configured to come up at boot, and in which file. Reads only."""

from __future__ import annotations

import re
from typing import Iterator, Mapping, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._system import systemd_conf
from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE, parameters_of_any_reader

_IFUPDOWN = "/etc/network/interfaces"
_NETWORKD = tuple(
    directory + "/systemd/network"
    for directory in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_NETWORK_MANAGER = tuple(
    directory + "/NetworkManager/system-connections" for directory in ("/etc", "/run", "/usr/lib")
)
_NETPLAN = tuple(directory + "/netplan" for directory in ("/etc", "/run", "/usr/lib", "/lib"))
_IFCFG = ("/etc/sysconfig/network-scripts", "/etc/sysconfig/network")

# Options of interfaces(5) whose values are interfaces.
_BELOW = {
    "bridge_ports",
    "bond_slaves",
    "bond_primary",
    "slaves",
    "team_ports",
    "vlan_raw_device",
    "ovs_ports",
}
_NO_INTERFACE = {"all", "none", "lo", "auto"}
_INCLUDED_AT_MOST = 100
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")
_SECTION = re.compile(r"\[(.+)\]\Z")
_TOKEN = re.compile(r"[^\s,\[\]{}'\"]+")
# Of a .network file, those conditions that can be judged here.
_MACS = ("MACAddress", "PermanentMACAddress")
_MATCHED = {"Name", "Path", "Driver", "Type", "Kind", *_MACS}
# Of a keyfile of NetworkManager, section and key of what names interfaces.
_NAMING = {
    ("connection", "interface-name"),
    ("match", "interface-name"),
    ("vlan", "parent"),
    ("macvlan", "parent"),
    ("ethernet", "mac-address"),
    ("802-3-ethernet", "mac-address"),
}

Settings = Mapping[str, Sequence[str]]


class Interface(NamedTuple):
    """What files can name an interface by.

    ``kind`` is what networkd calls its type, ``path`` is udev's ID_PATH. ``name`` is empty where it
    is not known yet.
    """

    name: str
    addresses: Sequence[str]
    kind: str = "ether"
    driver: str | None = None
    path: str | None = None


class _Setup(NamedTuple):
    """What a file says of interfaces: names or patterns of names, and MAC addresses."""

    path: str
    words: Sequence[str]

    def has(self, interface: Interface) -> bool:
        return any(_names(word, interface) for word in self.words)


class NetworkFiles:
    """Reads all files when the first question comes."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._setups: list[_Setup] | None = None
        self._networkd: list[tuple[str, dict[str, Settings]]] = []

    def file_of(self, interface: Interface) -> str | None:
        """Return the file that configures an interface, or None."""
        if self._setups is None:
            self._networkd = list(self._read_networkd())
            self._setups = list(self._read())
        by_networkd = self._of_networkd(interface)
        if by_networkd:
            return by_networkd
        return next((setup.path for setup in self._setups if setup.has(interface)), None)

    def _read(self) -> Iterator[_Setup]:
        yield from self._read_ifupdown()
        for path in self._in(_NETWORK_MANAGER):
            yield _Setup(path, _keyfile_names(self._text(path)))
        for path in self._in(_NETPLAN):
            if path.endswith(".yaml"):
                yield _Setup(path, _netplan_names(self._text(path)))
        for path in self._in(_IFCFG):
            name = path.rpartition("/")[2]
            if name.startswith("ifcfg-") and not name.endswith(("~", ".bak", ".orig", ".rpmsave")):
                yield _Setup(path, _ifcfg_names(name[6:], self._text(path)))
        words = parameters_of_any_reader(self._text(KERNEL_COMMAND_LINE))
        given = [word.partition("=")[2] for word in words if word.startswith(("ip=", "ifname="))]
        named = [name for value in given for name in (*value.split(":"), value.partition(":")[2])]
        yield _Setup("%s (ip=)" % KERNEL_COMMAND_LINE, _kept(named))

    def _text(self, path: str) -> str:
        """Return the content; nothing of what is no file, or is root's alone."""
        try:
            return self._files.read(path) or ""
        except PolicyError:
            return ""

    def _in(self, directories: Sequence[str]) -> list[str]:
        return [
            "%s/%s" % (directory, name)
            for directory in directories
            for name in self._files.names(directory)
            if not name.startswith(".")
        ]

    def _read_ifupdown(self) -> Iterator[_Setup]:
        waiting = [_IFUPDOWN]
        known: set[str] = set()
        while waiting and len(known) < _INCLUDED_AT_MOST:
            path = waiting.pop(0)
            if path in known:
                continue
            known.add(path)
            names, included = _interfaces_names(self._text(path))
            yield _Setup(path, names)
            for pattern in included:
                directory, _slash, name = pattern.rpartition("/")
                waiting += [
                    "%s/%s" % (directory, file)
                    for file in self._files.names(directory)
                    if _text.is_like(file, name)
                ]

    def _read_networkd(self) -> Iterator[tuple[str, dict[str, Settings]]]:
        for path in systemd_conf.drop_in_files(self._files, _NETWORKD, ".network", ""):
            yield path, _sections(self._text(path))

    def _of_networkd(self, interface: Interface) -> str | None:
        """Return the first file that matches counts: systemd.network(5)."""
        for path, sections in self._networkd:
            match = sections.get("Match", {})
            is_named = interface.name or any(match.get(key) for key in _MACS)
            if is_named and _matches(match, interface):
                unmanaged = sections.get("Link", {}).get("Unmanaged", [])
                is_managed = unmanaged[-1:] not in (["yes"], ["true"], ["1"], ["on"])
                return path if is_managed else None
        return None


def _names(word: str, interface: Interface) -> bool:
    if _MAC.match(_mac(word)):
        return _mac(word) in interface.addresses
    # "eth0.5" is a VLAN of eth0 wherever it is named.
    plain = word.partition(".")[0] if word[:1] not in "*?[" else word
    name = interface.name
    return bool(name) and any(_text.is_like(name, pattern) for pattern in (word, plain))


def _kept(words: Sequence[str]) -> list[str]:
    return [word for word in words if word and word not in _NO_INTERFACE]


def _logical_lines(content: str) -> Iterator[list[str]]:
    for line in _text.lines(content.replace("\\\n", " ")):
        words = _text.words(line)
        if words and words[0][0] != "#":
            yield words


def _interfaces_names(content: str) -> tuple[list[str], list[str]]:
    """Return what interfaces(5) names, and the patterns of paths that it includes."""
    names: list[str] = []
    included: list[str] = []
    for key, *values in _logical_lines(content):
        if key == "source":
            included += values
        elif key == "source-directory":
            included += [value.rstrip("/") + "/*" for value in values]
        elif key == "auto" or key.startswith("allow-"):
            # "/" stands before a pattern.
            names += [value.lstrip("/").partition("=")[0] for value in values]
        elif key in ("iface", "mapping"):
            names += values[:1]
        elif key.replace("-", "_") in _BELOW:
            names += values
    return _kept(names), included


def _sections(content: str) -> dict[str, Settings]:
    """Return a file of sections with keys, as systemd reads it: an empty value resets a key."""
    sections: dict[str, dict[str, list[str]]] = {}
    keys: dict[str, list[str]] = {}
    for line in _text.lines(content.replace("\\\n", " ")):
        text = _text.stripped(line)
        section = _SECTION.match(text)
        if section:
            keys = sections.setdefault(section.group(1), {})
            continue
        key, equals, value = text.partition("=")
        if equals and text[0] not in "#;":
            values = _text.words(value)
            key = _text.stripped(key)
            keys[key] = keys.get(key, []) + values if values else []
    return {name: dict(keys) for name, keys in sections.items()}


def _matches(match: Settings, interface: Interface) -> bool:
    """Return whether [Match] of a .network file may mean the interface.

    What is not known of it here (Host=, Property=, Virtualization= …) counts as met.
    """
    given = {
        key: [_mac(value) for value in values] if key in _MACS else values
        for key, values in match.items()
        if key in _MATCHED and values
    }
    actual: dict[str, Sequence[str]] = {
        "Name": [interface.name],
        **dict.fromkeys(_MACS, interface.addresses),
        "Path": [interface.path] if interface.path else [],
        "Driver": [interface.driver] if interface.driver else [],
        "Type": [interface.kind],
        "Kind": [],
    }
    return all(_meets(values, actual[key]) for key, values in given.items())


def _meets(patterns: Sequence[str], actual: Sequence[str]) -> bool:
    is_inverted = patterns[0].startswith("!")
    wanted = [patterns[0].lstrip("!"), *patterns[1:]]
    is_alike = any(_text.is_like(value, pattern) for value in actual for pattern in wanted)
    return is_alike != is_inverted


def _mac(text: str) -> str:
    return text.lower().replace("-", ":")


def _keyfile_names(content: str) -> list[str]:
    """Return the interface of a NetworkManager profile; one without a name fits any."""
    sections = _sections(content)
    values = [
        value
        for section, key in sorted(_NAMING)
        for text in sections.get(section, {}).get(key, [])
        for value in text.split(";")
    ]
    return _kept([value.lstrip("|&") for value in values if not value.startswith("!")])


def _netplan_names(content: str) -> list[str]:
    """Return each word that may name an interface; real parsing would need a YAML parser."""
    lines = [
        line.partition(" #")[0] for line in _text.lines(content) if _text.stripped(line)[:1] != "#"
    ]
    words = [token.rstrip(":") for line in lines for token in _TOKEN.findall(line)]
    # A pattern is one only where "match" has it.
    patterns = set(re.findall(r"^\s*name:\s*[\"']?([^\s\"']+)", content, re.MULTILINE))
    return _kept([word for word in words if word in patterns or not set("*?") & set(word)])


def _ifcfg_names(suffix: str, content: str) -> list[str]:
    values = dict(
        _text.stripped(line).partition("=")[::2] for line in _text.lines(content) if "=" in line
    )
    named = [
        values.get(key, "").strip("\"'") for key in ("DEVICE", "HWADDR", "PHYSDEV", "ETHERDEVICE")
    ]
    return _kept([suffix, *named])
