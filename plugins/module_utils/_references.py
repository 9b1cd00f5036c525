# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices the device tree says depend on a device. Reads only."""

from __future__ import annotations

import re
import struct
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import BUSES
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs

_TREE = "firmware/devicetree/base"
# of_supplier_bindings in drivers/of/property.c: properties that are lists of phandles, and what
# tells how many cells follow each; None where none does.
_LISTS: tuple[tuple[str, str | None], ...] = (
    (r"clocks|assigned-clocks|assigned-clock-parents", "#clock-cells"),
    (r"interconnects", "#interconnect-cells"),
    (r"iommus", "#iommu-cells"),
    (r"mboxes", "#mbox-cells"),
    (r"io-channels", "#io-channel-cells"),
    (r"io-backends", "#io-backend-cells"),
    (r"dmas", "#dma-cells"),
    (r"power-domains", "#power-domain-cells"),
    (r"hwlocks", "#hwlock-cells"),
    (r"nvmem-cells", "#nvmem-cell-cells"),
    (r"phys", "#phy-cells"),
    (r"pwms", "#pwm-cells"),
    (r"resets", "#reset-cells"),
    (r"msi-parent", "#msi-cells"),
    (r"access-controllers", "#access-controller-cells"),
    (r"pses", "#pse-cells"),
    (r"thermal-sensors", "#thermal-sensor-cells"),
    (r"interrupts-extended", "#interrupt-cells"),
    (r"(.*-)?gpios?", "#gpio-cells"),
    (r".*-supply|pinctrl-\d+|extcon|wakeup-parent|leds|backlight|panel|power-supplies", None),
)


class Reference(NamedTuple):
    """A bound device ("bus:name") that refers to another one by ``property``."""

    consumer: str
    property: str


class _Tree(NamedTuple):
    """What the nodes say: paths by phandle, and (path, property, cells) of each list."""

    paths: dict[int, str]
    lists: list[tuple[str, str, Sequence[int]]]
    interrupts: list[tuple[str, int]]


class References:
    """The references of the whole device tree; read once, when the first question comes."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._by_supplier: dict[str, list[tuple[str, str]]] | None = None
        self._devices: dict[str, str] = {}

    def to(self, dt_path: str) -> list[Reference]:
        """Who refers to the node of a device, or to one below it that is no device itself."""
        suppliers = self._suppliers(dt_path)
        if not suppliers:
            return []
        if self._by_supplier is None:
            self._by_supplier = self._read()
        found: dict[str, Reference] = {}
        for supplier in suppliers:
            for path, name in self._by_supplier.get(supplier, []):
                consumer = self._bound_device(path, dt_path)
                if consumer:
                    found.setdefault(consumer, Reference(consumer, name))
        return list(found.values())

    def _suppliers(self, path: str) -> list[str]:
        """The node and those below it that are no devices, as far as something refers to them."""
        node = _TREE + path
        found = [path] if self._sysfs.exists(node + "/phandle") else []
        for child in self._sysfs.folders(node):
            # A child with a compatible is, or may be, a device of its own.
            if not self._sysfs.exists("%s/%s/compatible" % (node, child)):
                found += self._suppliers("%s/%s" % (path, child))
        return found

    def _read(self) -> dict[str, list[tuple[str, str]]]:
        self._devices = self._read_devices()
        tree = _Tree({}, [], [])
        self._read_node("", 0, tree)
        found: dict[str, list[tuple[str, str]]] = {}
        for path, name, cells in tree.lists:
            for phandle in self._named(name, cells, tree.paths):
                found.setdefault(tree.paths[phandle], []).append((path, name))
        for path, phandle in tree.interrupts:
            if phandle in tree.paths:
                found.setdefault(tree.paths[phandle], []).append((path, "interrupts"))
        return found

    def _read_devices(self) -> dict[str, str]:
        devices: dict[str, str] = {}
        for bus in BUSES:
            for name in self._sysfs.names("bus/%s/devices" % bus):
                target = self._sysfs.link("bus/%s/devices/%s/of_node" % (bus, name))
                if target and not name.endswith(".auto"):
                    devices.setdefault(target.partition("/" + _TREE)[2], "%s:%s" % (bus, name))
        return devices

    def _read_node(self, path: str, interrupt_parent: int, tree: _Tree) -> None:
        node = _TREE + path
        status = self._sysfs.strings(node + "/status")
        if status and status[0] not in ("okay", "ok"):
            return
        names = self._sysfs.names(node)
        for name in names:
            if name == "phandle":
                tree.paths.update(dict.fromkeys(self._cells(path, name), path))
            elif name == "interrupt-parent":
                interrupt_parent = next(iter(self._cells(path, name)), 0)
            elif any(re.fullmatch(pattern, name) for pattern, _cells in _LISTS):
                tree.lists.append((path, name, self._cells(path, name)))
        if "interrupts" in names:
            tree.interrupts.append((path, interrupt_parent))
        for child in self._sysfs.folders(node):
            self._read_node("%s/%s" % (path, child), interrupt_parent, tree)

    def _cells(self, path: str, name: str) -> Sequence[int]:
        content = self._sysfs.read_bytes("%s%s/%s" % (_TREE, path, name)) or b""
        count = len(content) // 4
        return struct.unpack(">%dI" % count, content[: count * 4])

    def _named(self, name: str, cells: Sequence[int], paths: Mapping[int, str]) -> list[int]:
        """The phandles of a list; without what is not known, and all after it."""
        (size_name,) = [size for pattern, size in _LISTS if re.fullmatch(pattern, name)][:1]
        found: list[int] = []
        place = 0
        while place < len(cells):
            phandle = cells[place]
            place += 1
            # 0 stands for an entry that is left out.
            if phandle == 0:
                continue
            if phandle not in paths:
                break
            found.append(phandle)
            if size_name:
                place += next(iter(self._cells(paths[phandle], size_name)), 0)
        return found

    def _bound_device(self, path: str, supplier: str) -> str | None:
        """The device of a node or of the nearest node above it, if it is bound."""
        while path and path not in self._devices:
            path = path.rpartition("/")[0]
        device = self._devices.get(path)
        if device is None or path == supplier or supplier.startswith(path + "/"):
            return None
        bus, name = device.split(":", 1)
        return device if self._sysfs.link("bus/%s/devices/%s/driver" % (bus, name)) else None
