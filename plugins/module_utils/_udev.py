# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which udev rules of others set the override of a device. Reads only.

What is looked at is each rule by itself: not the order of files, and not what earlier rules made of
a property.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._model import Identity

_FOLDERS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)
_ATTRIBUTE = "driver_override"
# Properties that a device has by its node alone; what is not known of it, it does not have.
_OF_NODE = ("OF_FULLNAME", "OF_NAME", "OF_COMPATIBLE_")
_PLACE = ("SUBSYSTEM", "KERNEL")
_TOKEN = re.compile(r'([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:[^"\\]|\\.)*)"')
# As people write it: RUN+="/bin/sh -c 'echo vfio-platform > /sys/…/driver_override'".
_ECHO = re.compile(r"echo\s+(?:-n\s+)?[\\\"']*([\w.+-]+)[\\\"']*\s*>[^;&|]*driver_override")
# [SUBSYSTEM/KERNEL] stands for another device than the event's.
_ELSEWHERE = re.compile(r"\[([^/\]]+)/([^\]]+)\]/?" + _ATTRIBUTE)


class Rule(NamedTuple):
    """A rule of somebody that sets an override; ``driver_override`` is None where it is not plain.

    ``matches`` are its conditions as (key, attribute, operator, pattern).
    """

    place: str
    matches: Sequence[tuple[str, str, str, str]]
    driver_override: str | None

    def concerns(self, device: Identity) -> bool:
        """Whether it may set the override of this device.

        What is not known counts as met if something that names the device is.
        """
        known = _properties(device)
        is_named = is_open = False
        for key, attribute, operator, pattern in self.matches:
            value = "" if attribute.startswith(_OF_NODE) else None
            value = known.get((key, attribute), value)
            if value is None:
                is_open = is_open or key not in ("ACTION", "TEST")
                continue
            if _is_alike(value, pattern) != (operator == "=="):
                return False
            is_named = is_named or (operator == "==" and key != "SUBSYSTEM")
        return is_named or not is_open

    def clash(self, device: Identity, wanted: str | None) -> str:
        """Why a list cannot have this device, and what can be done."""
        return (
            "%s is to have %s as its driver_override at each boot, but %s sets %s. Remove that "
            "rule, or take the device off the list"
            % (device.label, wanted or "none set", self.place, self.driver_override or "another")
        )


def rules(files: Files, ours: str) -> list[Rule]:
    """The rules of all files but ``ours`` that set an override, in the order of their names."""
    found = []
    for path in files.layered(_FOLDERS, ".rules", ours):
        content = files.read(path) or ""
        if _ATTRIBUTE in content:
            found += _parsed(path, content)
    return found


def of_device(device: Identity, known: Sequence[Rule]) -> list[Rule]:
    """The rules that may set the override of this device."""
    return [rule for rule in known if rule.concerns(device)]


def _parsed(path: str, content: str) -> list[Rule]:
    found = []
    waiting = ""
    for number, text in enumerate(content.splitlines(), 1):
        line = waiting + text.strip()
        waiting = line[:-1] if line.endswith("\\") else ""
        if not waiting and _ATTRIBUTE in line and not line.startswith("#"):
            found += _rules_of_line("%s:%d" % (path, number), line)
    return found


def _rules_of_line(place: str, line: str) -> list[Rule]:
    tokens = _TOKEN.findall(line)
    matches = [
        (key, attribute, operator, value)
        for key, attribute, operator, value in tokens
        if operator in ("==", "!=")
    ]
    found = []
    for key, attribute, operator, value in tokens:
        elsewhere = _ELSEWHERE.fullmatch(attribute)
        if operator in ("==", "!="):
            continue
        if elsewhere:
            other = [(name, "", "==", text) for name, text in zip(_PLACE, elsewhere.groups())]
            found.append(Rule(place, other, _plain(value)))
        elif key == "ATTR" and attribute == _ATTRIBUTE:
            found.append(Rule(place, matches, _plain(value)))
        elif key in ("RUN", "PROGRAM", "IMPORT") and _ATTRIBUTE in value:
            echoed = _ECHO.search(value)
            found.append(Rule(place, matches, echoed.group(1) if echoed else None))
    return found


def _plain(value: str) -> str | None:
    """A value that is the same for every device."""
    return None if "$" in value or "%" in value else value.strip()


def _is_alike(value: str, pattern: str) -> bool:
    return any(fnmatchcase(value, one) for one in pattern.split("|"))


def _properties(device: Identity) -> Mapping[tuple[str, str], str]:
    """What the rules can ask of the device, as far as it is known here."""
    known = {
        ("SUBSYSTEM", ""): device.bus,
        ("KERNEL", ""): device.name,
        ("ATTR", "firmware_node/path"): device.acpi_path or "",
        ("ATTR", "firmware_node/hid"): device.acpi_hid or "",
    }
    if device.dt_path:
        known["ENV", "OF_FULLNAME"] = device.dt_path
        known["ENV", "OF_NAME"] = device.dt_path.rpartition("/")[2].partition("@")[0]
    for number, compatible in enumerate(device.compatible):
        known["ENV", "OF_COMPATIBLE_%d" % number] = compatible
    return known
