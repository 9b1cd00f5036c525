# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device carries and who would be hurt if it lost its driver. Reads only."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import active_consumers, folder
from ansible_collections.armfleet.vfio.plugins.module_utils._model import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs

# Kinds that a user can accept by ``allow``; an open VFIO node is never accepted.
ACCEPTABLE = ("console", "storage", "network", "consumers")
OPEN_NODE = "open"
# Not a reason to refuse, but what device_info says of a device that a hanging driver holds.
BLOCKED = "blocked"

_IFF_UP = 0x1
_CARRIERS = ("net", "block", "tty", "iommu")


class Hazard(NamedTuple):
    """``kind`` is one of ACCEPTABLE or OPEN_NODE, ``subject`` what is in use."""

    kind: str
    subject: str
    sentence: str


class Usage:
    """Finds hazards; what concerns the whole machine (mounts, open files) is read once.

    ``proc`` is where procfs is mounted.
    """

    def __init__(self, sysfs: Sysfs, proc: str = "/proc") -> None:
        self._sysfs = sysfs
        self._proc = proc
        self._used_blocks: dict[str, str] | None = None
        self._holders: dict[str, list[str]] | None = None

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
        if state.vfio_nodes and self._holders is None:
            self._holders = _open_vfio_nodes(self._proc)
        return [
            Hazard(OPEN_NODE, node, "%s is held open by %s" % (node, ", ".join(holders)))
            for node in state.vfio_nodes
            for holders in [(self._holders or {}).get(node)]
            if holders
        ]

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
        return [
            Hazard("consumers", name, "it is the IOMMU %s, which other devices translate by" % name)
        ]

    def _storage(self, path: str, name: str) -> list[Hazard]:
        if self._used_blocks is None:
            self._used_blocks = _used_blocks(self._proc)
        used = [
            "%s %s" % (block, self._used_blocks[number])
            for block, number in self._blocks_above(path)
            if number in self._used_blocks
        ]
        return [Hazard("storage", name, "disk %s: %s" % (name, ", ".join(used)))] if used else []

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
        try:
            is_up = int(self._sysfs.read(path + "/flags") or "0", 16) & _IFF_UP
        except ValueError:
            return []
        return [Hazard("network", name, "network interface %s is up" % name)] if is_up else []

    def _console(self, name: str) -> list[Hazard]:
        active = (self._sysfs.read("class/tty/console/active") or "").split()
        if name not in active:
            return []
        return [Hazard("console", name, "%s is the system console" % name)]

    def _consumers(self, device: Identity) -> list[Hazard]:
        return [
            Hazard("consumers", consumer, "%s depends on it and would lose its driver" % consumer)
            for consumer in active_consumers(self._sysfs, device)
        ]


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


def _open_vfio_nodes(proc: str) -> dict[str, list[str]]:
    """Who holds a node below /dev/vfio open: descriptions of processes by the node's path."""
    holders: dict[str, list[str]] = {}
    for pid in _listing(proc):
        if not pid.isdigit():
            continue
        for descriptor in _listing("%s/%s/fd" % (proc, pid)):
            try:
                target = os.readlink("%s/%s/fd/%s" % (proc, pid, descriptor))
            except OSError:
                continue
            if target.startswith("/dev/vfio/"):
                command = _text("%s/%s/comm" % (proc, pid)) or "a process"
                who = "%s (pid %s)" % (command, pid)
                if who not in holders.setdefault(target, []):
                    holders[target].append(who)
    return holders


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
