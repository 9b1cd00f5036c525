# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices the device tree says depend on a device. Reads only."""

from __future__ import annotations

import functools
import re
import struct
from typing import Mapping, NamedTuple, Sequence

from .._model.buses import BUSES
from .._system.sysfs import Sysfs

TREE = "firmware/devicetree/base"
# Of a property whose first cell alone is a phandle, before offsets and masks.
_FIRST = "first"
# of_supplier_bindings in drivers/of/property.c: properties that are lists of phandles, and what
# tells how many cells follow each; empty where none does. Without iommus: an IOMMU is told by its
# own directory in /sys. From cooling-device on they make no device link, but drivers find by them
# what they use: drivers/thermal/thermal_of.c, sound/soc/soc-core.c, drivers/mux/core.c,
# drivers/net/mdio/of_mdio.c and drivers/fpga/of-fpga-region.c.
_LISTS = {
    "clocks": "#clock-cells",
    "assigned-clocks": "#clock-cells",
    "assigned-clock-parents": "#clock-cells",
    "interconnects": "#interconnect-cells",
    "mboxes": "#mbox-cells",
    "io-channels": "#io-channel-cells",
    "io-backends": "#io-backend-cells",
    "dmas": "#dma-cells",
    "power-domains": "#power-domain-cells",
    "hwlocks": "#hwlock-cells",
    "nvmem-cells": "#nvmem-cell-cells",
    "phys": "#phy-cells",
    "pwms": "#pwm-cells",
    "resets": "#reset-cells",
    "msi-parent": "#msi-cells",
    "access-controllers": "#access-controller-cells",
    "pses": "#pse-cells",
    "thermal-sensors": "#thermal-sensor-cells",
    "interrupts-extended": "#interrupt-cells",
    "extcon": "",
    "wakeup-parent": "",
    "leds": "",
    "backlight": "",
    "panel": "",
    "power-supplies": "",
    "cooling-device": "#cooling-cells",
    "sound-dai": "#sound-dai-cells",
    "mux-controls": "#mux-control-cells",
    "mux-states": "#mux-state-cells",
    "phy-handle": "",
    "fpga-mgr": "",
    "fpga-bridges": "",
    # drivers/net/pcs, drivers/net/phy/sfp-bus.c, drivers/i2c/muxes, drivers/mmc/core/pwrseq.c,
    # drivers/net/mdio/mdio-mux.c, drivers/gpu/drm/drm_bridge.c.
    "pcs-handle": "",
    "pcsphy-handle": "",
    "sfp": "",
    "i2c-bus": "",
    "i2c-parent": "",
    "ddc-i2c-bus": "",
    "mmc-pwrseq": "",
    "mdio-parent-bus": "",
    "regmap": _FIRST,
}
# The same for the properties that have many names. In the last, drivers of other devices write to
# its registers: drivers/mfd/syscon.c.
_PATTERNS = (
    (re.compile(r"(.*-)?gpios?"), "#gpio-cells"),
    (re.compile(r".*-supply|pinctrl-\d+"), ""),
    (re.compile(r"(.*[,-])?syscon([,-].*)?|.*,(grf|pmugrf)"), _FIRST),
)

# Its nodes are no devices: of_thermal_zone_find in drivers/thermal/thermal_of.c.
_ZONES = "/thermal-zones/"
# THERMAL_NAME_LENGTH with its NUL.
_ZONE_NAME = 19


class Reference(NamedTuple):
    """A bound device ("bus:name") or thermal zone that refers to a device by ``property``."""

    consumer: str
    property: str


class _Tree(NamedTuple):
    """What the nodes say: paths by phandle, (path, property, cells) of each list, and for a path
    that something can refer to the node at or above it which can be a device.
    """

    paths: dict[int, str]
    lists: list[tuple[str, str, Sequence[int]]]
    interrupts: list[tuple[str, int]]
    owners: dict[str, str]


