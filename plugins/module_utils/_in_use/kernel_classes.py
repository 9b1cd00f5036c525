# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel uses a device for, by what each class and its module tell. Reads only."""

from __future__ import annotations

import functools
import re
from typing import Callable, Mapping, NamedTuple, Sequence

from .. import _text
from .._system.processes import Processes
from .._system.sysfs import KernelBlockedError, Listing, Sysfs

# include/uapi/linux/if.h
_IFF_UP = 0x1


class Use(NamedTuple):
    """``kind`` is that of a hazard."""

    kind: str
    sentence: str


class DriverUse(NamedTuple):
    """What a driver is used for.

    ``held`` is for a device of which nothing else tells a use: a count of references to the module
    that can mean no other device.
    """

    uses: Sequence[Use]
    held: Use | None


class Entry(NamedTuple):
    """A device of a class or bus: its folder, its name, and what is in the folder."""

    sysfs: Sysfs
    path: str
    name: str
    listing: Listing

    def read(self, attribute: str) -> str:
        """An attribute that needs no lock; empty if it is not there."""
        return self.sysfs.read("%s/%s" % (self.path, attribute)) or ""

    def read_locked(self, attribute: str) -> str:
        """An attribute whose read can wait for a driver that hangs."""
        return self.sysfs.read_locked(["%s/%s" % (self.path, attribute)])[0] or ""


def use_of_entry(entry: Entry, subsystem: str) -> Use | None:
    """What the kernel uses a device of a class or bus for, if that class or bus tells."""
    look = _LOOKS.get(subsystem)
    try:
        return look(entry) if look else None
    except KernelBlockedError:
        return Use("consumers", "%s does not tell whether it is in use" % entry.name)


def _clock(entry: Entry) -> Use | None:
    # drivers/rtc/sysfs.c; an alarm is read under a lock of the rtc.
    if entry.read("hctosys") == "1":
        return Use("clock", "%s keeps the time that the system is set by" % entry.name)
    if "wakealarm" in entry.listing.others and entry.read_locked("wakealarm"):
        return Use("clock", "%s has an alarm set (wakealarm)" % entry.name)
    return None


def _remote_processor(entry: Entry) -> Use | None:
    # rproc_state_string in drivers/remoteproc/remoteproc_sysfs.c.
    state = entry.read("state")
    if state in ("", "offline", "invalid"):
        return None
    label = entry.read("name") or entry.name
    return Use("consumers", "remote processor %s (%s) is %s" % (entry.name, label, state))


def _regulator(entry: Entry) -> Use | None:
    # num_users_show in drivers/regulator/core.c.
    users = entry.read("num_users")
    if users in ("", "0"):
        return None
    return Use(
        "consumers",
        "%s (%s) supplies power, switched on by %s"
        % (entry.name, entry.read("name"), _count(users, "user")),
    )


def _pwm_chip(entry: Entry) -> Use | None:
    # pwm_export_child in drivers/pwm/core.c.
    exported = [name for name in entry.listing.folders if re.fullmatch(r"pwm\d+", name)]
    if not exported:
        return None
    return Use("consumers", "%s has exported %s" % (entry.name, ", ".join(exported)))


def _gpio_line(entry: Entry) -> Use | None:
    # A chip of this class has no value; gpiod_export in drivers/gpio/gpiolib-sysfs.c.
    if "value" not in entry.listing.others:
        return None
    return Use("consumers", "%s is exported to user space" % entry.name)


def _trace(entry: Entry) -> Use | None:
    # drivers/hwtracing/coresight/coresight-sysfs.c.
    for attribute in ("enable_source", "enable_sink"):
        if attribute in entry.listing.others and entry.read(attribute) not in ("", "0"):
            return Use("consumers", "%s is tracing (%s)" % (entry.name, attribute))
    return None


def _iio_device(entry: Entry) -> Use | None:
    # buffer is an older name of buffer0: drivers/iio/industrialio-buffer.c.
    for buffer in entry.listing.folders:
        if re.fullmatch(r"buffer\d*", buffer) and entry.read(buffer + "/enable") == "1":
            return Use("consumers", "%s is capturing (%s)" % (entry.name, buffer))
    return None


def _usb_device_controller(entry: Entry) -> Use | None:
    # function_show in drivers/usb/gadget/udc/core.c takes udc_lock.
    if "function" not in entry.listing.others:
        return None
    function = entry.read_locked("function")
    if not function:
        return None
    return Use("consumers", "USB gadget %s is bound to %s" % (function, entry.name))


