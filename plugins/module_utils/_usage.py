# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device carries and who would be hurt if it lost its driver. Reads only."""

from __future__ import annotations

import functools
from typing import Callable, Container, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import active, folder
from ansible_collections.armfleet.vfio.plugins.module_utils._interfaces import Interfaces
from ansible_collections.armfleet.vfio.plugins.module_utils._model import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._netlink import Networks
from ansible_collections.armfleet.vfio.plugins.module_utils._netlink import read as read_networks
from ansible_collections.armfleet.vfio.plugins.module_utils._processes import (
    VFIO_DEVICE,
    Processes,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._references import References
from ansible_collections.armfleet.vfio.plugins.module_utils._storage import Storage
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import native_siblings

# Kinds that a user can accept by ``allow``; an open VFIO node is never accepted.
ACCEPTABLE = ("console", "storage", "network", "consumers", "clock", "watchdog", "group")
OPEN_NODE = "open"
# Not a reason to refuse, but what device_info says of a device that a hanging driver holds.
BLOCKED = "blocked"

# Folders of a class below a device (get_device_parent in drivers/base/core.c) in which something is
# carried.
_CLASSES = ("net", "block", "tty", "rtc", "watchdog", "iommu")
# With CONFIG_PM every device has this folder: dpm_sysfs_add in drivers/base/power/sysfs.c.
_POWER = "power"


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
        self._processes = Processes(proc)
        self._storage = Storage(sysfs, self._processes)
        self._interfaces = Interfaces(sysfs, self._processes, networks)
        self._references = References(sysfs)
        self._machine = _Machine(sysfs)

    @property
    def unanswered(self) -> int:
        """How often it could not be known whether a process holds a node open."""
        return self._processes.unanswered

    def of(self, device: Identity, state: State) -> list[Hazard]:
        """What would be hurt if this device lost the driver that it has now."""
        if not state.driver:
            return []
        home = folder(device)
        hazards = self._open_nodes(state)
        if self._sysfs.folder_count(home) > self._machine.powers:
            for name in self._sysfs.folders(home):
                hazards += self._below(home, name)
        return hazards + self._consumers(device)

    def beside(self, device: Identity, leaving: Container[str] = ()) -> list[Hazard]:
        """What would make this device useless to VFIO: others of its IOMMU group on their drivers.

        ``leaving`` are those ("bus/name") that lose their drivers as well.
        """
        return [
            Hazard(
                "group",
                sibling.name,
                "%s of the same IOMMU group (%s) is on driver %s, and VFIO opens no device of a "
                "group with such a one" % (sibling.name, sibling.group, sibling.driver),
            )
            for sibling in native_siblings(self._sysfs, device)
            if sibling.name not in leaving
        ]

    def _open_nodes(self, state: State) -> list[Hazard]:
        hazards = [
            Hazard(OPEN_NODE, node, _held(node, holders))
            for node in state.vfio_nodes
            for holders in [self._processes.holders(node)]
            if holders
        ]
        unknown = self._processes.holders(VFIO_DEVICE) if state.vfio_nodes and not hazards else []
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

    def _below(self, parent: str, name: str) -> list[Hazard]:
        if name == _POWER:
            return []
        place = "%s/%s" % (parent, name)
        listing = self._sysfs.listing(place)
        # NVMe disks and devices of a bus are in no folder of a class; their subsystem tells.
        subsystem = parent.rpartition("/")[2]
        if subsystem not in _CLASSES and "subsystem" in listing.others:
            subsystem = self._sysfs.link_name(place + "/subsystem") or ""
        if subsystem == "net":
            return _hazards("network", name, self._interfaces.use(place, name))
        if subsystem == "block":
            return _hazards("storage", name, self._storage.use(place, name))
        hazards = self._carried(subsystem, place, name)
        if name == "net" and not listing.folders:
            # sysfs shows the interfaces of one network namespace; the folder goes with the last.
            sentence = "a network interface of it is in another network namespace (a container's)"
            hazards = [Hazard("network", name, sentence)]
        if not hazards and "dev" in listing.others:
            hazards = self._opened(place)
        for below in listing.folders:
            hazards += self._below(place, below)
        return hazards

    def _carried(self, subsystem: str, place: str, name: str) -> list[Hazard]:
        if subsystem == "tty":
            return _hazards("console", name, self._terminal_use(name))
        if subsystem == "rtc":
            return _hazards("clock", name, self._clock_use(place, name))
        if subsystem == "watchdog":
            return _hazards("watchdog", name, self._watchdog_use(place, name))
        if subsystem == "nvme":
            return [
                hazard
                for disk_place, disk in self._storage.behind_controller(name)
                for hazard in _hazards("storage", disk, self._storage.use(disk_place, disk))
            ]
        if subsystem == "iommu":
            sentence = "it is the IOMMU %s, which other devices translate by" % name
            return [Hazard("consumers", name, sentence)]
        return []

    def _terminal_use(self, name: str) -> str | None:
        if name in (self._sysfs.read("class/tty/console/active") or "").split():
            return "%s is the system console" % name
        holders = self._processes.holders("/dev/" + name)
        return _held("terminal " + name, holders) if holders else None

    def _clock_use(self, place: str, name: str) -> str | None:
        # hctosys in drivers/rtc/sysfs.c.
        if self._sysfs.read(place + "/hctosys") != "1":
            return None
        return "%s keeps the time that the system is set by" % name

    def _watchdog_use(self, place: str, name: str) -> str | None:
        if self._sysfs.read(place + "/state") == "active":
            return "%s is running and may reset the machine" % name
        # The first one has an old name as well: watchdog_cdev_register in drivers/watchdog.
        nodes = ["/dev/" + name, *(["/dev/watchdog"] if name == "watchdog0" else [])]
        holders = [holder for node in nodes for holder in self._processes.holders(node)]
        return _held(name, holders) if holders else None

    def _opened(self, place: str) -> list[Hazard]:
        """A node of any other kind (gpiochip, input, i2c, drm …) that a process has open."""
        for line in (self._sysfs.read(place + "/uevent") or "").splitlines():
            key, _equals, name = line.partition("=")
            # What VFIO makes is looked at by the device's state.
            if key == "DEVNAME" and not name.startswith("vfio/"):
                node = "/dev/" + name
                holders = self._processes.holders(node)
                return _hazards("consumers", node, _held(node, holders) if holders else None)
        return []

    def _consumers(self, device: Identity) -> list[Hazard]:
        linked = (
            active(self._sysfs, device, self._sysfs.names(folder(device)))
            if self._machine.may_supply(device)
            else []
        )
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


class _Machine:
    """What spares a look into the folder of each device; read once, when it is needed."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    @functools.cached_property
    def powers(self) -> int:
        """How many folders a device has that carries nothing."""
        return int(self._sysfs.exists("devices/platform/" + _POWER))

    @functools.cached_property
    def _suppliers(self) -> set[str]:
        """All that come before a "--" in "SUPPLIER--CONSUMER", the name of a device link.

        Before Linux 5.11 neither has its bus before it (device_link_add in drivers/base/core.c).
        """
        found: set[str] = set()
        for link in self._sysfs.names("class/devlink"):
            parts = link.split("--")
            found.update("--".join(parts[:end]) for end in range(1, len(parts)))
        return found

    def may_supply(self, device: Identity) -> bool:
        """Whether there may be a device link to a consumer; its folder tells."""
        return not self._suppliers.isdisjoint(("%s:%s" % (device.bus, device.name), device.name))


def refusals(device: Identity, hazards: Sequence[Hazard], allow: Sequence[str]) -> list[str]:
    """One sentence for each hazard that ``allow`` does not accept."""
    return [
        "%s %s: %s. %s" % (device.label, _verdict(hazard.kind), hazard.sentence, remedy(hazard))
        for hazard in hazards
        if hazard.kind not in allow
    ]


def remedy(hazard: Hazard) -> str:
    """What can be done about a hazard."""
    if hazard.kind == OPEN_NODE:
        return "Stop what uses it; an open device is never taken"
    if hazard.kind == "group":
        return (
            "Give %s to VFIO in the same list, or keep drivers off it with no_autobind; to do so "
            "later, add 'group' to `allow`" % hazard.subject
        )
    return "To accept that it loses its driver, add '%s' to `allow`" % hazard.kind


def _verdict(kind: str) -> str:
    return "would be of no use to VFIO" if kind == "group" else "is in use"


def _held(what: str, holders: Sequence[str]) -> str:
    return "%s is held open by %s" % (what, ", ".join(holders))


def _hazards(kind: str, subject: str, sentence: str | None) -> list[Hazard]:
    return [Hazard(kind, subject, sentence)] if sentence else []
