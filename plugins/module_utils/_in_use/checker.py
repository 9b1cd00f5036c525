# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a device carries and who would be hurt if it lost its driver. Reads only."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Container, NamedTuple, Sequence

from .. import _text
from .._discovery.devices import active_consumers, sysfs_dir
from .._discovery.phandle_refs import References
from .._discovery.vfio import native_siblings
from .._model.buses import BUSES
from .._model.device import Identity, State
from .._system.files import Files
from .._system.processes import VFIO_DEVICE, Processes
from .._system.rtnetlink import Networks
from .._system.rtnetlink import read as read_networks
from .._system.sysfs import Listing, Sysfs
from .dma import channels, use_of_channels
from .kernel_classes import Entry, KernelUse, use_of_entry
from .network import Interfaces
from .storage import Storage

if TYPE_CHECKING:
    from .configured import Configured

# Kinds that a user can accept by ``allow``; an open VFIO node is never accepted.
ACCEPTABLE = ("console", "storage", "network", "consumers", "clock", "watchdog", "group")
OPEN_NODE = "open"
# What users and their programs bring about.
_OF_OTHERS = (OPEN_NODE, "console", "network", "storage", "watchdog")
# Not a reason to refuse, but what device_info says of a device that a hanging driver holds.
BLOCKED = "blocked"

# Folders of a class below a device (get_device_parent in drivers/base/core.c) in which something is
# carried.
_CLASSES = ("net", "block", "tty", "rtc", "watchdog", "iommu")
# Those of them that sysfs shows to one network namespace alone: net/core/net-sysfs.c and
# net/wireless/sysfs.c.
_NAMESPACED = {"net": "network interface", "ieee80211": "wireless adapter"}
# Buses whose every device is a chip of its own, behind the device that is their master.
_CHIPS = ("i2c", "i3c", "mipi-dsi", "serial", "slimbus", "soundwire", "spi", "spmi")
# Drivers that stand for no chip: a further address of one (i2c_new_dummy_device), a port for
# programs (its node tells), a PCI bridge.
_PLACEHOLDERS = ("dummy", "pcieport", "spidev")
# With CONFIG_PM every device has this folder: dpm_sysfs_add in drivers/base/power/sysfs.c.
_POWER = "power"


class Hazard(NamedTuple):
    """``kind`` is one of ACCEPTABLE or OPEN_NODE, ``subject`` what is in use.

    Of one that ``is_fatal`` the kernel crashes or hangs when the driver goes, so that no user can
    accept it.
    """

    kind: str
    subject: str
    sentence: str
    is_fatal: bool = False

    def is_accepted(self, allow: Container[str]) -> bool:
        """Whether a user who allows these kinds accepts it."""
        return self.kind in allow and not self.is_fatal


