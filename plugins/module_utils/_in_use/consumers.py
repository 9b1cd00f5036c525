# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What depends on a device: consumers, chips behind it, open nodes, the kernel. Reads only."""

from __future__ import annotations

import functools
import posixpath
from typing import Callable, Mapping, Sequence

from .. import _text
from .._discovery.devices import ConsumerLink, sysfs_dir, used_links
from .._discovery.phandle_names import names_adapter
from .._discovery.phandle_refs import TREE, Reference
from .._model.buses import BUSES, PCI
from .._model.device import Identity, State
from .driver_use import DriverUses
from .kernel_classes import CLASSES
from .kinds import CONSUMERS, Hazard
from .use_kind import ClassCheck, Entry, Sources, UseKind
from .vfio_nodes import VfioNodes

# Buses whose every device is a chip of its own, behind the device that is their master: those
# whose devices have no driver_override, and those that have one.
_CHIPS = (
    *("i2c", "i3c", "mipi-dsi", "serial", "slimbus", "soundwire", "spmi"),
    *(bus.name for bus in BUSES.values() if bus.has_chips),
)
# Drivers that stand for no chip: a further address of one (i2c_new_dummy_device), a port for
# programs (its node tells), a PCI bridge.
_PLACEHOLDERS = ("dummy", "pcieport", "spidev")
_TRACKED = "%s depends on it and would be unbound"
_UNTRACKED = "%s uses it (a device link of its driver) and would stop working"
_USES = "%s uses it (%s) and would stop working"
# i2c_del_adapter in drivers/i2c/i2c-core-base.c waits until nobody has the adapter.
_HOLDS = "%s uses it (%s) and holds the I2C adapter, so that the unbind would never end"
_ADAPTER_REMEDY = (
    "Unbind %s first, or unload its driver; an I2C adapter that a driver holds is never removed, "
    "because the kernel would hang"
)
_IN_TREE = "%s in the device tree"


