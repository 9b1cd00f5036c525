# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device provides while its native driver is bound: interfaces, disks, terminals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from .description import Carried
from .device import Device
from .tree import Store, Tree

# include/uapi/linux/if.h: IFF_UP, IFF_BROADCAST and IFF_MULTICAST.
_UP = 0x1
_ETHERNET_FLAGS = 0x1002
# The first index of a simulated interface: those of a new network namespace begin with 1.
_FIRST_INDEX = 1000
# Major numbers by how the names of disks begin; the minor numbers are those of no real disk.
_MAJORS = {"mmcblk": 179, "nvme": 259, "mtdblock": 31, "sd": 8, "hd": 3}
_DYNAMIC_MAJOR = 254
# A disk of NVMe is below its controller: nvme_init_ctrl in drivers/nvme/host/core.c.
_NVME_DISK = re.compile(r"(nvme\d+)n\d+")
_FIRST_MINOR = 1 << 19


class Provided:
    """Shows what devices provide in /sys, and removes it.

    ``mount_number`` returns the major:minor of the file system that is mounted on a path, for the
    process that reads, or None.
    """

    def __init__(self, tree: Tree, store_uevent: Store) -> None:
        self._tree = tree
        self._store_uevent = store_uevent
        self._indexes: dict[str, int] = {}
        self._minors: dict[str, int] = {}
        self._numbers = count(_FIRST_MINOR)
        self.mount_number: Callable[[str], str | None] = lambda _mount_point: None

    def index(self, interface: str) -> int:
        """Return the index of an interface, which stays the same."""
        return self._indexes.setdefault(interface, _FIRST_INDEX + len(self._indexes))

    def show(self, device: Device) -> None:
        for carried in device.carries:
            home = f"{_parent(device, carried)}/{carried.name}"
            self._tree.make_directory(home)
            if carried.kind == "net":
                self._show_interface(device, home, carried)
            if carried.kind == "block":
                self._show_disk(device, home, carried)
            if carried.kind == "tty":
                self._show_class(device.home, home, "tty", carried.name)
            if carried.kind == "dma":
                self._tree.put(f"{home}/in_use", "1\n")
            if carried.kind == "iommu":
                self._tree.point(f"{home}/device", device.home)
                self._tree.point(f"class/iommu/{carried.name}", home)

    def hide(self, device: Device) -> None:
        for carried in device.carries:
            for link in _class_links(carried):
                if self._tree.lookup(link):
                    self._tree.remove(link)
        for kind in {_directory(carried) for carried in device.carries}:
            self._tree.remove(f"{device.home}/{kind}")

    def _show_interface(self, device: Device, home: str, carried: Carried) -> None:
        index = self.index(carried.name)
        flags = _ETHERNET_FLAGS | (_UP if carried.is_up else 0)
        for name, content in (
            ("flags", hex(flags)),
            ("ifindex", str(index)),
            ("address", mac_address(index)),
            ("type", "1"),
        ):
            self._tree.put(f"{home}/{name}", content + "\n")
        self._show_class(device.home, home, "net", carried.name)

    def _show_disk(self, device: Device, home: str, carried: Carried) -> None:
        mount_point = None if carried.partition else carried.mount_point
        if not self._tree.lookup(f"{home}/dev"):
            self._show_block(home, carried.name, "disk", mount_point)
            controller = _controller(carried)
            if controller:
                parent = f"{device.home}/nvme/{controller}"
                self._show_class(device.home, parent, "nvme", controller)
                self._show_class(parent, home, "block", carried.name)
            else:
                self._show_class(device.home, home, "block", carried.name)
            self._tree.point(f"block/{carried.name}", home)
        if carried.partition:
            number = carried.partition[len(carried.name) :].lstrip("p")
            home = f"{home}/{carried.partition}"
            self._show_block(home, carried.partition, "partition", carried.mount_point)
            self._tree.put(f"{home}/partition", number + "\n")
            self._tree.point(f"{home}/subsystem", "class/block")
            self._tree.point(f"class/block/{carried.partition}", home)

    def _show_block(self, home: str, name: str, kind: str, mount_point: str | None) -> None:
        for directory in ("holders", "slaves"):
            self._tree.make_directory(f"{home}/{directory}")
        number = partial(self._number, name, mount_point)
        self._tree.put(f"{home}/dev", partial(_line, number))
        uevent = partial(_disk_uevent, number, name, kind)
        self._tree.put(f"{home}/uevent", uevent, 0o644, self._store_uevent)

    def _number(self, name: str, mount_point: str | None) -> str:
        """Return the device number: of what is mounted, which is no disk, or one of our own."""
        mounted = self.mount_number(mount_point) if mount_point else None
        if mounted:
            return mounted
        if name not in self._minors:
            self._minors[name] = next(self._numbers)
        majors = (number for prefix, number in _MAJORS.items() if name.startswith(prefix))
        major = next(majors, _DYNAMIC_MAJOR)
        return f"{major}:{self._minors[name]}"

    def _show_class(self, parent: str, home: str, kind: str, name: str) -> None:
        self._tree.point(f"{home}/device", parent)
        self._tree.point(f"{home}/subsystem", f"class/{kind}")
        self._tree.point(f"class/{kind}/{name}", home)
        if not self._tree.lookup(f"{home}/uevent"):
            self._tree.put(f"{home}/uevent", _uevent(kind, name), 0o644, self._store_uevent)


def _controller(carried: Carried) -> str | None:
    """Return the name of the controller between a device and its disk, if there is one."""
    match = _NVME_DISK.fullmatch(carried.name) if carried.kind == "block" else None
    return match.group(1) if match else None


def _directory(carried: Carried) -> str:
    """Return the directory in that of the device, below which something is provided."""
    return "nvme" if _controller(carried) else carried.kind


def _parent(device: Device, carried: Carried) -> str:
    controller = _controller(carried)
    parent = f"{device.home}/{_directory(carried)}"
    return f"{parent}/{controller}" if controller else parent


def mac_address(index: int) -> str:
    """Return a locally administered address."""
    return f"02:00:00:00:{index >> 8:02x}:{index & 0xFF:02x}"


def consoles(devices: Sequence[Device]) -> list[str]:
    """Return the system's consoles: those that are described, or else the first terminal."""
    terminals = [
        carried for device in devices for carried in device.carries if carried.kind == "tty"
    ]
    described = [carried.name for carried in terminals if carried.is_console]
    return described or [carried.name for carried in terminals[:1]]


def _uevent(kind: str, name: str) -> str:
    return f"INTERFACE={name}\n" if kind == "net" else f"DEVNAME={name}\n"


def _line(number: Callable[[], str]) -> bytes:
    return f"{number()}\n".encode()


def _disk_uevent(number: Callable[[], str], name: str, kind: str) -> bytes:
    major, _colon, minor = number().partition(":")
    return f"MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\nDEVTYPE={kind}\n".encode()


def _class_links(carried: Carried) -> Iterator[str]:
    yield f"class/{carried.kind}/{carried.name}"
    if carried.kind == "block":
        yield f"class/nvme/{_controller(carried)}"
        yield f"block/{carried.name}"
        yield f"class/block/{carried.partition}"
