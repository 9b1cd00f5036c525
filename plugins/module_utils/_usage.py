# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device carries and who would be hurt if it lost its driver. Reads only."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Callable, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import active_consumers, folder
from ansible_collections.armfleet.vfio.plugins.module_utils._model import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._netlink import Networks
from ansible_collections.armfleet.vfio.plugins.module_utils._netlink import read as read_networks
from ansible_collections.armfleet.vfio.plugins.module_utils._references import References
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs

# Kinds that a user can accept by ``allow``; an open VFIO node is never accepted.
ACCEPTABLE = ("console", "storage", "network", "consumers", "clock", "watchdog")
OPEN_NODE = "open"
# Not a reason to refuse, but what device_info says of a device that a hanging driver holds.
BLOCKED = "blocked"

# A device that was got from its group, or whose node was closed since, is open under this name.
_UNKNOWN_DEVICE = "anon_inode:[vfio-device]"
_VFIO_NODE = re.compile(r"/dev/vfio/(noiommu-)?\d+$|/dev/vfio/devices/")

_IFF_UP = 0x1
_UPPER = "upper_"
_CARRIERS = ("net", "block", "tty", "rtc", "watchdog", "iommu")


class Hazard(NamedTuple):
    """``kind`` is one of ACCEPTABLE or OPEN_NODE, ``subject`` what is in use."""

    kind: str
    subject: str
    sentence: str