def _framebuffer(entry: Entry) -> Use | None:
    # fbcon in drivers/video/fbdev/core/fbcon.c; which of several it shows is not told.
    for name in entry.sysfs.names("class/vtconsole"):
        console = "class/vtconsole/" + name
        if "frame buffer" in (entry.sysfs.read(console + "/name") or ""):
            bound = entry.sysfs.read_locked([console + "/bind"])[0]
            if bound == "1":
                return Use("console", "%s shows the virtual terminals" % entry.name)
    return None


def _virtio_port(entry: Entry) -> Use | None:
    # Terminals of hvc have no device above them: hvc_init in drivers/tty/hvc/hvc_console.c.
    consoles = _text.words(entry.sysfs.read("class/tty/console/active") or "")
    active = [console for console in consoles if console.startswith("hvc")]
    if not active:
        return None
    return Use("console", "%s may be the system console %s" % (entry.name, active[0]))


def _dax_device(entry: Entry) -> Use | None:
    # dev_dax_kmem_probe in drivers/dax/kmem.c.
    if entry.sysfs.link_name(entry.path + "/driver") != "kmem":
        return None
    return Use("consumers", "%s is part of the system's memory" % entry.name)


def _bluetooth(entry: Entry) -> Use | None:
    # hci_conn_add_sysfs in net/bluetooth/hci_sysfs.c.
    connections = [name for name in entry.listing.folders if name.startswith(entry.name + ":")]
    if not connections:
        return None
    sentence = "bluetooth controller %s has %s"
    return Use("network", sentence % (entry.name, _count(str(len(connections)), "connection")))


def _mdio_device(entry: Entry) -> Use | None:
    # phy_attach_direct in drivers/net/phy/phy_device.c.
    interface = entry.sysfs.link_name(entry.path + "/attached_dev")
    if interface is None:
        return None
    if not is_up(entry.sysfs, entry.path + "/attached_dev"):
        return None
    return Use("network", "network interface %s is up on its PHY %s" % (interface, entry.name))


def _tpm(entry: Entry) -> Use | None:
    # boot_aggregate alone is there without a policy: ima_add_boot_aggregate in
    # security/integrity/ima/ima_init.c.
    measured = entry.sysfs.read("kernel/security/ima/runtime_measurements_count") or "0"
    if measured in ("0", "1"):
        return None
    return Use("consumers", "IMA has %s measurements in %s" % (measured, entry.name))


def _tee(entry: Entry) -> Use | None:
    # Clients of the kernel; tee_device_unregister in drivers/tee/tee_core.c waits for all.
    clients = [
        name
        for name in entry.sysfs.names("bus/tee/devices")
        if entry.sysfs.link("bus/tee/devices/%s/driver" % name)
    ]
    if not clients:
        return None
    return Use("consumers", "%s serves %s" % (entry.name, ", ".join(clients)))


def _ipmi(entry: Entry) -> Use | None:
    # Its watchdog has no device of its own: drivers/char/ipmi/ipmi_watchdog.c.
    if not entry.sysfs.exists("module/ipmi_watchdog"):
        return None
    return Use("watchdog", "module ipmi_watchdog reaches its watchdog through %s" % entry.name)


def _pci_endpoint(entry: Entry) -> Use | None:
    # pci_epc_start_store in drivers/pci/endpoint/pci-ep-cfs.c.
    if entry.sysfs.read("kernel/config/pci_ep/controllers/%s/start" % entry.name) != "1":
        return None
    return Use("consumers", "%s is started as a PCI endpoint" % entry.name)


_LOOKS: Mapping[str, Callable[[Entry], Use | None]] = {
    "bluetooth": _bluetooth,
    "coresight": _trace,
    "dax": _dax_device,
    "gpio": _gpio_line,
    "graphics": _framebuffer,
    "iio": _iio_device,
    "ipmi": _ipmi,
    "mdio_bus": _mdio_device,
    "pci_epc": _pci_endpoint,
    "pwm": _pwm_chip,
    "regulator": _regulator,
    "remoteproc": _remote_processor,
    "rtc": _clock,
    "tee": _tee,
    "tpm": _tpm,
    "udc": _usb_device_controller,
    "virtio-ports": _virtio_port,
}