class References:
    """The references of the whole device tree; read once, when the first question comes."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._by_supplier: dict[str, list[tuple[str, str]]] | None = None
        self._devices: dict[str, str] = {}
        self._sizes: dict[tuple[int, str], int] = {}
        self._no_lists: set[str] = set()

    def to(self, dt_path: str) -> list[Reference]:
        """Return references to the node of a device, or to nodes below it without a device."""
        if self._by_supplier is None:
            # To read the tree takes much longer than to see that nothing can refer to the node.
            node = TREE + dt_path
            if not self._sysfs.exists(node + "/phandle") and not self._sysfs.count_directories(
                node
            ):
                return []
            self._by_supplier = self._read()
        references: dict[str, Reference] = {}
        for path, name in self._by_supplier.get(dt_path, []):
            consumer = (
                self._thermal_zone(path)
                if path.startswith(_ZONES)
                else self._bound_device(path, dt_path)
            )
            if consumer:
                references.setdefault(consumer, Reference(consumer, name))
        return list(references.values())

    def _read(self) -> dict[str, list[tuple[str, str]]]:
        self._devices = self._read_devices()
        tree = _Tree({}, [], [], {})
        self._read_node("", "", 0, tree)
        named = [
            (phandle, path, name)
            for path, name, cells in tree.lists
            for phandle in self._named(name, cells, tree.paths)
        ]
        named += [
            (phandle, path, "interrupts")
            for path, phandle in tree.interrupts
            if phandle in tree.paths
        ]
        references: dict[str, list[tuple[str, str]]] = {}
        for phandle, path, name in named:
            references.setdefault(tree.owners[tree.paths[phandle]], []).append((path, name))
        return references

    def _read_devices(self) -> dict[str, str]:
        devices: dict[str, str] = {}
        others = [bus for bus in self._sysfs.names("bus") if bus not in BUSES]
        for bus in (*BUSES, *others):
            for name in self._sysfs.names("bus/%s/devices" % bus):
                target = self._sysfs.link("bus/%s/devices/%s/of_node" % (bus, name))
                if target and not name.endswith(".auto"):
                    devices.setdefault(target.partition("/" + TREE)[2], "%s:%s" % (bus, name))
        return devices

    def _read_node(self, path: str, owner: str, interrupt_parent: int, tree: _Tree) -> None:
        listing = self._sysfs.listing(TREE + path)
        if "status" in listing.others and not self._is_okay(path):
            return
        if "compatible" in listing.others:
            # It is, or may be, a device of its own.
            owner = path
        if "interrupt-parent" in listing.others:
            interrupt_parent = next(iter(self._cells(path, "interrupt-parent")), 0)
        if "interrupts" in listing.others:
            tree.interrupts.append((path, interrupt_parent))
        if "phandle" in listing.others:
            tree.paths.update(dict.fromkeys(self._cells(path, "phandle"), path))
            tree.owners[path] = owner
        tree.lists.extend(
            (path, name, self._cells(path, name))
            for name in sorted(listing.others - self._no_lists)
            if self._is_list(name)
        )
        for child in listing.directories:
            # What dtc adds for overlays (__symbols__, __local_fixups__) names properties as well.
            if path or not child.startswith("__"):
                self._read_node("%s/%s" % (path, child), owner, interrupt_parent, tree)

    def _is_list(self, name: str) -> bool:
        if _size_name(name) is not None:
            return True
        # Few names make nearly all properties of a tree.
        self._no_lists.add(name)
        return False

    def _is_okay(self, path: str) -> bool:
        status = self._sysfs.strings(TREE + path + "/status")
        return not status or status[0] in ("okay", "ok")

    def _cells(self, path: str, name: str) -> Sequence[int]:
        content = self._sysfs.read_bytes("%s%s/%s" % (TREE, path, name)) or b""
        count = len(content) // 4
        return struct.unpack(">%dI" % count, content[: count * 4])

    def _named(self, name: str, cells: Sequence[int], paths: Mapping[int, str]) -> list[int]:
        """Return the phandles of a list; without what is not known, and all after it."""
        size_name = _size_name(name)
        phandles: list[int] = []
        position = 0
        while position < len(cells):
            phandle = cells[position]
            position += 1
            # 0 stands for an entry that is left out.
            if phandle == 0:
                continue
            if phandle not in paths:
                break
            phandles.append(phandle)
            if size_name == _FIRST:
                break
            if size_name:
                position += self._size(phandle, paths[phandle], size_name)
        return phandles

    def _size(self, phandle: int, path: str, size_name: str) -> int:
        key = (phandle, size_name)
        if key not in self._sizes:
            self._sizes[key] = next(iter(self._cells(path, size_name)), 0)
        return self._sizes[key]

    def _thermal_zone(self, path: str) -> str | None:
        """Return the thermal zone of a node or of a node above it, if the kernel watches it."""
        zone = path[len(_ZONES) :].partition("/")[0]
        for name in self._sysfs.names("class/thermal"):
            home = "class/thermal/" + name
            if self._sysfs.read(home + "/type") == zone[:_ZONE_NAME]:
                # It waits for a sensor that is being read.
                (mode,) = self._sysfs.read_locked([home + "/mode"])
                if mode == "enabled":
                    return "thermal zone " + zone
        return None

    def _bound_device(self, path: str, supplier: str) -> str | None:
        """Return the device of a node or of the nearest node above it, if it is bound."""
        while path and path not in self._devices:
            path = path.rpartition("/")[0]
        device = self._devices.get(path)
        # What is below it is judged with it.
        if device is None or _is_within(path, supplier) or _is_within(supplier, path):
            return None
        home = "bus/%s/devices/%s" % tuple(device.split(":", 1))
        # Processors have no driver but that of their frequency.
        is_used = self._sysfs.exists(home + "/cpufreq") or self._sysfs.link(home + "/driver")
        return device if is_used else None


def _is_within(path: str, other: str) -> bool:
    return (path + "/").startswith(other + "/")


@functools.lru_cache(maxsize=None)
def _size_name(name: str) -> str | None:
    """Return the name of the cells property of a phandle list, or None for other properties."""
    if name in _LISTS:
        return _LISTS[name]
    return next((size for pattern, size in _PATTERNS if pattern.fullmatch(name)), None)
