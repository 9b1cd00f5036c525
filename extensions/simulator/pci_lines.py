# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the lines that describe PCI functions: "0000:01:00.0 8086:10d3 020000 driver=e1000e"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .acpi import parse_path
from .description import Function, RootBus, Topology, VirtualFunctions
from .errors import SimulatorError
from .lines import check_length, quoted
from .pci_ids import PciAddress, PciIdentity
from .pci_topology import check

MOST_FUNCTIONS = 2000
EXAMPLE = "0000:01:00.0 8086:10d3 020000"
# include/linux/pci.h: PCI_RESET_METHODS
_RESETS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
_FIELDS = 3

_ROOT_BUS = re.compile(r"pci(?P<domain>[0-9a-f]{4}):(?P<bus>[0-9a-f]{2})")
_ADDRESS = re.compile(
    r"(?P<domain>[0-9a-f]{4}):(?P<bus>[0-9a-f]{2}):(?P<slot>[01][0-9a-f])\.(?P<number>[0-7])"
)
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}(?::[0-9a-f]{4}:[0-9a-f]{4})?")
_CLASS = re.compile(r"[0-9a-f]{6}")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_COUNT = r"[1-9][0-9]{0,4}"
# The options of a function: what each value matches, and what it is.
_OPTIONS = {
    "driver": (_NAME, "the name of a driver"),
    "rev": (r"[0-9a-f]{2}", "a revision such as 03"),
    "bus": (r"[0-9a-f]{2}(?:-[0-9a-f]{2})?", "a bus such as 01, or buses such as 01-0f"),
    "acs": ("no", "'no'"),
    "iommu_group": (_NAME, "the name of a group, or 'none'"),
    "pm": ("no", "'no'"),
    "reset": (_NAME + r"(?:,[a-z_]+)*", f"'none', or some of {', '.join(_RESETS)}"),
    "acpi_path": (r"\\.+", r"a path such as \_SB.PCI0.ETH0"),
    "vfs": (_COUNT, "a number of virtual functions"),
    "vf_device": (r"[0-9a-f]{4}", "a device id such as 101e"),
    "vf_driver": (_NAME, "the name of a driver"),
    "vf_offset": (_COUNT, "a number"),
    "vf_stride": (_COUNT, "a number"),
}
_ROOT_OPTIONS = {
    "dt_path": (r"/.+", "a path such as /pcie@4010000000"),
    "acpi_path": _OPTIONS["acpi_path"],
}


def parse_lines(lines: Sequence[tuple[str, str]]) -> Topology:
    """Return what lines describe; each has a label for errors, such as "line 3"."""
    check_length(len(lines), MOST_FUNCTIONS, "pci")
    roots: list[RootBus] = []
    functions: list[Function] = []
    for label, line in lines:
        named, fields = f"{label}: {quoted(line)}", line.split()
        match = _ROOT_BUS.fullmatch(fields[0]) if fields else None
        if match:
            roots.append(_root_bus(named, match, fields[1:]))
        else:
            functions.append(_function(named, fields))
    topology = Topology(tuple(roots), tuple(functions))
    check(topology)
    return topology


def _root_bus(named: str, match: re.Match[str], fields: Sequence[str]) -> RootBus:
    options = _options(named, fields, _ROOT_OPTIONS)
    return RootBus(
        int(match["domain"], 16),
        int(match["bus"], 16),
        options.get("dt_path"),
        parse_path(named, options["acpi_path"]) if "acpi_path" in options else None,
        named,
    )


def _function(named: str, fields: Sequence[str]) -> Function:
    if len(fields) < _FIELDS:
        raise SimulatorError(f"{named} requires an address, an id and a class, such as '{EXAMPLE}'")
    address, identifier, code = fields[:_FIELDS]
    if not _ID.fullmatch(identifier):
        raise SimulatorError(
            f"{named} has {quoted(identifier)}, which is not an id such as 8086:10d3 or "
            "15b3:1019:15b3:0008"
        )
    if not _CLASS.fullmatch(code):
        raise SimulatorError(f"{named} has {quoted(code)}, which is not a class such as 020000")
    options = _options(named, fields[_FIELDS:], _OPTIONS)
    numbers = [int(number, 16) for number in identifier.split(":")]
    vendor, device, subvendor, subdevice = [*numbers, 0, 0][:4]
    identity = PciIdentity(
        vendor=vendor,
        device=device,
        class_code=int(code, 16),
        subsystem_vendor=subvendor,
        subsystem_device=subdevice,
        revision=int(options.get("rev", "0"), 16),
    )
    secondary, subordinate = _buses(named, identity, options)
    return Function(
        _address(named, address),
        identity,
        options.get("driver"),
        secondary,
        subordinate,
        has_acs="acs" not in options,
        iommu_group=options.get("iommu_group"),
        resets=_resets(named, identity, options),
        has_power_management="pm" not in options,
        virtual=_virtual(named, identity, options),
        acpi_path=parse_path(named, options["acpi_path"]) if "acpi_path" in options else None,
        line=named,
    )


def _address(named: str, text: str) -> PciAddress:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise SimulatorError(
            f"{named} has {quoted(text)}, which is not the address of a function such as "
            "0000:01:00.0"
        )
    domain, bus, slot = (int(match[key], 16) for key in ("domain", "bus", "slot"))
    return PciAddress(domain, bus, slot << 3 | int(match["number"]))


def _buses(
    named: str, identity: PciIdentity, options: Mapping[str, str]
) -> tuple[int | None, int | None]:
    if "bus" not in options:
        if identity.is_bridge:
            raise SimulatorError(f"{named} is a bridge and requires the bus below it, as bus=01")
        return None, None
    if not identity.is_bridge:
        raise SimulatorError(f"{named} has bus=, but only a bridge (class 0604) leads to a bus")
    first, _dash, last = options["bus"].partition("-")
    return int(first, 16), int(last, 16) if last else None


def _resets(named: str, identity: PciIdentity, options: Mapping[str, str]) -> tuple[str, ...]:
    if "reset" not in options:
        return () if identity.is_bridge else ("flr",)
    resets = () if options["reset"] == "none" else tuple(options["reset"].split(","))
    if not set(resets) <= set(_RESETS):
        raise _invalid(named, "reset", options["reset"], _OPTIONS)
    return resets


def _virtual(
    named: str, identity: PciIdentity, options: Mapping[str, str]
) -> VirtualFunctions | None:
    if "vfs" not in options:
        needless = [key for key in options if key.startswith("vf_")]
        if needless:
            raise SimulatorError(f"{named} has {needless[0]}=, but no vfs=")
        return None
    if identity.is_bridge:
        raise SimulatorError(f"{named} has vfs=, but a bridge has no virtual functions")
    return VirtualFunctions(
        int(options["vfs"]),
        int(options["vf_device"], 16) if "vf_device" in options else identity.device,
        int(options.get("vf_offset", "1")),
        int(options.get("vf_stride", "1")),
        options.get("vf_driver"),
    )


def _options(
    named: str, fields: Sequence[str], known: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    options: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if key not in known or not equals:
            listed = ", ".join(f"{name}=" for name in known)
            raise SimulatorError(f"{named} has {quoted(field)}; known: {listed}")
        if key in options:
            raise SimulatorError(f"{named} has {key}= twice")
        if not re.fullmatch(known[key][0], value):
            raise _invalid(named, key, value, known)
        options[key] = value
    return options


def _invalid(
    named: str, key: str, value: str, known: Mapping[str, tuple[str, str]]
) -> SimulatorError:
    return SimulatorError(f"{named} has {key}={quoted(value)}, which is not {known[key][1]}")