class KernelUse:
    """What the machine as a whole tells of devices by their drivers and names; read once."""

    def __init__(self, sysfs: Sysfs, processes: Processes) -> None:
        self._sysfs = sysfs
        self._processes = processes
        self._of_drivers: dict[tuple[str, str], DriverUse] = {}

    def of_driver(self, bus: str, driver: str) -> DriverUse:
        """What the kernel uses a driver for, and so each device that is bound to it."""
        key = (bus, driver)
        if key not in self._of_drivers:
            self._of_drivers[key] = self._read_driver(bus, driver)
        return self._of_drivers[key]

    @functools.cached_property
    def interrupts(self) -> dict[str, list[str]]:
        """Whose interrupts come through a chip, by its name, which often is that of its device.

        show_interrupts in kernel/irq/proc.c.
        """
        lines = _text.lines(self._processes.text("interrupts"))
        found: dict[str, list[str]] = {}
        processors = len(_text.words(lines[0])) if lines else 0
        for line in lines[1:]:
            words = _text.words(line)
            # Number, a count for each processor, chip, number in the chip, trigger.
            handlers = words[processors + 4 :]
            if handlers and _text.number(words[0][:-1]) is not None:
                found.setdefault(words[processors + 1], []).append(" ".join(handlers))
        return found

    def _read_driver(self, bus: str, driver: str) -> DriverUse:
        uses = []
        policies = self._frequency_drivers.get(driver)
        if policies:
            sentence = "its driver %s sets the frequency of the processors (%s)"
            uses.append(Use("consumers", sentence % (driver, ", ".join(policies))))
        module = self._sysfs.link_name("bus/%s/drivers/%s/module" % (bus, driver))
        references = self._references(module) if module else 0
        if module is None or references <= 0:
            return DriverUse(uses, None)
        algorithms = self._algorithms.get(module)
        if algorithms:
            sentence = "the kernel uses %s of its driver's module %s"
            uses.append(Use("consumers", sentence % (", ".join(algorithms), module)))
        if self._bound_devices(module) != 1:
            return DriverUse(uses, None)
        sentence = "its driver's module %s is in use (%s), and no other device is bound to it"
        counted = _count(str(references), "reference")
        return DriverUse(uses, Use("consumers", sentence % (module, counted)))

    def _references(self, module: str) -> int:
        """Uses of a module besides those by modules that need it (module_refcount)."""
        count = _text.number(self._sysfs.read("module/%s/refcnt" % module))
        holders = self._sysfs.names("module/%s/holders" % module)
        return 0 if count is None else count - len(holders)

    def _bound_devices(self, module: str) -> int:
        drivers = self._sysfs.names("module/%s/drivers" % module)
        return sum(
            self._sysfs.exists("bus/%s/devices/%s" % (bus, device))
            for bus, _colon, driver in (name.partition(":") for name in drivers)
            for device in self._sysfs.names("bus/%s/drivers/%s" % (bus, driver))
        )

    @functools.cached_property
    def _algorithms(self) -> dict[str, list[str]]:
        """Algorithms that somebody uses (cra_driver_name), by the module that provides them.

        refcnt begins at 1: crypto_check_alg in crypto/algapi.c.
        """
        found: dict[str, list[str]] = {}
        for block in self._processes.text("crypto").split("\n\n"):
            pairs = (line.partition(":") for line in _text.lines(block))
            fields = {_text.stripped(key): _text.stripped(value) for key, _colon, value in pairs}
            if fields.get("refcnt", "1") != "1":
                found.setdefault(fields.get("module", ""), []).append(fields.get("driver", ""))
        return found

    @functools.cached_property
    def _frequency_drivers(self) -> dict[str, list[str]]:
        """Policies of cpufreq, by the name of the driver that carries them out."""
        found: dict[str, list[str]] = {}
        home = "devices/system/cpu/cpufreq"
        for name in self._sysfs.names(home):
            driver = self._sysfs.read("%s/%s/scaling_driver" % (home, name))
            if driver:
                found.setdefault(driver, []).append(name)
        return found


def is_up(sysfs: Sysfs, path: str) -> bool:
    """Whether the network interface with this directory is up; so is one whose flags are odd.

    flags_show in net/core/net-sysfs.c.
    """
    flags = sysfs.read(path + "/flags")
    try:
        return flags is not None and bool(int(flags, 16) & _IFF_UP)
    except ValueError:
        return True


def _count(count: str, noun: str) -> str:
    return "%s %s%s" % (count, noun, "" if count == "1" else "s")
