# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a board's machine is like beyond its device tree: drivers, modules, the kernel's habits.

A description is YAML; README.md has one with every part.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import SimulatorError

BUSES = ("platform", "amba")
VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba"}
CARRIED = ("net", "block", "tty", "dma")
# The reset functions that Linux has (drivers/vfio/platform/reset).
_RESET_FUNCTIONS = {
    "calxeda,hb-xgmac": "vfio_platform_calxedaxgmac",
    "amd,xgbe-seattle-v1a": "vfio_platform_amdxgbe",
    "brcm,iproc-flexrm-mbox": "vfio_platform_bcmflexrm",
}

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Habits:
    """How this kernel was built and how it behaves where kernels differ."""

    groups_at_boot: bool = False
    reset_bug: bool = False
    noiommu: bool = True
    device_cdev: bool = True
    override_locks: bool = False
    vfio: str = "module"


@dataclass(frozen=True)
class Driver:
    """A driver; ``probe`` gives errnos by device name, with "*" for every other device.

    ``remove`` is how many seconds its remove takes, and infinity for one that never returns;
    ``makes`` names the device that it makes below each one that it is bound to, ``waits_for`` the
    device without which it defers.
    """

    name: str
    bus: str = "platform"
    compatible: tuple[str, ...] = ()
    amba_ids: tuple[str, ...] = ()
    hids: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    module: str | None = None
    probe: Mapping[str, int] = field(default_factory=dict)
    suppress_bind_attrs: bool = False
    remove: float = 0
    makes: str | None = None
    waits_for: str | None = None


@dataclass(frozen=True)
class Module:
    """A kernel module; ``aliases`` are patterns beside those that its drivers give it.

    ``then`` are those that modprobe loads after it (softdep post). ``loaded`` says whether it is
    at boot; ``built_in`` that it is no file but part of the kernel; ``held`` that somebody uses it
    for good.
    """

    name: str
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    loaded: bool = False
    built_in: bool = False
    held: bool = False


@dataclass(frozen=True)
class Extra:
    """A device that no node of the device tree stands for."""

    name: str
    bus: str = "platform"
    acpi_path: str | None = None
    acpi_hid: str | None = None


@dataclass(frozen=True)
class Carried:
    """What a device carries while its native driver has it: ``kind`` is one of CARRIED."""

    device: str
    kind: str
    name: str


@dataclass(frozen=True)
class Description:
    """The whole of it; ``dmi`` are names as in /sys/class/dmi/id, of a machine with ACPI."""

    kernel: Habits = Habits()
    natives: str = "each"
    drivers: tuple[Driver, ...] = ()
    modules: tuple[Module, ...] = ()
    devices: tuple[Extra, ...] = ()
    carries: tuple[Carried, ...] = ()
    reset_functions: Mapping[str, str] = field(default_factory=lambda: dict(_RESET_FUNCTIONS))
    dmi: Mapping[str, str] = field(default_factory=dict)


def read_file(path: Path) -> Description:
    """The description in a file; SimulatorError in one line if it is none."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SimulatorError(f"Cannot read {path}: {reason}") from None
    except SimulatorError as error:
        raise SimulatorError(f"{path}: {error}") from None


def parse(text: str) -> Description:
    """A description from YAML; SimulatorError in one line if it is none."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SimulatorError("is not YAML: " + " ".join(str(error).split())) from None
    given = _mapping("a description", {} if given is None else given, _names(Description))
    found: dict[str, Any] = dict(given)
    if "kernel" in given:
        found["kernel"] = _part(Habits, "kernel", given["kernel"])
        _choice("vfio", found["kernel"].vfio, ("module", "built-in", "absent"))
    _choice("natives", given.get("natives", "each"), ("each", "none"))
    _mapping("dmi", given.get("dmi", {}), ("board_name", "product_name"))
    found["drivers"] = tuple(_driver(item) for item in _list("drivers", given))
    found["modules"] = tuple(_part(Module, "modules", item) for item in _list("modules", given))
    found["devices"] = tuple(_part(Extra, "devices", item) for item in _list("devices", given))
    found["carries"] = tuple(_carried(item) for item in _list("carries", given))
    return Description(**found)


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
    return tuple(found.name for found in fields(kind))


def _mapping(where: str, given: object, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise SimulatorError(f"{where}: {given!r} is not a mapping")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise SimulatorError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return given


def _list(key: str, given: Mapping[str, Any]) -> list[object]:
    found = given.get(key, [])
    if not isinstance(found, list):
        raise SimulatorError(f"{key}: {found!r} is not a list")
    return found


def _choice(key: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SimulatorError(f"{key}: {value!r} is none of {', '.join(choices)}")


# Linux has it in include/linux/errno.h, for itself only.
EPROBE_DEFER = 517
