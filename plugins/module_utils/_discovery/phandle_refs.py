# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices the device tree says depend on a device. Reads only."""

from __future__ import annotations

import functools
import struct
from typing import Mapping, NamedTuple, Sequence

from .._model.buses import known_first
from .._system.sysfs import Sysfs
from .phandle_names import FIRST, may_share_registers, names_adapter, size_name
from .port_graph import CONNECTING, ENDS, Endpoint, PortGraph

TREE = "firmware/devicetree/base"
_SYSCON = "syscon"
_HOGS, _OWN_LINES = frozenset({"gpio-hog", "gpio-line"}), {"gpio", "gpios"}
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

    ``of_vendors`` are (path, property) of what may refer to shared registers, ``ends`` devices at
    which a way through ports ends.
    """

    paths: dict[int, str]
    lists: list[tuple[str, str, Sequence[int]]]
    interrupts: list[tuple[str, int]]
    owners: dict[str, str]
    of_vendors: list[tuple[str, str]]
    endpoints: list[Endpoint]
    ends: set[str]


class References:
    """The references of the whole device tree; read once, when the first question comes."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._is_read = False
        self._sizes: dict[tuple[int, str], int] = {}
        self._no_lists: set[str] = set()
        self._compatibles: dict[str, Sequence[str]] = {}

    def to(self, dt_path: str) -> list[Reference]:
        """Return references to the node of a device, or to nodes below it without a device.

        Adapters below it count even if they have devices, such as those of a multiplexer: they are
        removed with it.
        """
        if not self._may_be_named(dt_path):
            return []
        references: dict[str, Reference] = {}
        named = [*self._suppliers.get(dt_path, []), *self._of_vendors.get(dt_path, [])]
        if self._adapters:
            named += self._to_adapters_below(dt_path)
        for path, name in dict.fromkeys(named):
            for consumer in self._consumers(path, name, dt_path):
                known = references.get(consumer)
                # That a driver holds an adapter outweighs all else.
                if known is None or (names_adapter(name) and not names_adapter(known.property)):
                    references[consumer] = Reference(consumer, name)
        return list(references.values())

    def to_registers(self, dt_path: str) -> list[Reference]:
        """Return references by which drivers share the registers of a node, whatever is bound to
        it.

        No driver is bound to most such nodes: device_node_get_regmap in drivers/mfd/syscon.c maps
        what has the compatible "syscon" when the first driver asks for it.
        """
        if not self._may_be_named(dt_path):
            return []
        named = [
            (path, name)
            for path, name in self._suppliers.get(dt_path, [])
            if may_share_registers(name) and self._is_syscon(dt_path)
        ]
        return [
            Reference(consumer, name)
            for path, name in [*named, *self._of_vendors.get(dt_path, [])]
            for consumer in self._consumers(path, name, dt_path)
        ]

    @functools.cached_property
    def ports(self) -> PortGraph:
        """How devices are connected by ports."""
        tree = self._tree
        named = [
            (name, path, [tree.paths[cell] for cell in cells if cell in tree.paths])
            for path, name, cells in tree.lists
            if name in CONNECTING
        ]
        return PortGraph(
            endpoints=tree.endpoints,
            named=named,
            paths=tree.paths,
            owners=tree.owners,
            ends=tree.ends,
            compatible=self._compatible,
        )

    def _may_be_named(self, dt_path: str) -> bool:
        """To read the tree takes much longer than to see that nothing can refer to a node."""
        node = TREE + dt_path
        return (
            self._is_read
            or self._sysfs.exists(node + "/phandle")
            or bool(self._sysfs.count_directories(node))
        )

    @functools.cached_property
    def _suppliers(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """(path, property) of what refers to a node or to nodes below it, by its path."""
        tree = self._tree
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

    def _consumers(self, path: str, name: str, supplier: str) -> list[str]:
        """Return the thermal zone or the bound devices that a property of a node means."""
        if path.startswith(_ZONES):
            zone = self._thermal_zone(path)
            return [zone] if zone else []
        device = self._bound_device(path, supplier)
        if device:
            return [device]
        # Of a connector or panel without a driver, a driver beside it asks for the adapter:
        # drivers/gpu/drm: sun4i/sun4i_hdmi_enc.c, mediatek/mtk_hdmi.c.
        linked = self.ports.neighbours(path) if names_adapter(name) else []
        devices = (self._bound_device(node, supplier) for node in linked)
        return [device for device in devices if device]

    @functools.cached_property
    def _adapters(self) -> Sequence[tuple[str, str, str]]:
        """(path of the adapter, path, property) of what refers to I2C adapters."""
        return [
            (self._tree.paths[phandle], path, name)
            for path, name, cells in self._tree.lists
            if names_adapter(name)
            for phandle in self._named(name, cells, self._tree.paths)
        ]

    def _to_adapters_below(self, dt_path: str) -> list[tuple[str, str]]:
        return [
            (path, name)
            for adapter, path, name in self._adapters
            if adapter != dt_path and _is_within(adapter, dt_path)
        ]

    @functools.cached_property
    def _of_vendors(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """(path, property) of what refers by a name of a vendor to registers, by their path.

        Any number can look like a phandle. A property of that name refers to registers wherever it
        is in the tree.
        """
        named: dict[str, list[tuple[str, Sequence[int]]]] = {}
        for path, name in self._tree.of_vendors:
            named.setdefault(name, []).append((path, self._cells(path, name)))
        references: dict[str, list[tuple[str, str]]] = {}
        for name, properties in named.items():
            if all(self._named_registers(cells) for _path, cells in properties):
                for path, cells in properties:
                    for registers in self._named_registers(cells):
                        references.setdefault(registers, []).append((path, name))
        return references

    def _named_registers(self, cells: Sequence[int]) -> list[str]:
        """Return the nodes if all cells are phandles of shared registers, else that of the first
        cell, if it is one.
        """
        paths = [self._tree.paths.get(cell, "") for cell in cells]
        are_registers = [bool(path) and self._is_syscon(path) for path in paths]
        return paths if all(are_registers) else paths[: int(are_registers[0])]

    def _is_syscon(self, path: str) -> bool:
        return _SYSCON in self._compatible(path)

    def _compatible(self, path: str) -> Sequence[str]:
        if path not in self._compatibles:
            self._compatibles[path] = self._sysfs.strings("%s%s/compatible" % (TREE, path))
        return self._compatibles[path]

    @functools.cached_property
    def _tree(self) -> _Tree:
        self._is_read = True
        tree = _Tree(
            paths={},
            lists=[],
            interrupts=[],
            owners={},
            of_vendors=[],
            endpoints=[],
            ends=set(),
        )
        self._read_node("", "", 0, tree)
        return tree

    @functools.cached_property
    def _devices(self) -> Mapping[str, str]:
        """The devices ("bus:name") by their nodes."""
        devices: dict[str, str] = {}
        for bus in known_first(self._sysfs.names("bus")):
            for name in self._sysfs.names("bus/%s/devices" % bus):
                target = self._sysfs.link("bus/%s/devices/%s/of_node" % (bus, name))
                if not target or name.endswith(".auto"):
                    continue
                path, device = target.partition("/" + TREE)[2], "%s:%s" % (bus, name)
                # A chip can have several devices, such as its GPIOs on a bus of their own, which
                # have no driver before Linux 5.13 (drivers/gpio/gpiolib.c).
                is_better = path not in devices or not self._is_bound(devices[path])
                if is_better and (path not in devices or self._is_bound(device)):
                    devices[path] = device
        return devices

    def _read_node(self, path: str, owner: str, interrupt_parent: int, tree: _Tree) -> None:
        listing = self._sysfs.listing(TREE + path)
        names = listing.others
        if "status" in names and not self._is_okay(path):
            return
        if "compatible" in names:
            # It is, or may be, a device of its own.
            owner = path
            if names & ENDS:
                tree.ends.add(path)
        if "interrupt-parent" in names:
            interrupt_parent = next(iter(self._cells(path, "interrupt-parent")), 0)
        if "interrupts" in names:
            tree.interrupts.append((path, interrupt_parent))
        if "phandle" in names:
            tree.paths.update(dict.fromkeys(self._cells(path, "phandle"), path))
            tree.owners[path] = owner
        if "remote-endpoint" in names:
            remote = next(iter(self._cells(path, "remote-endpoint")), 0)
            tree.endpoints.append(Endpoint(owner, path, remote))
        self._read_lists(path, names, tree)
        for child in listing.directories:
            # What dtc adds for overlays (__symbols__, __local_fixups__) names properties as well.
            if path or not child.startswith("__"):
                self._read_node("%s/%s" % (path, child), owner, interrupt_parent, tree)

    def _read_lists(self, path: str, names: set[str], tree: _Tree) -> None:
        # What a GPIO controller sets by itself is numbers of its own lines: parse_gpio_compat in
        # drivers/of/property.c.
        own = _OWN_LINES if not _HOGS.isdisjoint(names) else set()
        for name in sorted(names - self._no_lists - own):
            if size_name(name) is not None:
                tree.lists.append((path, name, self._cells(path, name)))
            elif may_share_registers(name):
                tree.of_vendors.append((path, name))
            else:
                # Few names make nearly all properties of a tree.
                self._no_lists.add(name)

    def _is_okay(self, path: str) -> bool:
        status = self._sysfs.strings(TREE + path + "/status")
        return not status or status[0] in ("okay", "ok")

    def _cells(self, path: str, name: str) -> Sequence[int]:
        content = self._sysfs.read_bytes("%s%s/%s" % (TREE, path, name)) or b""
        count = len(content) // 4
        return struct.unpack(">%dI" % count, content[: count * 4])

    def _named(self, name: str, cells: Sequence[int], paths: Mapping[int, str]) -> list[int]:
        """Return the phandles of a list; without what is not known, and all after it."""
        size = size_name(name)
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
            if size == FIRST:
                break
            if size:
                position += self._size(phandle, paths[phandle], size)
        return phandles

    def _size(self, phandle: int, path: str, name: str) -> int:
        key = (phandle, name)
        if key not in self._sizes:
            self._sizes[key] = next(iter(self._cells(path, name)), 0)
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
        return device if self._is_bound(device) else None

    def _is_bound(self, device: str) -> bool:
        home = "bus/%s/devices/%s" % tuple(device.split(":", 1))
        # Processors have no driver but that of their frequency.
        return bool(self._sysfs.link(home + "/driver")) or self._sysfs.exists(home + "/cpufreq")


def _is_within(path: str, other: str) -> bool:
    return (path + "/").startswith(other + "/")
