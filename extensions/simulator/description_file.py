# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a description from YAML; README.md has an example with every key."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .description import (
    BUSES,
    CARRIED,
    EPROBE_DEFER,
    Carried,
    Description,
    Driver,
    Extra,
    Habits,
    Module,
)
from .errors import SimulatorError

_Part = TypeVar("_Part")


def read_file(path: Path) -> Description:
    """Return the description in a file; raise SimulatorError, with one line, if it is invalid."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SimulatorError(f"Cannot read {path}: {reason}") from None
    except SimulatorError as error:
        raise SimulatorError(f"{path}: {error}") from None


def parse(text: str) -> Description:
    """Return a description from YAML; raise SimulatorError, with one line, if it is invalid."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SimulatorError("is not YAML: " + " ".join(str(error).split())) from None
    given = _mapping("a description", {} if given is None else given, _names(Description))
    values: dict[str, Any] = dict(given)
    if "kernel" in given:
        values["kernel"] = _part(Habits, "kernel", given["kernel"])
        _choice("vfio", values["kernel"].vfio, ("module", "built-in", "absent"))
    _choice("natives", given.get("natives", "each"), ("each", "none"))
    _mapping("dmi", given.get("dmi", {}), ("board_name", "product_name"))
    values["drivers"] = tuple(_driver(item) for item in _list("drivers", given))
    values["modules"] = tuple(_part(Module, "modules", item) for item in _list("modules", given))
    values["devices"] = tuple(_part(Extra, "devices", item) for item in _list("devices", given))
    values["carries"] = tuple(_carried(item) for item in _list("carries", given))
    return Description(**values)


def _driver(given: object) -> Driver:
    values = dict(_mapping("drivers", given, _names(Driver)))
    if "probe" in values:
        values["probe"] = _probe(values["probe"])
    if values.get("remove") == "never":
        values["remove"] = math.inf
    driver = _part(Driver, "drivers", values)
    _choice("bus", driver.bus, BUSES)
    return driver


def _probe(given: object) -> dict[str, int]:
    results = given if isinstance(given, dict) else {"*": given}
    return {str(device): _code(name) for device, name in results.items()}


def _code(name: object) -> int:
    if name == "OK":
        return 0
    if name == "EPROBE_DEFER":
        return EPROBE_DEFER
    code = getattr(errno, str(name), None)
    if not isinstance(code, int):
        raise SimulatorError(f"probe: {name!r} is not the name of an error, such as EIO")
    return code


def _carried(given: object) -> Carried:
    values = dict(_mapping("carries", given, ("device", *CARRIED)))
    device = values.pop("device", None)
    if len(values) != 1 or not isinstance(device, str):
        raise SimulatorError(f"carries: each entry has a device and one of {', '.join(CARRIED)}")
    ((kind, name),) = values.items()
    return Carried(device, str(kind), str(name))


def _part(kind: type[_Part], where: str, given: object) -> _Part:
    values = dict(_mapping(where, given, _names(kind)))
    for key, value in values.items():
        if isinstance(value, list):
            values[key] = tuple(str(item) for item in value)
    if "name" in _names(kind) and not isinstance(values.get("name"), str):
        raise SimulatorError(f"{where}: each entry has a name")
    return kind(**values)


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _mapping(where: str, given: object, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise SimulatorError(f"{where}: {given!r} is not a mapping")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise SimulatorError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return given


def _list(key: str, given: Mapping[str, Any]) -> list[object]:
    entries = given.get(key, [])
    if not isinstance(entries, list):
        raise SimulatorError(f"{key}: {entries!r} is not a list")
    return entries


def _choice(key: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SimulatorError(f"{key}: {value!r} is not one of {', '.join(choices)}")
