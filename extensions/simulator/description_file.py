# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a description from YAML; README.md has an example with every key."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from . import acpi, in_use, pci_lines
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
    Topology,
)
from .errors import SimulatorError
from .lines import check_length, quoted, read_limited
from .pci_ids import is_identifier

_MOST_ENTRIES = 2000
# PCI functions are in a list of their own.
_BUSES_OF_DEVICES = ("platform", "amba")
# The keys whose values are names of files or directories of /sys.
_FILE_NAMES = ("name", "module", "makes")
_FILE_NAME = re.compile(r"(?!\.\.?\Z)[ -.0-~]{1,255}")
_KINDS = {
    "tuple": (list, "a list"),
    "Mapping": (dict, "a mapping"),
    "bool": (bool, "true or false"),
}

_Part = TypeVar("_Part")


class _Loader(yaml.SafeLoader):
    """Refuses aliases, by which a short text can describe more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = cast("Any", self).peek_event().start_mark.line + 1
            raise SimulatorError(f"line {line}: YAML aliases are not supported")
        return super().compose_node(parent, index)


def read_file(path: Path) -> Description:
    """Return the description in a file; raise SimulatorError, with one line, if it is invalid."""
    try:
        content = read_limited(path, 1).decode("utf-8")
    except UnicodeDecodeError:
        raise SimulatorError(f"Cannot read {path}: it is not text") from None
    try:
        return parse(content)
    except SimulatorError as error:
        raise SimulatorError(f"{path}: {error}") from None


def parse(text: str) -> Description:
    """Return a description from YAML; raise SimulatorError, with one line, if it is invalid."""
    given, numbers = _load(text)
    given = _mapping("a description", {} if given is None else given, _names(Description))
    values: dict[str, Any] = dict(given)
    if "kernel" in given:
        values["kernel"] = _part(Habits, "kernel", given["kernel"])
        _choice("vfio", values["kernel"].vfio, ("module", "built-in", "absent"))
    _choice("natives", given.get("natives", "each"), ("each", "none"))
    _mapping("dmi", given.get("dmi", {}), ("board_name", "product_name"))
    values["drivers"] = tuple(_driver(item) for item in _list("drivers", given))
    values["modules"] = tuple(_part(Module, "modules", item) for item in _list("modules", given))
    values["devices"] = _devices(_list("devices", given), numbers.get("devices", []))
    values["pci"] = _pci(_list("pci", given), numbers.get("pci", []))
    values["carries"] = _carries(_list("carries", given), numbers.get("carries", []))
    for key in ("reset_functions", "dmi"):
        _check_kind(key, "Mapping", given.get(key, {}))
    for name in given.get("reset_functions", {}).values():
        _check_file_name("reset_functions", name)
    return Description(**values)


def _load(text: str) -> tuple[Any, dict[str, list[int]]]:
    """Return the content, and for each list at the top the line numbers of its entries."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        given = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        raise SimulatorError("is not YAML: " + " ".join(str(error).split())) from None
    except RecursionError:
        raise SimulatorError("is nested too deeply") from None
    numbers = {
        key.value: [item.start_mark.line + 1 for item in value.value]
        for key, value in (root.value if isinstance(root, yaml.MappingNode) else ())
        if isinstance(value, yaml.SequenceNode)
    }
    return given, numbers


def _devices(entries: Sequence[object], numbers: Sequence[int]) -> tuple[Extra, ...]:
    described = [_extra(entry) for entry in entries if not isinstance(entry, str)]
    return (*described, *acpi.parse_lines(_lines(entries, numbers)))


def _extra(given: object) -> Extra:
    extra = _part(Extra, "devices", given)
    _choice("bus", extra.bus, _BUSES_OF_DEVICES)
    return extra


def _pci(entries: Sequence[object], numbers: Sequence[int]) -> Topology:
    for entry in entries:
        if not isinstance(entry, str):
            raise SimulatorError(
                f"pci: {quoted(entry)} is not a line such as '{pci_lines.EXAMPLE}'"
            )
    return pci_lines.parse_lines(_lines(entries, numbers))


