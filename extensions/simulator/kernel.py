# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver core: what drivers/base does when user space writes to a bus.

Each of its errors is an OSError with the errno that the kernel gives.
"""

from __future__ import annotations

import errno
import fnmatch
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from .description import BUSES, EPROBE_DEFER, Driver, Habits
from .device import Device, DeviceLink
from .iommu import Groups
from .pci_ids import alias
from .provided import Provided
from .tree import Tree, failure

# driver_set_override in drivers/base/driver.c: the value and its end must fit into a page.
_LONGEST_OVERRIDE = 4094
_WRITE_ONLY = 0o200
_AWAITS = "waiting_for_supplier"
# Drivers that set driver_managed_dma: their devices do not affect who owns the IOMMU group.
_MANAGES_DMA = frozenset({("pci", "pcieport"), ("pci", "pci-stub")})
_ACTIONS = (b"add", b"remove", b"change", b"move", b"online", b"offline", b"bind", b"unbind")


class Subsystem(Protocol):
    """Callbacks of drivers that belong to a subsystem, as VFIO's drivers do."""

    def probe(self, driver: Driver, device: Device) -> int: ...

    def remove(self, device: Device) -> None: ...

    def claims(self, driver: Driver) -> bool: ...

    def is_idle(self, device: Device) -> bool: ...


