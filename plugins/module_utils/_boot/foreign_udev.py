# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which udev rules of others set the override of a device, and in what order. Reads only.

Files come in the order of their names, whichever directory they are in, and ours is one of them. A
rule that a GOTO jumps over is left out where all that the GOTO asks for is known. What earlier
rules made of a property is not followed.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Iterator, Mapping, NamedTuple, Sequence

from .. import _text
from .._model.device import Identity
from .._system.files import Files

_DIRECTORIES = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
_ATTRIBUTE = "driver_override"
# Properties that a device has by its node alone; what is not known of it, it does not have.
_OF_NODE = ("OF_FULLNAME", "OF_NAME", "OF_COMPATIBLE_")
_DEVICE_KEYS = ("SUBSYSTEM", "KERNEL")
_TOKEN = re.compile(r'([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:[^"\\]|\\.)*)"')
# As people write it: RUN+="/bin/sh -c 'echo vfio-platform > /sys/…/driver_override'".
_ECHO = re.compile(r"echo\s+(?:-n\s+)?[\\\"']*([\w.+-]+)[\\\"']*\s*>[^;&|]*driver_override")
# [SUBSYSTEM/KERNEL] stands for another device than the event's.
_OTHER_DEVICE = re.compile(r"\[([^/\]]+)/([^\]]+)\]/?" + _ATTRIBUTE)


# When a rule acts. What RUN names is started after all rules.
_BEFORE_OURS, _AFTER_OURS, _AFTER_ALL = range(3)
# A rule starts these, and does not go on where they fail.
_STARTED = ("PROGRAM", "IMPORT")

# What is known of a device and its event, by key and attribute.
Properties = Mapping["tuple[str, str]", str]


class Match(NamedTuple):
    """One condition of a rule."""

    key: str
    attribute: str
    operator: str
    pattern: str

    def is_met(self, known: Properties) -> bool | None:
        """Return whether the device meets it; None if that is not known."""
        value = known.get((self.key, self.attribute))
        if value is None:
            if not self.attribute.startswith(_OF_NODE):
                return None
            value = ""
        return _is_alike(value, self.pattern) == (self.operator == "==")


class Rule(NamedTuple):
    """A rule of somebody that sets an override.

    ``driver_override`` is None if what it sets is not the same for every device.
    """

    location: str
    matches: Sequence[Match]
    driver_override: str | None
    phase: int

    @property
    def is_after_ours(self) -> bool:
        """Whether it acts after the rules of this collection."""
        return self.phase > _BEFORE_OURS

    def concerns(self, known: Properties) -> bool:
        """Return whether it may set the override of this device.

        What is not known counts as met if something that names the device is.
        """
        is_named = is_open = False
        for match in self.matches:
            is_met = match.is_met(known)
            if is_met is None:
                is_open = is_open or match.key not in ("ACTION", "TEST")
            elif not is_met:
                return False
            elif match.operator == "==" and match.key not in ("SUBSYSTEM", "ACTION"):
                is_named = True
        return is_named or not is_open

    def conflict(self, device: Identity, wanted: str | None) -> str:
        """Return why a list cannot have this device, and what can be done."""
        return (
            "%s has a conflicting udev rule: the list sets its driver_override to %s at each "
            "boot, but %s sets %s. Remove that rule, or remove the device from the list"
            % (device.label, wanted or "none set", self.location, self.driver_override or "another")
        )


class _Line(NamedTuple):
    """A line that sets overrides, jumps to a label, or has one."""

    matches: Sequence[Match]
    rules: Sequence[Rule]
    goto: str
    label: str

    def jumps(self, known: Properties) -> bool:
        return bool(self.goto) and all(match.is_met(known) for match in self.matches)


# The lines of a file, in their order.
File = Sequence[_Line]


def rules(files: Files, ours: str) -> list[File]:
    """Return the files of others with rules that set an override, in the order of their names."""
    parsed = []
    for path in files.drop_in_files(_DIRECTORIES, ".rules", ours):
        content = files.read_drop_in(path) or ""
        if _ATTRIBUTE in content:
            is_before = path.rpartition("/")[2] < ours.rpartition("/")[2]
            parsed.append(_parsed(path, content, _BEFORE_OURS if is_before else _AFTER_OURS))
    return parsed


