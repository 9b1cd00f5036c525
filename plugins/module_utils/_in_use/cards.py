# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices are lost with one of their parts: cards of screens, and all that is of components.

The driver of a card takes devices together that have their own drivers: a display controller, an
HDMI transmitter, a panel. Without one of them the whole card goes (component_del in
drivers/base/component.c), and neither a device link nor the directory of the part shows it.
"""

from __future__ import annotations

import functools
import posixpath
import re
from typing import Mapping, NamedTuple, Sequence

from .._discovery.devices import target_of
from .._discovery.phandle_refs import TREE, References
from .._model.buses import PCI, known_first
from .._system.sysfs import KernelBlockedError, Sysfs

_CARD = re.compile(r"card\d+")
_CONNECTOR = re.compile(r"card\d+-.+")
# component_devices_show in drivers/base/component.c: first the device of the driver that takes the
# others together, as the file is called, then its components.
_COMPONENTS = "kernel/debug/device_component"
_ROW = re.compile(r"(\S.*?) +(bound|not bound|not registered)")


class Whole(NamedTuple):
    """A device ("bus:name") that is lost with a part; ``home`` is its directory, and ``reason`` how
    it is known.
    """

    label: str
    home: str
    reason: str


class HeldAdapter(NamedTuple):
    """An I2C adapter by which a connector asks what is plugged in: two directories."""

    adapter: str
    connector: str


class _Card(NamedTuple):
    """The device of a card: label, directory, the module of its driver, the nodes of its parts."""

    label: str
    home: str
    module: str | None
    parts: set[str]


class Cards:
    """Reads what there is once; ``references`` are those of the whole device tree."""

    def __init__(self, sysfs: Sysfs, references: References) -> None:
        self._sysfs = sysfs
        self._references = references

    @functools.cached_property
    def are_there(self) -> bool:
        """Whether there is a card, or a driver that takes several devices together."""
        return bool(self._sysfs.names("class/drm") or self._sysfs.names(_COMPONENTS))

    def made_of(self, part: str, dt_path: str | None) -> list[Whole]:
        """Return what is lost with the device that has this directory and node."""
        wholes: dict[str, Whole] = {}
        for name in self._wholes.get(posixpath.basename(part), ()):
            whole = self._device_called(name)
            if whole:
                wholes[whole.label] = whole
        # A device with a card of its own is no part of another one.
        if self._cards and not self._sysfs.exists(part + "/drm"):
            for card in self._cards:
                reason = self._reason(card, part, dt_path)
                if reason:
                    wholes.setdefault(card.label, Whole(card.label, card.home, reason))
        return list(wholes.values())

    def held_adapters(self, path: str) -> list[HeldAdapter]:
        """Return the adapters below a device that connectors of other devices use."""
        home = target_of(self._sysfs, path) + "/"
        return [
            held
            for held in self._adapters
            if held.adapter.startswith(home) and not held.connector.startswith(home)
        ]

    def _reason(self, card: _Card, part: str, dt_path: str | None) -> str | None:
        """Return why a device is a part of a card, or None."""
        if card.home.startswith(target_of(self._sysfs, part) + "/"):
            return None
        # vc4_match_add_drivers in drivers/gpu/drm/vc4/vc4_drv.c, and others, take all devices of
        # the drivers that are in their module.
        if card.module and self._sysfs.link_name(part + "/driver/module") == card.module:
            return "the module %s of its driver" % card.module
        if dt_path and any((node + "/").startswith(dt_path + "/") for node in card.parts):
            return "remote-endpoint in the device tree"
        return None

    @functools.cached_property
    def _cards(self) -> Sequence[_Card]:
        cards = []
        for name in filter(_CARD.fullmatch, self._sysfs.names("class/drm")):
            home, _drm, _name = target_of(self._sysfs, "class/drm/" + name).rpartition("/drm/")
            bus = self._sysfs.link_name(home + "/subsystem")
            if not home or not bus:
                continue
            node = (self._sysfs.link(home + "/of_node") or "").partition("/" + TREE)[2]
            cards.append(
                _Card(
                    "%s:%s" % (bus, posixpath.basename(home)),
                    home,
                    # Modules for PCI drive cards of any kind, each by itself.
                    self._sysfs.link_name(home + "/driver/module") if bus != PCI else None,
                    self._references.ports.shown_through(node) if node else set(),
                )
            )
        return cards

    @functools.cached_property
    def _adapters(self) -> Sequence[HeldAdapter]:
        """The links of connectors: drm_sysfs_connector_add in drivers/gpu/drm/drm_sysfs.c."""
        connectors = filter(_CONNECTOR.fullmatch, self._sysfs.names("class/drm"))
        return [
            HeldAdapter(target_of(self._sysfs, connector + "/ddc"), connector)
            for name in connectors
            for connector in [target_of(self._sysfs, "class/drm/" + name)]
            if self._sysfs.link(connector + "/ddc")
        ]

    @functools.cached_property
    def _wholes(self) -> Mapping[str, Sequence[str]]:
        """What a component is a part of, both by the names of their devices; root alone sees it."""
        names = self._sysfs.names(_COMPONENTS)
        try:
            tables = self._sysfs.read_locked(["%s/%s" % (_COMPONENTS, name) for name in names])
        except KernelBlockedError:
            return {}
        wholes: dict[str, list[str]] = {}
        for whole, table in zip(names, tables):
            rows = [_ROW.fullmatch(line.rstrip(" ")) for line in (table or "").split("\n")]
            bound = [row[1] for row in rows if row and row[2] == "bound"]
            if bound[:1] == [whole]:
                for part in bound[1:]:
                    wholes.setdefault(part, []).append(whole)
        return wholes

    def _device_called(self, name: str) -> Whole | None:
        for bus in known_first(self._sysfs.names("bus")):
            path = "bus/%s/devices/%s" % (bus, name)
            if self._sysfs.exists(path):
                label = "%s:%s" % (bus, name)
                return Whole(label, target_of(self._sysfs, path), "a component of its driver")
        return None
