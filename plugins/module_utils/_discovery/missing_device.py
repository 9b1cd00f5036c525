# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a selector matches no device, though firmware may know one. Reads only."""

from __future__ import annotations

import functools

from .. import _text
from .._model.buses import BUSES, titles
from .._model.selector import Selector, proper_entry
from .._system.sysfs import Sysfs
from .devices import snapshot

_TREE = "firmware/devicetree/base"
_ACPI = "bus/acpi/devices"
_HANDLED = titles("and")
_NO_DEVICE = "no device of a supported bus"
_NO_TREE = "this machine did not boot with a device tree; use acpi_path, acpi_hid or name"
_NO_ACPI = "this machine did not boot with ACPI; use dt_path, compatible or name"
_NO_PCI = "this machine has no PCI functions"
_NOBODY = _NO_DEVICE + " has it"
# Nodes whose children the kernel itself makes devices of: of_default_bus_match_table in
# drivers/of/platform.c.
_POPULATED = {"simple-bus", "simple-mfd", "isa", "arm,amba-bus"}
_SHOWN = 4
# ACPI 6.5, section 6.3.7: _STA.
_PRESENT, _ENABLED, _FUNCTIONING = 1, 2, 8


class MissingDevices:
    """Explains selectors that match no device; what all of them need is read once."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def explain(self, selector: Selector, resolved: Selector) -> str:
        """Return why the selector matches no device of our buses, as a clause.

        ``resolved`` is the selector with its reference followed.
        """
        if resolved.acpi_uid is not None and self._uids(resolved.value):
            return "the devices with that acpi_hid have acpi_uid %s" % _text.listed(
                self._uids(resolved.value), _SHOWN
            )
        reason = resolved.explain_missing(self)
        if selector.reference:
            return "it resolves to %s, and %s" % (resolved.value, reason)
        proper = proper_entry(resolved.kind, resolved.value)
        return "%s; %s" % (reason, proper) if proper else reason

    def _uids(self, hid: str) -> list[str]:
        """Return the _UID of each device with this hardware id."""
        devices = snapshot(self._sysfs, ("acpi_hid", "acpi_uid"))
        uids = [device.acpi_uid or "none" for device in devices if device.acpi_hid == hid]
        return sorted(map(_text.printable, uids))

    def of_path(self, dt_path: str) -> str:
        if not self._has_tree:
            return _NO_TREE
        if not self._sysfs.exists(_TREE + dt_path):
            return "the device tree has no such node; list them with 'ls %s'" % self._nearest(
                dt_path
            )
        return self._of_node(dt_path)

    def of_compatible(self, compatible: str) -> str:
        if not self._has_tree:
            return "%s: %s" % (_NOBODY, _NO_TREE)
        paths = self._nodes.get(compatible, [])
        if not paths:
            return _NOBODY
        by_reason: dict[str, list[str]] = {}
        for path in paths:
            by_reason.setdefault(self._of_node(path), []).append(path)
        return "%s has it, but it is listed by %s of the device tree: %s" % (
            _NO_DEVICE,
            "a node" if len(paths) == 1 else "%d nodes" % len(paths),
            "; ".join(
                "%s: %s" % (_text.listed(where, _SHOWN), reason)
                for reason, where in by_reason.items()
            ),
        )

    def of_acpi(self, attribute: str, value: str) -> str:
        known = self._sysfs.names(_ACPI)
        if not known:
            return "%s: %s" % (_NOBODY, _NO_ACPI)
        by_reason: dict[str, list[str]] = {}
        for name in known:
            directory = "%s/%s" % (_ACPI, name)
            if self._sysfs.read("%s/%s" % (directory, attribute)) == value:
                path = self._sysfs.read(directory + "/path") or name
                by_reason.setdefault(self._of_acpi_device(directory), []).append(path)
        if not by_reason:
            return "%s; 'cat /sys/bus/acpi/devices/*/%s' lists them" % (_NOBODY, attribute)
        return "%s has it, but ACPI lists %s" % (
            _NO_DEVICE,
            "; ".join(
                "%s: %s" % (_text.listed(where, _SHOWN), reason)
                for reason, where in by_reason.items()
            ),
        )

    def _of_acpi_device(self, directory: str) -> str:
        status = _text.number(self._sysfs.read(directory + "/status"))
        if status is not None:
            # acpi_device_is_present and acpi_device_is_enabled in drivers/acpi/scan.c.
            if not status & (_PRESENT | _FUNCTIONING):
                return (
                    "its _STA is %s (not present), so the kernel creates no device for it"
                ) % status
            if not status & _ENABLED:
                return (
                    "its _STA is %s (not enabled), so the kernel creates no device for it"
                ) % status
        for entry in self._sysfs.names(directory):
            bus = self._sysfs.link_name("%s/%s/subsystem" % (directory, entry))
            if entry.startswith("physical_node") and bus:
                return _on_bus(self._sysfs.link_name("%s/%s" % (directory, entry)) or "", bus)
        return "the kernel created no device for it"

    def of_name(self, device_name: str) -> str:
        buses = [
            bus
            for bus in self._sysfs.names("bus")
            if self._sysfs.exists("bus/%s/devices/%s" % (bus, device_name))
        ]
        if not buses:
            return _NOBODY
        if buses[0] in BUSES:
            return "its device is on the %s bus" % buses[0]
        return _on_bus(device_name, buses[0])

    def of_pci_address(self, address: str) -> str:
        if not self._functions:
            return _NO_PCI
        same = [name for name in self._functions if name[:-1] == address[:-1]]
        if same:
            return "the device at it has only %s" % _text.listed(same, _SHOWN)
        return "no PCI function has it; 'lspci -D' lists them"

    def of_pci_id(self, pci_id: str) -> str:
        if not self._functions:
            return _NO_PCI
        card = [
            "%s (%s)" % (name, ids[-1])
            for name, ids in self._functions.items()
            if pci_id[:9] in ids[:1]
        ]
        if card:
            return "cards of that vendor and device have other subsystems: %s" % _text.listed(
                card, _SHOWN
            )
        return "no PCI function has it; 'lspci -Dnn' lists them"

    @functools.cached_property
    def _functions(self) -> dict[str, tuple[str, ...]]:
        """The ids of all PCI functions, by address."""
        devices = snapshot(self._sysfs, ("pci_id",))
        return {device.name: device.pci_id for device in devices if device.pci_address}

    def _of_node(self, dt_path: str) -> str:
        """Return why a node that is there has no device of our buses."""
        disabled = self._disabled_ancestor(dt_path)
        if disabled:
            return "its node exists, but is below %s, whose status is not okay" % disabled
        status = self._sysfs.strings(_TREE + dt_path + "/status")
        if status and status[0] not in ("okay", "ok"):
            return (
                "its node exists, but its status is %r, so the kernel creates no device for it"
                % status[0]
            )
        bus, name = self._device_at(dt_path)
        if bus not in (None, *BUSES):
            return _on_bus(name, bus)
        if not self._sysfs.exists(_TREE + dt_path + "/compatible"):
            return "its node exists, but has no compatible, so the kernel creates no device for it"
        parent = dt_path.rpartition("/")[0]
        if parent and not _POPULATED & set(self._sysfs.strings(_TREE + parent + "/compatible")):
            return (
                "its node exists, but its parent %s is not a bus for whose children the kernel "
                "creates devices (simple-bus, simple-mfd); only the parent's driver could%s"
                % (parent, self._of_parent(parent))
            )
        return (
            "its node exists, but the kernel created no device for it, as for interrupt "
            "controllers, early clocks and reserved memory"
        )

    def _of_parent(self, dt_path: str) -> str:
        bus, name = self._device_at(dt_path)
        if bus is None:
            return ", and the parent has no device either"
        driver = self._sysfs.link_name("bus/%s/devices/%s/driver" % (bus, name))
        return ", and %s device %s %s" % (
            bus,
            name,
            "is bound to %s, which created none" % driver if driver else "is not bound to a driver",
        )

    def _device_at(self, dt_path: str) -> tuple[str | None, str]:
        """Return bus and name of the device of a node; (None, "") if it has none."""
        return self._devices.get(dt_path, (None, ""))

    @functools.cached_property
    def _devices(self) -> dict[str, tuple[str, str]]:
        devices: dict[str, tuple[str, str]] = {}
        for bus in self._sysfs.names("bus"):
            for name in self._sysfs.names("bus/%s/devices" % bus):
                node = self._sysfs.link("bus/%s/devices/%s/of_node" % (bus, name)) or ""
                devices.setdefault(node.partition("/" + _TREE)[2], (bus, name))
        return devices

    @functools.cached_property
    def _has_tree(self) -> bool:
        # With ACPI there is a tree as well, but it describes no machine.
        return self._sysfs.exists(_TREE + "/compatible")

    @functools.cached_property
    def _nodes(self) -> dict[str, list[str]]:
        """The paths of nodes by each of their compatibles."""
        paths: dict[str, list[str]] = {}
        waiting = [""]
        while waiting:
            path = waiting.pop()
            for compatible in self._sysfs.strings(_TREE + path + "/compatible"):
                paths.setdefault(compatible, []).append(path or "/")
            below = self._sysfs.list_directories(_TREE + path)
            waiting += ["%s/%s" % (path, name) for name in reversed(below)]
        return paths

    def _disabled_ancestor(self, dt_path: str) -> str | None:
        ancestor = dt_path.rpartition("/")[0]
        while ancestor:
            status = self._sysfs.strings(_TREE + ancestor + "/status")
            if status and status[0] not in ("okay", "ok"):
                return ancestor
            ancestor = ancestor.rpartition("/")[0]
        return None

    def _nearest(self, dt_path: str) -> str:
        parent = dt_path
        while parent and not self._sysfs.exists(_TREE + parent):
            parent = parent.rpartition("/")[0]
        return "/proc/device-tree" + parent


def _on_bus(name: str, bus: str | None) -> str:
    return "its device is %s on the %s bus; this collection supports %s" % (name, bus, _HANDLED)