class Kernel:
    """Buses, devices, drivers, and the links between devices, shown in ``tree``."""

    def __init__(self, tree: Tree, habits: Habits) -> None:
        self.tree = tree
        self.habits = habits
        self.groups = Groups(tree)
        self.provided = Provided(tree, _store_uevent)
        self.changed = threading.Condition()
        self.subsystems: list[Subsystem] = []
        self.send_event: Callable[[str, Device], None] | None = None
        self.devices: dict[tuple[str, str], Device] = {}
        self.drivers: dict[tuple[str, str], Driver] = {}
        self._autoprobe = dict.fromkeys(BUSES, True)
        self._deferred: dict[Device, None] = {}
        self._is_triggered = False
        self._made = 0
        for bus in BUSES:
            self._add_bus(bus)

    # Adding and removing devices and drivers.

    def add_device(self, device: Device) -> None:
        """Add a device and probe it at once, as at hotplug."""
        with self.changed:
            self.create_device(device)
            if self._autoprobe[device.bus]:
                self._attach(device)
            self._retry_deferred()

    def create_device(self, device: Device) -> None:
        """Add a device without a probe, as device_add does before a bus has set it up."""
        with self.changed:
            self._show_device(device)
            self.devices[device.bus, device.name] = device
            if self.habits.groups_at_boot:
                self.groups.join(device)
            self.announce("add", device)

    def attach(self, device: Device) -> None:
        """Probe a device with each matching driver, as device_attach in drivers/base/dd.c."""
        with self.changed:
            if device.driver is None:
                self._attach(device)
            self._retry_deferred()

    def remove_device(self, device: Device) -> None:
        """Remove a device, as the removal of a device tree overlay does."""
        with self.changed:
            if device.driver:
                self._release_locked(device)
            device.is_present = False
            del self.devices[device.bus, device.name]
            self._deferred.pop(device, None)
            self.groups.leave(device)
            for link in [*device.suppliers, *device.consumers]:
                self._drop_link(link)
            if device.acpi_home is not None:
                self.tree.remove(f"{device.acpi_home}/physical_node")
            self.tree.remove(f"bus/{device.bus}/devices/{device.name}")
            self.tree.remove(device.home)
            self.announce("remove", device)

    def register(self, driver: Driver) -> None:
        """Add a driver, and bind matching devices that have no driver to it."""
        with self.changed:
            self._show_driver(driver)
            self.drivers[driver.bus, driver.name] = driver
            if self._autoprobe[driver.bus]:
                for device in list(self.devices.values()):
                    if device.bus == driver.bus and not device.driver and matches(driver, device):
                        with self._holding(device):
                            self._try_or_defer(driver, device)
            self._retry_deferred()

    def unregister(self, driver: Driver) -> None:
        """Remove a driver, and unbind every device that is bound to it."""
        with self.changed:
            # bus_remove_driver in drivers/base/bus.c: no device can bind to it while it unbinds.
            del self.drivers[driver.bus, driver.name]
            if not driver.suppress_bind_attrs:
                for name in ("bind", "unbind"):
                    self.tree.remove(f"{_directory(driver)}/{name}")
            for device in list(self.devices.values()):
                if device.driver is driver:
                    self._release_locked(device)
            self.tree.remove(_directory(driver))
            shown = f"module/{driver.module}/drivers/{driver.bus}:{driver.name}"
            if self.tree.lookup(shown):
                self.tree.remove(shown)

    def link(self, supplier: Device, consumer: Device) -> None:
        """Make ``consumer`` depend on ``supplier``."""
        link = DeviceLink(supplier, consumer)
        supplier.consumers.append(link)
        consumer.suppliers.append(link)
        home = f"devices/virtual/devlink/{link.name}"
        self.tree.put(f"{home}/status", link.show_status)
        self.tree.point(f"{home}/supplier", link.supplier.home)
        self.tree.point(f"{home}/consumer", link.consumer.home)
        self.tree.point(f"class/devlink/{link.name}", home)
        self.tree.point(f"{supplier.home}/consumer:{consumer.bus}:{consumer.name}", home)
        self.tree.point(f"{consumer.home}/supplier:{supplier.bus}:{supplier.name}", home)

    def relax_links(self) -> None:
        """Stop waiting for suppliers without a driver, as Linux does some seconds after boot.

        See fw_devlink_drivers_done in drivers/base/core.c. This breaks cycles, too.
        """
        with self.changed:
            for device in self.devices.values():
                if device.driver is None and not self._driver_for(device):
                    _relax(device.consumers)
            self._is_triggered = True
            self._retry_deferred()
            while stuck := next((device for device in self._deferred if _is_waiting(device)), None):
                _relax(stuck.suppliers)
                self._is_triggered = True
                self._retry_deferred()

    # Writes from user space.

    def _store_override(self, device: Device, data: bytes) -> None:
        if len(data) > _LONGEST_OVERRIDE:
            raise failure(errno.EINVAL)
        with self.changed:
            if self.habits.override_locks:
                self._wait_for(device)
            device.override = _text(data) or None

    def _show_override(self, device: Device) -> bytes:
        if self.habits.override_locks:
            with self.changed:
                self._wait_for(device)
        return f"{device.override or '(null)'}\n".encode(errors="surrogateescape")

    def _store_bind(self, driver: Driver, data: bytes) -> None:
        with self.changed:
            device = self._named(driver.bus, data)
            if not matches(driver, device):
                raise failure(errno.ENODEV)
            with self._holding(device):
                outcome = abs(self._try(driver, device))
            self._retry_deferred()
        if outcome:
            raise failure(errno.EAGAIN if outcome == EPROBE_DEFER else outcome)

    def _store_unbind(self, driver: Driver, data: bytes) -> None:
        with self.changed:
            device = self._named(driver.bus, data)
            if device.driver is not driver:
                raise failure(errno.ENODEV)
            self._release_locked(device)

    def _store_probe(self, bus: str, data: bytes) -> None:
        with self.changed:
            device = self._named(bus, data)
            outcome = 0 if device.driver else self._attach(device)
            self._retry_deferred()
        if outcome < 0:
            raise failure(errno.EINVAL)

    def _store_autoprobe(self, bus: str, data: bytes) -> None:
        with self.changed:
            self._autoprobe[bus] = not data.startswith(b"0")

    def _named(self, bus: str, data: bytes) -> Device:
        device = self.devices.get((bus, _text(data, is_name=True)))
        if device is None:
            raise failure(errno.ENODEV)
        return device

    # The response of the kernel. A negative errno stops the search for a driver, a positive one
    # lets the next driver try (really_probe in drivers/base/dd.c).

    def _attach(self, device: Device) -> int:
        with self._holding(device):
            for driver in list(self.drivers.values()):
                if device.driver:
                    break
                if driver.bus == device.bus and matches(driver, device):
                    outcome = self._try_or_defer(driver, device)
                    if outcome < 0:
                        return outcome
        return 0

    def _try_or_defer(self, driver: Driver, device: Device) -> int:
        outcome = self._try(driver, device)
        if abs(outcome) == EPROBE_DEFER:
            self._deferred[device] = None
        return outcome

    def _try(self, driver: Driver, device: Device) -> int:
        if device.driver:
            return -errno.EBUSY
        if _is_waiting(device):
            return -EPROBE_DEFER
        subsystem = self._subsystem(driver)
        is_native = subsystem is None and (driver.bus, driver.name) not in _MANAGES_DMA
        refusal = self.groups.configure(device, is_native=is_native)
        if refusal:
            return -refusal
        self._show_bound(driver, device)
        refusal = device.refuse_probe() or driver.probe.get(device.name, driver.probe.get("*", 0))
        if not refusal and driver.waits_for and not self._is_bound(driver.waits_for):
            refusal = EPROBE_DEFER
        if subsystem and not refusal:
            refusal = subsystem.probe(driver, device)
        if refusal:
            self._hide_bound(driver, device)
            return refusal
        self._bound(driver, device)
        return 0

    def _is_bound(self, name: str) -> bool:
        return any(device.driver for device in self.devices.values() if device.name == name)

    def _bound(self, driver: Driver, device: Device) -> None:
        device.driver = driver
        # device_links_driver_bound in drivers/base/core.c
        if self.tree.find(f"{device.home}/{_AWAITS}"):
            self.tree.remove(f"{device.home}/{_AWAITS}")
        self._deferred.pop(device, None)
        for link in [link for link in device.suppliers if link.is_relaxed]:
            self._drop_link(link)
        for link in device.consumers:
            if link.consumer.driver is None and not link.is_relaxed:
                self._deferred[link.consumer] = None
        if self._subsystem(driver) is None:
            self.provided.show(device)
        if driver.makes:
            self._make(driver.makes, device)
        if device.offspring:
            device.offspring.appear(driver)
        self._is_triggered = True
        self.announce("bind", device)

    def _retry_deferred(self) -> None:
        while self._is_triggered:
            self._is_triggered = False
            waiting, self._deferred = list(self._deferred), {}
            for device in waiting:
                if self._autoprobe[device.bus] and device.held_by is None:
                    self._attach(device)

    def _release_locked(self, device: Device) -> None:
        driver = device.driver
        with self._holding(device):
            if device.driver and device.driver is driver:
                self._release(device)

    def _release(self, device: Device) -> None:
        driver = device.driver
        if driver is None:
            return
        for link in device.consumers:
            if link.consumer.driver and not link.is_relaxed:
                link.is_ending = True
                self._release_locked(link.consumer)
        if device.made:
            self.remove_device(device.made)
            device.made = None
        # Before remove() runs, so that sysfs shows no driver if it hangs there.
        self._hide_bound(driver, device)
        if device.offspring:
            device.offspring.vanish(driver)
        subsystem = self._subsystem(driver)
        if subsystem:
            subsystem.remove(device)
        else:
            self.provided.hide(device)
        self._take_time(driver.remove)
        device.driver = None
        for link in device.consumers:
            link.is_ending = False
        self.announce("unbind", device)

    def announce(self, action: str, device: Device) -> None:
        """Send an event of a device to user space."""
        if self.send_event:
            self.send_event(action, device)

    def is_idle(self, device: Device) -> bool:
        """Return whether a subsystem's driver has suspended the device, which nobody uses."""
        return any(subsystem.is_idle(device) for subsystem in self.subsystems)

    @contextmanager
    def locked(self, device: Device) -> Iterator[None]:
        """Hold the lock of a device."""
        with self.changed, self._holding(device):
            yield

    def _take_time(self, seconds: float) -> None:
        end = math.inf if seconds == math.inf else time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.changed.wait(None if left == math.inf else left)

    def _subsystem(self, driver: Driver) -> Subsystem | None:
        return next((subsystem for subsystem in self.subsystems if subsystem.claims(driver)), None)

    def _driver_for(self, device: Device) -> Driver | None:
        candidates = (driver for driver in self.drivers.values() if driver.bus == device.bus)
        return next((driver for driver in candidates if matches(driver, device)), None)

    @contextmanager
    def _holding(self, device: Device) -> Iterator[None]:
        self._wait_for(device)
        outer, device.held_by = device.held_by, threading.get_ident()
        try:
            yield
        finally:
            device.held_by = outer
            self.changed.notify_all()

    def _wait_for(self, device: Device) -> None:
        while device.held_by not in (None, threading.get_ident()):
            self.changed.wait()

    # The representation in sysfs.

    def _add_bus(self, bus: str) -> None:
        home = f"bus/{bus}"
        self.tree.make_directory(f"{home}/devices")
        self.tree.make_directory(f"{home}/drivers")
        self.tree.put(
            f"{home}/drivers_probe",
            mode=_WRITE_ONLY,
            store=lambda data: self._store_probe(bus, data),
        )
        self.tree.put(
            f"{home}/drivers_autoprobe",
            lambda: b"1\n" if self._autoprobe[bus] else b"0\n",
            0o644,
            lambda data: self._store_autoprobe(bus, data),
        )

    def _show_device(self, device: Device) -> None:
        home = device.home
        self.tree.make_directory(home)
        self.tree.point(f"bus/{device.bus}/devices/{device.name}", home)
        self.tree.point(f"{home}/subsystem", f"bus/{device.bus}")
        self.tree.put(
            f"{home}/driver_override",
            lambda: self._show_override(device),
            0o644,
            lambda data: self._store_override(device, data),
        )
        self.tree.put(f"{home}/uevent", lambda: uevent(device), 0o644, _store_uevent)
        for name, file in device.files.items():
            self.tree.add(f"{home}/{name}", file)
        if device.of_path is not None:
            self.tree.point(f"{home}/of_node", f"firmware/devicetree/base{device.of_path}")
        if device.of_path is not None or device.acpi_home is not None:
            self.tree.put(f"{home}/{_AWAITS}", lambda: b"1\n" if _is_waiting(device) else b"0\n")
        if device.bus == "amba":
            self.tree.put(f"{home}/id", f"{(device.amba_id or '').lower()}\n")
        else:
            lines = [*device.other_modaliases, device.modalias]
            self.tree.put(f"{home}/modalias", "".join(f"{line}\n" for line in lines))
        if device.acpi_home is not None:
            self.tree.point(f"{home}/firmware_node", device.acpi_home)
            self.tree.point(f"{device.acpi_home}/physical_node", home)
        elif device.acpi_path is not None:
            self.tree.put(f"{home}/firmware_node/path", device.acpi_path + "\n")
            self.tree.put(f"{home}/firmware_node/hid", f"{device.hid}\n")

    def _show_driver(self, driver: Driver) -> None:
        home = _directory(driver)
        self.tree.make_directory(home)
        if not driver.suppress_bind_attrs:
            for name, store in (("bind", self._store_bind), ("unbind", self._store_unbind)):
                self.tree.put(
                    f"{home}/{name}",
                    mode=_WRITE_ONLY,
                    store=partial(store, driver),
                )
        if driver.module and self.tree.find(f"module/{driver.module}/initstate"):
            self.tree.point(f"{home}/module", f"module/{driver.module}")
            self.tree.point(f"module/{driver.module}/drivers/{driver.bus}:{driver.name}", home)

    def _show_bound(self, driver: Driver, device: Device) -> None:
        self.tree.point(f"{device.home}/driver", _directory(driver))
        self.tree.point(f"{_directory(driver)}/{device.name}", device.home)

    def _hide_bound(self, driver: Driver, device: Device) -> None:
        self.tree.remove(f"{device.home}/driver")
        self.tree.remove(f"{_directory(driver)}/{device.name}")

    def _make(self, name: str, parent: Device) -> None:
        number = 0
        while (parent.bus, f"{name}.{number}.auto") in self.devices:
            number += 1
        own = f"{name}.{number}.auto"
        parent.made = Device(own, "platform", f"{parent.home}/{own}", f"platform:{name}")
        self.add_device(parent.made)

    def _drop_link(self, link: DeviceLink) -> None:
        link.supplier.consumers.remove(link)
        link.consumer.suppliers.remove(link)
        self.tree.remove(f"class/devlink/{link.name}")
        self.tree.remove(f"devices/virtual/devlink/{link.name}")
        consumer, supplier = link.consumer, link.supplier
        self.tree.remove(f"{supplier.home}/consumer:{consumer.bus}:{consumer.name}")
        self.tree.remove(f"{consumer.home}/supplier:{supplier.bus}:{supplier.name}")