def _carries(entries: Sequence[object], numbers: Sequence[int]) -> tuple[Carried, ...]:
    described = [_carried(entry) for entry in entries if not isinstance(entry, str)]
    return (*described, *in_use.parse_lines(_lines(entries, numbers)))


def _lines(entries: Sequence[object], numbers: Sequence[int]) -> list[tuple[str, str]]:
    """Return the entries that are described in one line, each with a label for errors."""
    return [
        (f"line {numbers[index]}", entry)
        for index, entry in enumerate(entries)
        if isinstance(entry, str)
    ]


def _driver(given: object) -> Driver:
    values = dict(_mapping("drivers", given, _names(Driver)))
    if "probe" in values:
        values["probe"] = _probe(values["probe"])
    if values.get("remove") == "never":
        values["remove"] = math.inf
    driver = _part(Driver, "drivers", values)
    _choice("bus", driver.bus, BUSES)
    if driver.sriov is not None:
        _choice("sriov", driver.sriov, ("removed", "kept"))
    for identifier in (*driver.pci_ids, *driver.vfio_ids):
        if not is_identifier(identifier):
            raise SimulatorError(
                f"drivers: {quoted(identifier)} is neither an id such as 8086:10d3 nor a class "
                "such as 010802"
            )
    return driver


def _probe(given: object) -> dict[str, int]:
    results = given if isinstance(given, dict) else {"*": given}
    for device in results:
        if not isinstance(device, str):
            # YAML takes 0000:01:00.0 for a number with the base 60.
            raise SimulatorError(
                f"probe: {quoted(device)} is not the name of a device; put an address in quotes"
            )
    return {device: _code(name) for device, name in results.items()}


def _code(name: object) -> int:
    if name == "OK":
        return 0
    if name == "EPROBE_DEFER":
        return EPROBE_DEFER
    code = getattr(errno, str(name), None)
    if not isinstance(code, int):
        raise SimulatorError(f"probe: {quoted(name)} is not the name of an error, such as EIO")
    return code


def _carried(given: object) -> Carried:
    values = dict(_mapping("carries", given, ("device", *CARRIED)))
    device = values.pop("device", None)
    if len(values) != 1 or not isinstance(device, str):
        raise SimulatorError(f"carries: each entry has a device and one of {', '.join(CARRIED)}")
    ((kind, name),) = values.items()
    _check_file_name("carries", name)
    return Carried(device, str(kind), str(name))


def _part(kind: type[_Part], where: str, given: object) -> _Part:
    values = dict(_mapping(where, given, _names(kind)))
    for key, value in values.items():
        _check_kind(f"{where}: {key}", _type_of(kind, key), value)
        if key in _FILE_NAMES and value is not None:
            _check_file_name(where, value)
        if isinstance(value, list):
            values[key] = tuple(str(item) for item in value)
    if "name" in _names(kind) and not isinstance(values.get("name"), str):
        raise SimulatorError(f"{where}: each entry has a name")
    return kind(**values)


def _type_of(kind: type[Any], key: str) -> str:
    return next(str(field.type) for field in fields(kind) if field.name == key)


def _check_kind(label: str, annotation: str, value: object) -> None:
    kind, name = _KINDS.get(annotation.partition("[")[0], (object, ""))
    if not isinstance(value, kind):
        raise SimulatorError(f"{label}: {quoted(value)} is not {name}")


def _check_file_name(where: str, name: object) -> None:
    if not _FILE_NAME.fullmatch(str(name)):
        raise SimulatorError(f"{where}: {quoted(str(name))} is not a name that /sys can have")


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _mapping(where: str, given: object, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise SimulatorError(f"{where}: {quoted(given)} is not a mapping")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        listed = quoted(", ".join(unknown))[1:-1]
        raise SimulatorError(f"{where}: unknown {listed}; known: {', '.join(known)}")
    return given


def _list(key: str, given: Mapping[str, Any]) -> list[object]:
    entries = given.get(key, [])
    if not isinstance(entries, list):
        raise SimulatorError(f"{key}: {quoted(entries)} is not a list")
    check_length(len(entries), _MOST_ENTRIES, key)
    return entries


def _choice(key: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SimulatorError(f"{key}: {quoted(value)} is not one of {', '.join(choices)}")