class Usage:
    """Finds hazards; what concerns the whole machine (mounts, open files) is read once.

    ``proc`` is where procfs is mounted, ``networks`` reads addresses and routes.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        proc: str = "/proc",
        networks: Callable[[], Networks] = read_networks,
    ) -> None:
        self._sysfs = sysfs
        self._proc = proc
        self._read_networks = networks
        self._networks: Networks | None = None
        self._used_blocks: dict[str, str] | None = None
        self._holders: dict[str, list[str]] | None = None
        self._references = References(sysfs)

    def of(self, device: Identity, state: State) -> list[Hazard]:
        """What would be hurt if this device lost the driver that it has now."""
        if not state.driver:
            return []
        return (
            self._open_nodes(state)
            + self._below(self._sysfs.real(folder(device)))
            + self._consumers(device)
        )

    def _open_nodes(self, state: State) -> list[Hazard]:
        hazards = [
            Hazard(OPEN_NODE, node, "%s is held open by %s" % (node, ", ".join(holders)))
            for node in state.vfio_nodes
            for holders in [self._who_has_open(node)]
            if holders
        ]
        unknown = self._who_has_open(_UNKNOWN_DEVICE) if state.vfio_nodes and not hazards else []
        if unknown:
            hazards = [
                Hazard(
                    OPEN_NODE,
                    state.vfio_nodes[0],
                    "it may be the VFIO device that is held open by %s, whose node the kernel does "
                    "not tell" % ", ".join(unknown),
                )
            ]
        return hazards

    def _who_has_open(self, node: str) -> list[str]:
        if self._holders is None:
            self._holders = _open_devices(self._proc)
        return self._holders.get(node, [])

    def _below(self, path: str) -> list[Hazard]:
        hazards: list[Hazard] = []
        # A device that an IOMMU serves has a link "iommu"; only the IOMMU itself has a folder.
        for name in self._sysfs.folders(path):
            place = path + "/" + name
            if name in _CARRIERS:
                for carried in self._sysfs.names(place):
                    hazards += self._carried(name, place + "/" + carried, carried)
            else:
                hazards += self._below(place)
        return hazards

    def _carried(self, carrier: str, path: str, name: str) -> list[Hazard]:
        if carrier == "net":
            return self._network(path, name)
        if carrier == "block":
            return self._storage(path, name)
        if carrier == "tty":
            return self._console(name)
        if carrier == "rtc":
            return self._clock(path, name)
        if carrier == "watchdog":
            return self._watchdog(path, name)
        return [
            Hazard("consumers", name, "it is the IOMMU %s, which other devices translate by" % name)
        ]

    def _storage(self, path: str, name: str) -> list[Hazard]:
        if self._used_blocks is None:
            self._used_blocks = _used_blocks(self._proc)
        used = [
            use
            for block, number in self._blocks_above(path)
            for use in [self._use_of_block(block, number)]
            if use
        ]
        return [Hazard("storage", name, "disk %s: %s" % (name, ", ".join(used)))] if used else []

    def _use_of_block(self, block: str, number: str) -> str | None:
        uses = self._used_blocks or {}
        # LVM and its like name what they make: drivers/md/dm-sysfs.c.
        given = self._sysfs.read("class/block/%s/dm/name" % block)
        label = "%s (%s)" % (block, given) if given else block
        if number in uses:
            return "%s %s" % (label, uses[number])
        holders = self._who_has_open("/dev/" + block)
        if holders:
            return "%s is held open by %s" % (label, ", ".join(holders))
        built = self._sysfs.names("class/block/%s/holders" % block)
        return "%s is part of %s" % (label, ", ".join(built)) if built else None

    def _blocks_above(self, path: str) -> list[tuple[str, str]]:
        """A disk, its partitions and what is stacked on them: (name, major:minor) of each."""
        found: list[tuple[str, str]] = []
        waiting = [path]
        while waiting:
            block = waiting.pop(0)
            name = block.rpartition("/")[2]
            number = self._sysfs.read(block + "/dev")
            if number is None or (name, number) in found:
                continue
            found.append((name, number))
            waiting += [
                "%s/%s" % (block, entry)
                for entry in self._sysfs.folders(block)
                if self._sysfs.exists("%s/%s/partition" % (block, entry))
            ]
            waiting += [
                self._sysfs.real("%s/holders/%s" % (block, holder))
                for holder in self._sysfs.names(block + "/holders")
            ]
        return found

    def _network(self, path: str, name: str) -> list[Hazard]:
        stack = self._interfaces_above(path, name)
        if not any(self._is_up(place) for place, _interface in stack):
            return []
        if self._networks is None:
            self._networks = self._read_networks()
        indexes = [
            int(index)
            for place, _interface in stack
            for index in [self._sysfs.read(place + "/ifindex")]
            if index and index.isdigit()
        ]
        addresses = [
            address for index in indexes for address in self._networks.addresses.get(index, [])
        ]
        about = list(addresses)
        if self._networks.default_routes.intersection(indexes):
            about.append("the default route")
        upper = [interface for _place, interface in stack[1:]]
        sentence = "network interface %s is up%s%s" % (
            name,
            ", below " + ", ".join(upper) if upper else "",
            " with " + ", ".join(about) if about else "",
        )
        if _address_of_this_run(self._proc) in addresses:
            sentence += ", and this run comes in over it"
        return [Hazard("network", name, sentence)]

    def _interfaces_above(self, path: str, name: str) -> list[tuple[str, str]]:
        """An interface and what is stacked on it (bond, bridge, VLAN, team): (folder, name)."""
        found: list[tuple[str, str]] = []
        waiting = [(path, name)]
        while waiting:
            place, interface = waiting.pop(0)
            if interface in [known for _place, known in found]:
                continue
            found.append((place, interface))
            waiting += [
                ("class/net/" + entry[len(_UPPER) :], entry[len(_UPPER) :])
                for entry in self._sysfs.names(place)
                if entry.startswith(_UPPER)
            ]
        return found

    def _is_up(self, path: str) -> bool:
        try:
            return bool(int(self._sysfs.read(path + "/flags") or "0", 16) & _IFF_UP)
        except ValueError:
            return False

    def _console(self, name: str) -> list[Hazard]:
        active = (self._sysfs.read("class/tty/console/active") or "").split()
        if name in active:
            return [Hazard("console", name, "%s is the system console" % name)]
        holders = self._who_has_open("/dev/" + name)
        if holders:
            sentence = "terminal %s is held open by %s" % (name, ", ".join(holders))
            return [Hazard("console", name, sentence)]
        return []

    def _clock(self, path: str, name: str) -> list[Hazard]:
        # hctosys in drivers/rtc/sysfs.c.
        if self._sysfs.read(path + "/hctosys") != "1":
            return []
        return [Hazard("clock", name, "%s keeps the time that the system is set by" % name)]

    def _watchdog(self, path: str, name: str) -> list[Hazard]:
        if self._sysfs.read(path + "/state") == "active":
            return [Hazard("watchdog", name, "%s is running and may reset the machine" % name)]
        holders = self._who_has_open("/dev/" + name)
        if holders:
            sentence = "%s is held open by %s" % (name, ", ".join(holders))
            return [Hazard("watchdog", name, sentence)]
        return []

    def _consumers(self, device: Identity) -> list[Hazard]:
        linked = active_consumers(self._sysfs, device)
        hazards = [
            Hazard("consumers", consumer, "%s depends on it and would lose its driver" % consumer)
            for consumer in linked
        ]
        references = self._references.to(device.dt_path) if device.dt_path else []
        hazards += [
            Hazard(
                "consumers",
                reference.consumer,
                "%s uses it (%s in the device tree) and would not work without it"
                % (reference.consumer, reference.property),
            )
            for reference in references
            if reference.consumer not in linked
        ]
        return hazards


def refusals(device: Identity, hazards: Sequence[Hazard], allow: Sequence[str]) -> list[str]:
    """One sentence for each hazard that ``allow`` does not accept."""
    return [
        "%s is in use: %s. %s" % (device.label, hazard.sentence, _remedy(hazard.kind))
        for hazard in hazards
        if hazard.kind not in allow
    ]


def _remedy(kind: str) -> str:
    if kind == OPEN_NODE:
        return "Stop what uses it; an open device is never taken"
    return "If it may lose its driver all the same, add '%s' to allow" % kind


def _used_blocks(proc: str) -> dict[str, str]:
    """What each block device in use is used for, by its major:minor."""
    used: dict[str, str] = {}
    for line in (_text(proc + "/swaps") or "").splitlines()[1:]:
        with contextlib.suppress(OSError):
            number = os.stat(line.split()[0]).st_rdev
            used["%d:%d" % (os.major(number), os.minor(number))] = "is swap"
    for line in (_text(proc + "/self/mountinfo") or "").splitlines():
        mount, _separator, source = line.partition(" - ")
        fields = mount.split()
        used.setdefault(fields[2], "is mounted on %s" % fields[4])
        # btrfs and its like have a number of their own; the source tells the block device.
        with contextlib.suppress(OSError, IndexError):
            number = os.stat(source.split()[1]).st_rdev
            own = "%d:%d" % (os.major(number), os.minor(number))
            used.setdefault(own, "is mounted on %s" % fields[4])
    return used


def _open_devices(proc: str) -> dict[str, list[str]]:
    """Who holds a device open: descriptions of processes by the path of the device's node."""
    holders: dict[str, list[str]] = {}
    for pid in _listing(proc):
        if not pid.isdigit():
            continue
        targets = {
            _link("%s/%s/fd/%s" % (proc, pid, one)) for one in _listing("%s/%s/fd" % (proc, pid))
        }
        nodes = {target for target in targets if target.startswith("/dev/")}
        if _UNKNOWN_DEVICE in targets and not any(_VFIO_NODE.match(node) for node in nodes):
            nodes.add(_UNKNOWN_DEVICE)
        for node in nodes:
            command = _text("%s/%s/comm" % (proc, pid)) or "a process"
            holders.setdefault(node, []).append("%s (pid %s)" % (command, pid))
    return holders


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _address_of_this_run(proc: str) -> str | None:
    """The address of this machine by which ssh came in, or None where it did not.

    sudo drops SSH_CONNECTION, so that processes above are asked as well.
    """
    process = "self"
    while process not in ("", "0"):
        for variable in (_text("%s/%s/environ" % (proc, process)) or "").split("\0"):
            name, _equals, value = variable.partition("=")
            fields = value.split()
            if name == "SSH_CONNECTION" and len(fields) == 4:
                address = fields[2].partition("%")[0]
                is_mapped = address.startswith("::ffff:") and "." in address
                return address[7:] if is_mapped else address
        lines = (_text("%s/%s/status" % (proc, process)) or "").splitlines()
        parents = [line.split()[1] for line in lines if line.startswith("PPid:")]
        process = parents[0] if parents else ""
    return None


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().rstrip("\n")
    except OSError:
        return None
