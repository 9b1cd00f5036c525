# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACPI boards from a list of devices, and what drivers/acpi of Linux 6.12 makes of them."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .description import Extra
from .errors import SimulatorError
from .lines import check_length, quoted, read_limited
from .tree import Tree

# The program that lists the devices of a machine.
LISTING = Path(__file__).with_name("acpi-devices")
SMMU = "arm-smmu-v3.0.auto"
SYSTEM = "devices/LNXSYSTM:00"
SYSTEM_BUS = SYSTEM + "/LNXSYBUS:00"
MOST_DEVICES = 2000
_KEYS = {"name", "uid", "cid", "compatible", "driver", "iommu_group", "unbind"}
_BY_COMPATIBLE = "PRP0001"
_PATH = re.compile(r"\\[A-Z_][A-Z0-9_]{0,3}(?:\.[A-Z_][A-Z0-9_]{0,3})*")
_HARDWARE_ID = re.compile(r"[A-Z0-9_]{3,8}")
_COMPATIBLE = re.compile(r"[A-Za-z0-9,._+/#-]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
# acpi_amba.c creates devices of the AMBA bus for these; the values are their peripheral IDs.
AMBA_IDS = {"ARMH0061": "00041061", "ARMH0330": "00041330"}
# Devices that scan handlers claim, or that acpi_create_platform_device refuses: pci_root.c,
# acpi_processor.c, container.c, pci_link.c, acpi_platform.c.
_NO_DEVICES = frozenset(
    [
        "ACPI0004",
        "ACPI0005",
        "ACPI0006",
        "ACPI0007",
        "ACPI0009",
        "ACPI000A",
        "LNXCPU",
        "PNP0000",
        "PNP0100",
        "PNP0200",
        "PNP0A03",
        "PNP0A05",
        "PNP0A06",
        "PNP0A08",
        "PNP0C0F",
        "SMB0001",
    ]
)


def read_file(path: Path) -> tuple[Extra, ...]:
    """Return the devices of a list; raise SimulatorError, with one line, if it is invalid."""
    try:
        text = read_limited(path, 1).decode("ascii")
    except UnicodeDecodeError:
        raise SimulatorError(f"Cannot read {path}: it is not ASCII text") from None
    lines = [
        (f"{path}, line {number}", line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise SimulatorError(f"{path} has no device")
    return parse_lines(lines)


def parse_lines(lines: Sequence[tuple[str, str]]) -> tuple[Extra, ...]:
    """Return the devices of lines, each with a label for errors, such as "line 3"."""
    check_length(len(lines), MOST_DEVICES, "devices")
    devices: list[Extra] = []
    taken: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for label, line in lines:
        device = _parse_line(f"{label}: {quoted(line)}", line)
        # acpi_device_set_name in drivers/acpi/scan.c
        instance = f"{device.acpi_hid}:{counts[device.acpi_hid or '']:02x}"
        counts[device.acpi_hid or ""] += 1
        device = replace(device, name=device.name or instance)
        for key in (device.acpi_path or "", device.name):
            if key in taken:
                raise SimulatorError(
                    f"{label}: {quoted(line)} describes {key} again, after {taken[key]}"
                )
            taken[key] = label
        devices.append(device)
    return tuple(devices)


def _parse_line(label: str, line: str) -> Extra:
    fields = line.split()
    options = _options(label, fields[2:])
    if len(fields) < 2 or not _PATH.fullmatch(fields[0]):
        raise SimulatorError(
            f"{label} requires an absolute ACPI path and a hardware ID, such as "
            r"'\_SB_.VR00 LNRO0005'"
        )
    path, hid = fields[:2]
    cids = tuple(options["cid"].split(",")) if "cid" in options else ()
    for hardware_id in (hid, *cids):
        if not _HARDWARE_ID.fullmatch(hardware_id):
            raise SimulatorError(
                f"{label} has {quoted(hardware_id)}, which is not a hardware ID such as LNRO0005"
            )
    compatible = tuple(options["compatible"].split(";")) if "compatible" in options else ()
    if not all(map(_COMPATIBLE.fullmatch, compatible)):
        raise SimulatorError(
            f"{label} has {quoted(options['compatible'])}, which is not a list of compatibles such "
            "as acme,crypto-v1;acme,crypto"
        )
    for key in ("name", "driver", "iommu_group"):
        if key in options and not _NAME.fullmatch(options[key]):
            raise SimulatorError(f"{label} has {quoted(options[key])}, which is not a {key}")
    if options.get("unbind", "no") != "no":
        raise SimulatorError(f"{label} has unbind={quoted(options['unbind'])}; known: unbind=no")
    return Extra(
        name=options.get("name", ""),
        bus="amba" if hid in AMBA_IDS else "platform",
        acpi_path=padded(path),
        acpi_hid=hid,
        acpi_cids=cids,
        acpi_uid=options.get("uid"),
        acpi_compatible=compatible,
        driver=options.get("driver"),
        unbind="unbind" not in options,
        iommu_group=options.get("iommu_group"),
    )


def _options(label: str, fields: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if key not in _KEYS or not equals or not value:
            known = ", ".join(f"{known}=" for known in sorted(_KEYS))
            raise SimulatorError(f"{label} has {quoted(field)}; known: {known}")
        if key in options:
            raise SimulatorError(f"{label} has {key}= twice")
        options[key] = value
    return options


def parse_path(label: str, text: str) -> str:
    """Return a path as padded() does; raise SimulatorError, which begins with ``label``."""
    if not _PATH.fullmatch(text):
        raise SimulatorError(
            f"{label} has {quoted(text)}, which is not an absolute ACPI path such as "
            r"\_SB.PCI0.ETH0"
        )
    return padded(text)


def padded(path: str) -> str:
    """Return a path with segments of four characters, as ACPICA pads them."""
    return "\\" + ".".join(segment.ljust(4, "_") for segment in path[1:].split("."))


def becomes_device(extra: Extra) -> bool:
    """Return whether the kernel creates a device of the platform or AMBA bus for it."""
    return extra.acpi_path is None or extra.acpi_hid not in _NO_DEVICES


def node_homes(devices: Sequence[Extra]) -> dict[str, str]:
    """Return the directories of the namespace's nodes by path, each below its nearest ancestor."""
    names = {device.acpi_path: device.name for device in devices if device.acpi_path}
    by_path: dict[str, str] = {}
    for path in sorted(names, key=len):
        above = next((by_path[name] for name in _ancestors(path) if name in by_path), SYSTEM_BUS)
        by_path[path] = f"{above}/{names[path]}"
    return by_path


def modaliases(device: Extra) -> list[str]:
    """Return the lines of the file modalias, of which an event has the last one.

    create_pnp_modalias and create_of_modalias in drivers/acpi/device_sysfs.c.
    """
    ids = [name for name in (device.acpi_hid, *device.acpi_cids) if name]
    own = [name for name in ids if name != _BY_COMPATIBLE]
    lines = [f"acpi:{':'.join(own)}:"] if own else []
    if _BY_COMPATIBLE in ids and device.acpi_compatible:
        name = (device.acpi_path or "")[-4:].lower()
        lines.append(f"of:N{name}T{''.join(f'C{value}' for value in device.acpi_compatible)}")
    return lines or [""]


def show_namespace(
    tree: Tree, devices: Sequence[Extra], addresses: Mapping[str, str] | None = None
) -> None:
    """Show ACPI's nodes, whether or not they become devices of another bus.

    ``addresses`` are _ADR by path. A node without a hardware ID has no modalias.
    """
    paths = node_homes(devices)
    if not paths:
        return
    for home, path, hid in ((SYSTEM, "\\", "LNXSYSTM"), (SYSTEM_BUS, "\\_SB_", "LNXSYBUS")):
        _show_node(tree, home, {"path": path, "hid": hid, "modalias": f"acpi:{hid}:"})
    for device in devices:
        if device.acpi_path:
            attributes = {
                "path": device.acpi_path,
                "hid": device.acpi_hid,
                "modalias": "\n".join(modaliases(device)) if device.acpi_hid else None,
                "uid": device.acpi_uid,
                "adr": (addresses or {}).get(device.acpi_path),
            }
            _show_node(tree, paths[device.acpi_path], attributes)
    table = iort(devices)
    if table:
        tree.put("firmware/acpi/tables/IORT", table, 0o400)


def _show_node(tree: Tree, home: str, attributes: Mapping[str, str | None]) -> None:
    for name, value in attributes.items():
        if value is not None:
            tree.put(f"{home}/{name}", value + "\n")
    alias = attributes["modalias"]
    last = (alias or "").rpartition("\n")[2]
    tree.put(f"{home}/uevent", f"MODALIAS={last}\n" if last else "")
    tree.point(f"{home}/subsystem", "bus/acpi")
    tree.point(f"bus/acpi/devices/{home.rpartition('/')[2]}", home)


def homes(devices: Sequence[Extra]) -> dict[str, str]:
    """Return the directories of devices by path; each is below its parent's device, if any.

    acpi_create_platform_device in drivers/acpi/acpi_platform.c, and acpi_amba.c.
    """
    by_path: dict[str, str] = {}
    described = {device.acpi_path: device for device in devices if device.acpi_path}
    for path in sorted(described, key=len):
        device = described[path]
        if becomes_device(device):
            root = "devices" if device.bus == "amba" else "devices/platform"
            # Only the direct parent counts.
            parent = next(_ancestors(path), "")
            by_path[path] = f"{by_path.get(parent, root)}/{device.name}"
    return by_path


def _ancestors(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def iort(devices: Sequence[Extra]) -> bytes | None:
    """Return the table IORT, which names the devices that are behind an IOMMU, or None.

    include/acpi/actbl2.h; of each node, only what names its device.
    """
    components = [
        _named_component(device.acpi_path)
        for device in devices
        if device.acpi_path and device.iommu_group
    ]
    if not components:
        return None
    body = struct.pack("<III", len(components), 48, 0) + b"".join(components)
    return b"IORT" + struct.pack("<I", 36 + len(body)) + bytes(28) + body


def _named_component(path: str) -> bytes:
    name = path.encode() + b"\0"
    name += bytes(-len(name) % 4)
    # Flags, memory properties and the address limit; then one mapping.
    fixed = struct.pack("<IQB", 0, 0, 64)
    mapping = struct.pack("<5I", 0, 1, 0, 48, 0)
    length = 16 + len(fixed) + len(name) + 3
    length += -length % 4
    content = (fixed + name).ljust(length - 16, b"\0")
    head = struct.pack("<BHBIII", 1, length + len(mapping), 4, 0, 1, length)
    return head + content + mapping


def streams(devices: Sequence[Extra]) -> Mapping[str, int]:
    """Return a stream ID for each described IOMMU group."""
    groups = dict.fromkeys(device.iommu_group for device in devices if device.iommu_group)
    return {group: 0x100 + number for number, group in enumerate(groups)}