def of_device(device: Identity, known: Sequence[File], action: str | None = None) -> list[Rule]:
    """Return the rules that may set the override of this device, in the order in which they do.

    ``action`` is that of the event; None for any.
    """
    properties = _properties(device)
    if action:
        properties["ACTION", ""] = action
    concerned = [
        rule
        for file in known
        for line in _reached(file, properties)
        for rule in line.rules
        if rule.concerns(properties)
    ]
    return sorted(concerned, key=lambda rule: rule.phase)


def _reached(file: File, known: Properties) -> Iterator[_Line]:
    label = ""
    for line in file:
        if label in ("", line.label):
            label = line.goto if line.jumps(known) else ""
            yield line


def _parsed(path: str, content: str, phase: int) -> File:
    lines: list[_Line] = []
    waiting = ""
    for number, text in enumerate(_text.lines(content), 1):
        line = waiting + _text.stripped(text)
        waiting = line[:-1] if line.endswith("\\") else ""
        if not waiting and not line.startswith("#"):
            lines.append(_line("%s:%d" % (path, number), line, phase))
    # udev drops a GOTO for which there is no LABEL further on.
    labels: set[str] = set()
    for number in reversed(range(len(lines))):
        if lines[number].goto not in labels:
            lines[number] = lines[number]._replace(goto="")
        labels.add(lines[number].label)
    return [line for line in lines if line.rules or line.goto or line.label]


def _line(location: str, text: str, phase: int) -> _Line:
    tokens = _TOKEN.findall(text)
    values = {key: value for key, _attribute, _operator, value in tokens}
    matches = [Match(*token) for token in tokens if token[2] in ("==", "!=")]
    rules_of_line = [
        rule for token in tokens for rule in _rules_of_token(location, matches, token, phase)
    ]
    is_sure = values.keys().isdisjoint(_STARTED)
    return _Line(
        matches, rules_of_line, values.get("GOTO", "") if is_sure else "", values.get("LABEL", "")
    )


def _rules_of_token(
    location: str, matches: Sequence[Match], token: tuple[str, str, str, str], phase: int
) -> list[Rule]:
    key, attribute, operator, value = token
    if operator in ("==", "!="):
        return []
    other_device = _OTHER_DEVICE.fullmatch(attribute)
    if other_device:
        other = [
            Match(name, "", "==", text) for name, text in zip(_DEVICE_KEYS, other_device.groups())
        ]
        return [Rule(location, other, _plain(value), phase)]
    if key == "ATTR" and attribute == _ATTRIBUTE:
        return [Rule(location, matches, _plain(value), phase)]
    if key in ("RUN", *_STARTED) and _ATTRIBUTE in value:
        echoed = _ECHO.search(value)
        late = _AFTER_ALL if key == "RUN" else phase
        return [Rule(location, matches, echoed.group(1) if echoed else None, late)]
    return []


def _plain(value: str) -> str | None:
    """A value that is the same for every device."""
    return None if "$" in value or "%" in value else _text.stripped(value)


def _is_alike(value: str, pattern: str) -> bool:
    return any(fnmatchcase(value, alternative) for alternative in pattern.split("|"))


def _properties(device: Identity) -> dict[tuple[str, str], str]:
    """Return what the rules can ask of the device, as far as it is known here."""
    known = {
        ("SUBSYSTEM", ""): device.bus,
        ("KERNEL", ""): device.name,
        ("ATTR", "firmware_node/path"): device.acpi_path or "",
        ("ATTR", "firmware_node/hid"): device.acpi_hid or "",
    }
    if device.dt_path:
        known["ENV", "OF_FULLNAME"] = device.dt_path
        known["ENV", "OF_NAME"] = device.dt_path.rpartition("/")[2].partition("@")[0]
    if device.pci_id:
        # pci_uevent and the attributes in drivers/pci.
        vendor, card, *subsystem = device.pci_id[-1].split(":")
        known["ENV", "PCI_SLOT_NAME"] = device.name
        known["ENV", "PCI_ID"] = ("%s:%s" % (vendor, card)).upper()
        known["ENV", "PCI_SUBSYS_ID"] = ":".join(subsystem).upper()
        known["ATTR", "vendor"] = "0x" + vendor
        known["ATTR", "device"] = "0x" + card
        for name, value in zip(("subsystem_vendor", "subsystem_device"), subsystem):
            known["ATTR", name] = "0x" + value
    for number, compatible in enumerate(device.compatible if device.dt_path else ()):
        known["ENV", "OF_COMPATIBLE_%d" % number] = compatible
    return known