def matches(driver: Driver, device: Device) -> bool:
    """Return whether a driver matches, as platform_match, amba_match and pci_bus_match do."""
    if not device.is_matchable:
        return False
    if device.override is not None:
        return device.override == driver.name
    return (
        not set(driver.compatible).isdisjoint(device.compatible)
        or not {device.hid, *device.cids}.isdisjoint(driver.hids)
        or device.amba_id in driver.amba_ids
        or device.name in driver.devices
        or matches_modalias(driver, device.modalias)
    )


def matches_modalias(driver: Driver, modalias: str) -> bool:
    """Return whether an id of the driver matches a PCI function; those of VFIO never do."""
    return any(fnmatch.fnmatchcase(modalias, alias(identifier)) for identifier in driver.pci_ids)


def _is_waiting(device: Device) -> bool:
    return any(link.supplier.driver is None for link in device.suppliers if not link.is_relaxed)


def _relax(links: Sequence[DeviceLink]) -> None:
    for link in links:
        link.is_relaxed = True


def _directory(driver: Driver) -> str:
    return f"bus/{driver.bus}/drivers/{driver.name}"


def _text(data: bytes, *, is_name: bool = False) -> str:
    """Return what the kernel uses of a write: up to a NUL, of an override up to a newline too."""
    text = data.partition(b"\0")[0]
    text = re.sub(rb"\n\Z", b"", text) if is_name else text.partition(b"\n")[0]
    return text.decode(errors="surrogateescape")


def _store_uevent(data: bytes) -> None:
    """kobject_synth_uevent in lib/kobject_uevent.c."""
    if re.sub(rb"\n\Z", b"", data.partition(b" ")[0]) not in _ACTIONS:
        raise failure(errno.EINVAL)


def uevent(device: Device) -> bytes:
    """Return the uevent file of a device: a line per property, more if a name has newlines."""
    return "".join(line + "\n" for line in uevent_properties(device)).encode()


def uevent_properties(device: Device) -> list[str]:
    """Return the properties of a device in an event of the kernel, each as 'KEY=value'."""
    driver = [f"DRIVER={device.driver.name}"] if device.driver else []
    amba = [f"AMBA_ID={device.amba_id}"] if device.bus == "amba" else []
    own = [*amba, *device.bus_properties]
    return [*driver, *device.of_properties, *own, f"MODALIAS={device.modalias}"]