class Usage:
    """Finds hazards; what concerns the whole machine (mounts, open files) is read once.

    ``proc`` is where procfs is mounted, ``networks`` reads addresses and routes, ``files`` what is
    configured for each boot.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        proc: str = "/proc",
        networks: Callable[[], Networks] = read_networks,
        files: Files | None = None,
    ) -> None:
        self._sysfs = sysfs
        self._proc = proc
        self._networks = networks
        self._files = files
        self._processes = Processes(proc)
        self._storage = Storage(sysfs, self._processes)
        self._interfaces = Interfaces(sysfs, self._processes, networks)
        self._references = References(sysfs)
        self._machine = _Machine(sysfs)
        self._kernel_use = KernelUse(sysfs, self._processes)

    @property
    def unanswered(self) -> int:
        """How often it could not be known whether a process holds a node open."""
        return self._processes.unanswered

    def since(self, device: Identity, state: State, allow: Container[str]) -> list[Hazard]:
        """What has come into use since the first look, of what a run itself does not change.

        All is read again. What depends on the device, and counts of its module, change with what
        the run has done to other devices.
        """
        now = Usage(self._sysfs, self._proc, self._networks, self._files)
        return [
            hazard
            for hazard in now.of(device, state)
            if hazard.kind in _OF_OTHERS and not hazard.is_accepted(allow)
        ]

    def of(self, device: Identity, state: State) -> list[Hazard]:
        """What would be hurt if this device lost the driver that it has now."""
        if not state.driver:
            return []
        home = sysfs_dir(device)
        hazards = self._open_nodes(state.vfio_nodes) if state.vfio_nodes else []
        if self._sysfs.folder_count(home) > self._machine.powers:
            for name in self._sysfs.folders(home):
                hazards += self._below(home, name)
        hazards += self._consumers(device)
        return hazards + self._unseen(device, state.driver, is_known=bool(hazards))

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

    @functools.cached_property
    def configured(self) -> Configured:
        """What each boot uses by the host's configuration."""
        # Here, because nearly all runs change nothing and have not to load it.
        from .configured import (  # noqa: PLC0415
            Configured,
        )

        return Configured(self._sysfs, self._files or Files())

    def find_boot_hazards(
        self, device: Identity, state: State, known: Sequence[Hazard]
    ) -> list[Hazard]:
        """What is configured for each boot on this device, beside hazards that are ``known``."""
        home = sysfs_dir(device)
        if not state.driver or self._sysfs.folder_count(home) <= self._machine.powers:
            return []
        subjects = {(hazard.kind, hazard.subject) for hazard in known}
        return [
            hazard
            for name in self._sysfs.folders(home)
            for hazard in self._configured_below(home, name)
            if (hazard.kind, hazard.subject) not in subjects
        ]

    def _configured_below(self, parent: str, name: str) -> list[Hazard]:
        if name == _POWER:
            return []
        place = "%s/%s" % (parent, name)
        listing = self._sysfs.listing(place)
        subsystem = self._subsystem(parent, place, listing)
        if subsystem == "net":
            stack = self._interfaces.stack(place, name)
            files = [(one, self.configured.interface(path, one)) for path, one in stack]
            sentences = [
                "network interface %s is configured in %s" % one for one in files if one[1]
            ]
            return _hazards("network", name, sentences[0] if sentences else None)
        if subsystem == "block":
            return self._configured_disk(place, name)
        hazards: list[Hazard] = []
        if subsystem == "nvme":
            for disk_place, disk in self._storage.behind_controller(name):
                hazards += self._configured_disk(disk_place, disk)
        if subsystem == "tty":
            use = self.configured.terminal(name)
            hazards += _hazards("console", name, use and "terminal %s is %s" % (name, use))
        for below in listing.folders:
            hazards += self._configured_below(place, below)
        return hazards

    def _configured_disk(self, place: str, name: str) -> list[Hazard]:
        blocks = [block for block, _number in self._storage.stack(place)]
        uses = self.configured.blocks(blocks)
        return _hazards("storage", name, uses and "disk %s: %s" % (name, uses))

    def _open_nodes(self, nodes: Sequence[str]) -> list[Hazard]:
        """Who has one of the VFIO nodes of a device open, or may have."""
        hazards = [
            Hazard(OPEN_NODE, node, _held(node, holders), is_fatal=True)
            for node in nodes
            for holders in [self._vfio_holders(node)]
            if holders
        ]
        unknown = self._processes.holders(VFIO_DEVICE) if nodes and not hazards else []
        if unknown:
            hazards = [
                Hazard(
                    OPEN_NODE,
                    nodes[0],
                    "it may be the VFIO device that is held open by %s, whose node the kernel does "
                    "not tell" % _text.listed(unknown),
                    is_fatal=True,
                )
            ]
        return hazards

    def _vfio_holders(self, node: str) -> list[str]:
        name = node.rpartition("/")[2]
        folder_of = "class/vfio-dev/" if node.startswith("/dev/vfio/devices/") else "class/vfio/"
        return self._holders(node, folder_of + name)

    def _holders(self, node: str, place: str, kind: str = "c") -> list[str]:
        """Who holds a node; ``place`` is the device's folder, which has its number."""
        number = self._sysfs.read(place + "/dev")
        return self._processes.holders(node, kind + number if number else None)

    def _below(self, parent: str, name: str) -> list[Hazard]:
        if name == _POWER:
            return []
        place = "%s/%s" % (parent, name)
        listing = self._sysfs.listing(place)
        subsystem = self._subsystem(parent, place, listing)
        if subsystem == "net":
            return _hazards("network", name, self._interfaces.use(place, name))
        if subsystem == "block":
            return _hazards("storage", name, self._storage.use(place, name))
        if channels(self._sysfs, place, listing.folders):
            return self._channels(place, listing.folders)
        hazards = self._used(parent, name, subsystem, listing)
        for below in listing.folders:
            hazards += self._below(place, below)
        return hazards

    def _subsystem(self, parent: str, place: str, listing: Listing) -> str:
        """The class or bus of the device at ``place``; empty for a directory of another kind."""
        subsystem = parent.rpartition("/")[2]
        # NVMe disks and devices of a bus are in no directory of a class.
        if subsystem not in _CLASSES and "subsystem" in listing.others:
            return self._sysfs.link_name(place + "/subsystem") or ""
        return subsystem

    def _used(self, parent: str, name: str, subsystem: str, listing: Listing) -> list[Hazard]:
        """What one device below is used for, whatever is below it."""
        if name in _NAMESPACED and not listing.folders:
            # The folder goes with the last.
            sentence = "a %s of it is in another network namespace (a container's)"
            return [Hazard("network", name, sentence % _NAMESPACED[name])]
        place = "%s/%s" % (parent, name)
        hazards = self._carried(subsystem, place, name)
        if not hazards and "dev" in listing.others:
            hazards = self._opened(place)
        if subsystem == "mtd":
            hazards += _hazards("storage", name, self._storage.use_of_flash(name))
        use = use_of_entry(Entry(self._sysfs, place, name, listing), subsystem)
        if use:
            hazards.append(Hazard(use.kind, name, use.sentence))
        if "driver" in listing.others:
            hazards += self._bound_child(parent, name, subsystem)
        return hazards

    def _channels(self, place: str, names: Sequence[str]) -> list[Hazard]:
        use = use_of_channels(self._sysfs, place, names)
        return [Hazard("consumers", "dma", use.sentence, use.is_fatal)] if use else []

    def _bound_child(self, parent: str, name: str, bus: str) -> list[Hazard]:
        """A device of its own that goes with the device above it, if it has a driver.

        What a driver makes of its own device (virtio, auxiliary, USB hubs, scsi …) is none; its
        classes tell whether it is in use.
        """
        place = "%s/%s" % (parent, name)
        driver = self._sysfs.link_name(place + "/driver") or ""
        held = self._held_below(place, driver)
        if held:
            return held
        is_own = (
            bus in _CHIPS
            or bus == "pci"
            or (bus in BUSES and not name.endswith(".auto") and self._has_own_node(parent, place))
        )
        if driver in _PLACEHOLDERS or not is_own:
            return []
        sentence = "%s:%s below it is bound to %s and would lose its driver" % (bus, name, driver)
        return [Hazard("consumers", name, sentence)]

    def _has_own_node(self, parent: str, place: str) -> bool:
        """Whether firmware describes a device apart from the one above it."""
        for link in ("/of_node", "/firmware_node"):
            node = self._sysfs.link(place + link)
            if node:
                above = self._sysfs.link(parent + link) or ""
                return node.lstrip("./") != above.lstrip("./")
        return False

    def _held_below(self, place: str, driver: str) -> list[Hazard]:
        """Whether another device that goes as well is with VFIO and held open, so that it hangs."""
        if "vfio" not in driver:
            return []
        group = self._sysfs.link_name(place + "/iommu_group")
        nodes = ["/dev/vfio/" + name for name in ([group, "noiommu-" + group] if group else [])]
        nodes += ["/dev/vfio/devices/" + name for name in self._sysfs.names(place + "/vfio-dev")]
        return self._open_nodes(nodes)

    def _carried(self, subsystem: str, place: str, name: str) -> list[Hazard]:
        if subsystem == "tty":
            return _hazards("console", name, self._terminal_use(place, name))
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

    def _terminal_use(self, place: str, name: str) -> str | None:
        if name in _text.words(self._sysfs.read("class/tty/console/active") or ""):
            return "%s is the system console" % name
        holders = self._holders("/dev/" + name, place)
        return _held("terminal " + name, holders) if holders else None

    def _watchdog_use(self, place: str, name: str) -> str | None:
        if self._sysfs.read(place + "/state") == "active":
            return "%s is running and may reset the machine" % name
        # The first one has an old name as well: watchdog_cdev_register in drivers/watchdog.
        holders = self._holders("/dev/" + name, place)
        if name == "watchdog0":
            holders += self._holders("/dev/watchdog", "class/misc/watchdog")
        return _held(name, holders) if holders else None

    def _opened(self, place: str) -> list[Hazard]:
        """A node of any other kind (gpiochip, input, i2c, drm …) that a process has open."""
        for line in _text.lines(self._sysfs.read(place + "/uevent") or ""):
            key, _equals, name = line.partition("=")
            # What VFIO makes is looked at by the device's state.
            if key == "DEVNAME" and not name.startswith("vfio/"):
                node = "/dev/" + name
                holders = self._holders(node, place)
                return _hazards("consumers", node, _held(node, holders) if holders else None)
        return []

    def _consumers(self, device: Identity) -> list[Hazard]:
        hazards = self._linked(device) if self._machine.may_supply(device) else []
        references = self._references.to(device.dt_path) if device.dt_path else []
        linked = {hazard.subject for hazard in hazards} if references else ()
        for reference in references:
            if reference.consumer not in linked:
                sentence = "%s uses it (%s in the device tree) and would not work without it"
                sentence %= (reference.consumer, reference.property)
                hazards.append(Hazard("consumers", reference.consumer, sentence))
        return hazards

    def _linked(self, device: Identity) -> list[Hazard]:
        """Consumers by device links."""
        home = sysfs_dir(device)
        names = self._sysfs.names(home)
        linked = active_consumers(self._sysfs, device, names)
        hazards = [
            hazard
            for consumer in linked
            for place in ["%s/consumer:%s/consumer" % (home, consumer)]
            for hazard in self._held_below(place, self._sysfs.link_name(place + "/driver") or "")
        ]
        hazards += [
            Hazard("consumers", consumer, "%s depends on it and would lose its driver" % consumer)
            for consumer in linked
        ]
        untracked = "%s uses it (a device link that its driver made) and would not work without it"
        return hazards + [
            Hazard("consumers", consumer, untracked % consumer)
            for consumer in self._untracked(home, names)
        ]

    def _untracked(self, home: str, names: Sequence[str]) -> list[str]:
        """Consumers by links of DL_FLAG_STATELESS, which last as long as their drivers use them.

        status_show in drivers/base/core.c; the kernel does not take their drivers away.
        """
        link = home + "/%s/"
        return [
            name.split(":", 1)[1]
            for name in names
            if name.startswith("consumer:")
            and self._sysfs.read(link % name + "status") == "not tracked"
            and self._sysfs.link(link % name + "consumer/driver")
        ]

    def _unseen(self, device: Identity, driver: str, *, is_known: bool) -> list[Hazard]:
        """Uses that no folder of the device shows.

        ``is_known`` is whether a use was found, which a count of references may stand for.
        """
        if "vfio" in driver:
            return []
        of_driver = self._kernel_use.of_driver(device.bus, driver)
        handlers = self._kernel_use.interrupts.get(device.name)
        if not (of_driver.uses or of_driver.held or handlers):
            return []
        hazards = [Hazard(use.kind, driver, use.sentence) for use in of_driver.uses]
        if handlers and not is_known:
            sentence = "interrupts come through it (%s)" % ", ".join(handlers)
            hazards.append(Hazard("consumers", device.name, sentence))
        if of_driver.held and not is_known and not hazards and not self._has_clock(device):
            hazards.append(Hazard(of_driver.held.kind, driver, of_driver.held.sentence))
        return hazards

    def _has_clock(self, device: Identity) -> bool:
        """Whether it may be alarmtimer that has its module in use, which never returns it.

        alarmtimer_rtc_add_device in kernel/time/alarmtimer.c.
        """
        return self._sysfs.exists(sysfs_dir(device) + "/rtc")


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