class Consumers(UseKind):
    name = CONSUMERS
    ends_with_supplier = False
    fatal_remedy = (
        "Stop or unload its clients, such as dmatest, or raid456 and then async_tx; a DMA "
        "channel in use is never released, because the kernel would crash"
    )

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._driver_uses = DriverUses(self.sysfs, sources.processes)
        self._vfio_nodes = VfioNodes(sources)

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {"iommu": ClassCheck(_use_of_iommu, judges_node=True), **CLASSES}

    @property
    def directories(self) -> Mapping[str, Callable[[Entry], list[Hazard] | None]]:
        return {"dma": self._channels}

    def of_node(self, entry: Entry) -> list[Hazard]:
        """Return a node of any kind (gpiochip, input, i2c, drm …) that a process has open."""
        for line in _text.lines(entry.read("uevent")):
            key, _equals, name = line.partition("=")
            # What VFIO makes is inspected by the device's state.
            if key == "DEVNAME" and not name.startswith("vfio/"):
                node = "/dev/" + name
                sentence = self.sources.held_open(node, node, entry.path)
                return [Hazard(self.name, node, sentence)] if sentence else []
        return []

    def of_bound(self, entry: Entry, subsystem: str) -> list[Hazard]:
        """Return a device of its own that goes with the device above it.

        What a driver makes of its own device (virtio, auxiliary, USB hubs, scsi …) is none; its
        classes tell whether it is in use.
        """
        driver = self.sysfs.link_name(entry.path + "/driver") or ""
        held = self._vfio_nodes.below(entry.path, driver)
        if held:
            return held
        is_own = (
            subsystem in _CHIPS
            or subsystem == PCI
            or (
                subsystem in BUSES
                and not entry.name.endswith(".auto")
                and self._has_own_node(entry)
            )
        )
        if driver in _PLACEHOLDERS or not is_own:
            return []
        sentence = "%s:%s below it is bound to %s and would be unbound"
        return [Hazard(self.name, entry.name, sentence % (subsystem, entry.name, driver))]

    def of_device(self, device: Identity, state: State, known: Sequence[Hazard]) -> list[Hazard]:
        driver = state.driver or ""
        links = self._links(device) if self._may_supply(device) else []
        hazards = self._linked(links) if links else []
        # Drivers of VFIO supply nothing to others.
        if "vfio" not in driver:
            references = self.sources.references.to(device.dt_path) if device.dt_path else []
            if references:
                hazards += self._referring(references, links)
            if self.sources.cards.are_there:
                hazards += self._shown(device, hazards)
        if device.bus == PCI:
            hazards += self._virtual_functions(device)
        is_known = bool(known or hazards)
        return hazards + self._hidden(device, driver, is_known=is_known)

    def of_unbound(self, device: Identity) -> list[Hazard]:
        """Return who shares the registers of a device without a driver, which VFIO would give away.

        Nobody else is hurt: what a driver supplies is not there without it.
        """
        if not device.dt_path:
            return []
        sentence = "%s uses its registers (%s in the device tree), which VFIO gives to user space"
        hazards = [
            Hazard(self.name, consumer, sentence % (consumer, name))
            for consumer, name in self.sources.references.to_registers(device.dt_path)
        ]
        return hazards + self._children_of_unbound(device)

    def _children_of_unbound(self, device: Identity) -> list[Hazard]:
        """Return the bound devices of nodes below one with registers, which are theirs as well.

        of_platform_bus_create in drivers/of/platform.c makes them for a "simple-mfd".
        """
        home = sysfs_dir(device)
        if not (
            self.sysfs.count_directories(home)
            and self.sysfs.exists("%s%s/reg" % (TREE, device.dt_path))
        ):
            return []
        sentence = (
            "%s below it is bound to %s and uses its registers, which VFIO gives to user space"
        )
        return [
            Hazard(self.name, name, sentence % (name, driver))
            for name in self.sysfs.list_directories(home)
            for path in ["%s/%s" % (home, name)]
            for driver in [self.sysfs.link_name(path + "/driver")]
            if driver and self.sysfs.exists(path + "/of_node")
        ]

    def _referring(
        self, references: Sequence[Reference], links: Sequence[ConsumerLink]
    ) -> list[Hazard]:
        """Return who uses the device without a link to it."""
        linked = {link.consumer: link.is_tracked for link in links}
        hazards = []
        for consumer, name in references:
            # A tracked consumer is unbound before the device, and releases what it holds.
            if names_adapter(name) and not linked.get(consumer):
                hazards.append(_held(consumer, consumer, _IN_TREE % name))
            elif consumer not in linked:
                sentence = _USES % (consumer, _IN_TREE % name)
                hazards.append(Hazard(self.name, consumer, sentence))
        return hazards

    def _shown(self, device: Identity, known: Sequence[Hazard]) -> list[Hazard]:
        """Return of what the device is a part, and which connectors hold an adapter below it."""
        home = sysfs_dir(device)
        subjects = {hazard.subject for hazard in known}
        wholes = self.sources.cards.made_of(home, device.dt_path)
        # A part deletes its own adapter: dw_hdmi_remove in dw-hdmi.c.
        going = tuple(whole.home + "/" for whole in wholes)
        hazards = [
            _held(posixpath.basename(held.connector), "its card", "ddc of its connector")
            for held in self.sources.cards.held_adapters(home)
            if not held.connector.startswith(going)
        ]
        return hazards + [
            Hazard(self.name, whole.label, _USES % (whole.label, whole.reason))
            for whole in wholes
            if whole.label not in subjects
        ]

    def _virtual_functions(self, device: Identity) -> list[Hazard]:
        """Return the bound functions that are gone with a PCI function's driver.

        sriov_disable in drivers/pci/iov.c, which drivers call when they are unbound; one that does
        not leaves them without the function that they need.
        """
        directory = sysfs_dir(device)
        if not self.sysfs.exists(directory + "/virtfn0"):
            return []
        hazards = []
        for link in self.sysfs.names(directory):
            path = "%s/%s" % (directory, link)
            driver = self.sysfs.link_name(path + "/driver") if link.startswith("virtfn") else None
            if driver is None:
                continue
            name = self.sysfs.link_name(path) or link
            sentence = "its virtual function %s is bound to %s and would be removed"
            hazards += self._vfio_nodes.below(path, driver) or [
                Hazard(self.name, name, sentence % (name, driver))
            ]
        return hazards

    def _channels(self, entry: Entry) -> list[Hazard] | None:
        # Here, because few devices have such a directory.
        from .dma import has_channels, use_of_channels  # noqa: PLC0415

        if not has_channels(self.sysfs, entry.path, entry.listing.directories):
            return None
        use = use_of_channels(self.sysfs, entry.path, entry.listing.directories)
        return [Hazard(self.name, "dma", use.sentence, use.is_fatal)] if use else []

    def _has_own_node(self, entry: Entry) -> bool:
        """Return whether firmware describes a device apart from the one above it."""
        for link in ("/of_node", "/firmware_node"):
            node = self.sysfs.link(entry.path + link)
            if node:
                above = self.sysfs.link(entry.parent + link) or ""
                return node.lstrip("./") != above.lstrip("./")
        return False

    def _links(self, device: Identity) -> list[ConsumerLink]:
        directory = sysfs_dir(device)
        return used_links(self.sysfs, directory, self.sysfs.names(directory))

    def _linked(self, links: Sequence[ConsumerLink]) -> list[Hazard]:
        """Return consumers by device links."""
        hazards = [
            hazard
            for link in links
            if link.is_tracked
            for path in [link.path + "/consumer"]
            for hazard in self._vfio_nodes.below(path, self.sysfs.link_name(path + "/driver") or "")
        ]
        for link in sorted(links, key=lambda link: not link.is_tracked):
            sentence = _TRACKED if link.is_tracked else _UNTRACKED
            hazards.append(Hazard(self.name, link.consumer, sentence % link.consumer))
        return hazards

    @functools.cached_property
    def _suppliers(self) -> set[str]:
        """All that come before a "--" in "SUPPLIER--CONSUMER", the name of a device link.

        Before Linux 5.11 neither has its bus before it (device_link_add in drivers/base/core.c).
        """
        suppliers: set[str] = set()
        for link in self.sysfs.names("class/devlink"):
            parts = link.split("--")
            suppliers.update("--".join(parts[:end]) for end in range(1, len(parts)))
        return suppliers

    def _may_supply(self, device: Identity) -> bool:
        """Return whether there may be a device link to a consumer; the directory tells."""
        return not self._suppliers.isdisjoint(("%s:%s" % (device.bus, device.name), device.name))

    def _hidden(self, device: Identity, driver: str, *, is_known: bool) -> list[Hazard]:
        """Return uses that no directory of the device shows.

        ``is_known`` is whether a use was found, which a count of references may stand for.
        """
        if "vfio" in driver:
            return []
        of_driver = self._driver_uses.of_driver(device.bus, driver)
        handlers = self._driver_uses.interrupts.get(device.name)
        if not (of_driver.uses or of_driver.held or handlers):
            return []
        hazards = [Hazard(self.name, driver, sentence) for sentence in of_driver.uses]
        if handlers and not is_known:
            sentence = "it delivers interrupts (%s)" % ", ".join(handlers)
            hazards.append(Hazard(self.name, device.name, sentence))
        if of_driver.held and not is_known and not hazards and not self._has_clock(device):
            hazards.append(Hazard(self.name, driver, of_driver.held))
        return hazards

    def _has_clock(self, device: Identity) -> bool:
        """Return whether alarmtimer may have its module in use, which never returns it.

        alarmtimer_rtc_add_device in kernel/time/alarmtimer.c.
        """
        return self.sysfs.exists(sysfs_dir(device) + "/rtc")


def _use_of_iommu(entry: Entry) -> str:
    return "it is the IOMMU %s of other devices" % entry.name


def _held(subject: str, holder: str, reason: str) -> Hazard:
    """Return that the ``holder`` has an I2C adapter of the device."""
    return Hazard(
        Consumers.name,
        subject,
        _HOLDS % (subject, reason),
        is_fatal=True,
        fatal_remedy=_ADAPTER_REMEDY % holder,
    )
