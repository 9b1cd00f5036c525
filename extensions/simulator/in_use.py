# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the lines that describe disks, interfaces and consoles: "/soc/mmc@1c0f000 mmcblk0 /"."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import replace

from .description import Carried
from .errors import SimulatorError
from .lines import check_length, quoted

MOST_LINES = 1000
_DEVICE_AND_NAME = 2
_DISK = re.compile(r"(?P<disk>mmcblk\d+|nvme\d+n\d+|mtdblock\d+|[hsv]d[a-z]+)(?:p?(?P<part>\d+))?")
_TERMINAL = re.compile(r"tty[A-Z][A-Za-z]*\d+")
# dev_valid_name in net/core/dev.c, and IFNAMSIZ.
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_MOUNT_POINT = re.compile(r"/(?:[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?")
# Of the simulator itself.
_RESERVED = re.compile(r"/(?:dev|proc|run|sys)(?:/|\Z)")


def parse_lines(lines: Sequence[tuple[str, str]]) -> tuple[Carried, ...]:
    """Return what lines describe; each has a label for errors, such as "line 3"."""
    check_length(len(lines), MOST_LINES, "carries")
    uses: list[Carried] = []
    for label, line in lines:
        use = parse_line(f"{label}: {quoted(line)}", line)
        _check_duplicate(use, uses)
        uses.append(use)
    return tuple(uses)


def parse_line(label: str, line: str) -> Carried:
    """Return what a line describes; raise SimulatorError, which begins with ``label``."""
    fields = line.split()
    if len(fields) < _DEVICE_AND_NAME:
        raise SimulatorError(
            f"{label} requires a device and the name of its disk, interface or terminal, such as "
            "'/soc/mmc@1c0f000 mmcblk0 /'"
        )
    device, name, *options = fields
    use = Carried(device, "", name, line=label)
    disk = _DISK.fullmatch(name)
    if disk and (disk["part"] is None or name == partition_name(disk["disk"], disk["part"])):
        use = replace(use, kind="block", name=disk["disk"], partition=disk["part"] and name)
        return _with_mount_point(use, options)
    if _TERMINAL.fullmatch(name):
        return _as_console(replace(use, kind="tty"), options)
    if not _INTERFACE.fullmatch(name):
        raise SimulatorError(f"{label} has {quoted(name)}, which is not a name of the kernel")
    return _with_network(replace(use, kind="net", is_up=False), options)


def partition_name(disk: str, number: str) -> str:
    """Return disk_name in block/partitions/core.c."""
    return f"{disk}p{number}" if disk[-1].isdigit() else disk + number


def _with_mount_point(use: Carried, options: Sequence[str]) -> Carried:
    if len(options) > 1 or not all(option.startswith("/") for option in options):
        raise _unknown(use, options, "a disk has at most a mount point, such as /data")
    if not options:
        return use
    (mount_point,) = options
    if not _MOUNT_POINT.fullmatch(mount_point) or _RESERVED.match(mount_point):
        raise SimulatorError(
            f"{use.line} has {quoted(mount_point)}, which is not an absolute path outside of /dev, "
            "/proc, /run and /sys, without '..'"
        )
    return replace(use, mount_point=mount_point)


def _as_console(use: Carried, options: Sequence[str]) -> Carried:
    if list(options) != ["console"]:
        raise _unknown(use, options, "a terminal is in use as 'console'")
    return replace(use, is_console=True)


def _with_network(use: Carried, options: Sequence[str]) -> Carried:
    addresses = [option for option in options if option not in ("up", "default")]
    for address in addresses:
        if not _is_address(address):
            raise _unknown(
                use,
                addresses,
                "an interface may be 'up', have addresses (192.0.2.7/24) or the 'default' route",
            )
    return replace(
        use,
        is_up=bool(options),
        addresses=tuple(addresses),
        has_default_route="default" in options,
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text and "%" not in text


def _unknown(use: Carried, options: Sequence[str], known: str) -> SimulatorError:
    given = quoted(" ".join(options)) if options else "no option"
    return SimulatorError(f"{use.line} has {given} for {use.name}; {known}")


def _check_duplicate(use: Carried, others: Sequence[Carried]) -> None:
    for other in others:
        shown = use.partition or use.name
        is_same_name = use.name == other.name and use.partition == other.partition
        is_on_other_device = use.name == other.name and use.device != other.device
        if is_same_name or is_on_other_device:
            raise SimulatorError(f"{use.line} describes {shown} again, after {other.line}")
        if use.mount_point and use.mount_point == other.mount_point:
            raise SimulatorError(f"{use.line} mounts {use.mount_point} again, after {other.line}")