def refusal(label: str, hazard: Hazard) -> str:
    """Why a device, by how messages call it, is not taken, and what can be done about it."""
    return "%s %s: %s. %s" % (label, _verdict(hazard.kind), hazard.sentence, remedy(hazard))


def remedy(hazard: Hazard) -> str:
    """What can be done about a hazard."""
    if hazard.kind == OPEN_NODE:
        return "Stop what uses it; an open device is never taken"
    if hazard.is_fatal:
        return (
            "Stop or unload what uses them, such as dmatest, or raid456 and then async_tx; a DMA "
            "channel in use is never taken away, because the kernel would crash"
        )
    if hazard.kind == "group":
        return (
            "Give %s to VFIO in the same list, or keep drivers off it with no_autobind; to do so "
            "later, add 'group' to `allow`" % hazard.subject
        )
    return "To accept that it loses its driver, add '%s' to `allow`" % hazard.kind


def _verdict(kind: str) -> str:
    return "would be of no use to VFIO" if kind == "group" else "is in use"


def _held(what: str, holders: Sequence[str]) -> str:
    return "%s is held open by %s" % (what, _text.listed(holders))


def _hazards(kind: str, subject: str, sentence: str | None) -> list[Hazard]:
    return [Hazard(kind, subject, sentence)] if sentence else []
