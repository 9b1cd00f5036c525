# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a driver of some name can be bound to a device, and how it is called. Reads only."""

from __future__ import annotations

from .._model.buses import BUSES, bus_of_vfio_driver
from .._model.device import Identity
from .._system.kmod import Kmod, canonical_name
from .._system.sysfs import Sysfs

NO_MODULES = (
    "%s is not registered, and %s. Install the package of that kernel, or reboot into an "
    "installed kernel, and run again"
)


def misnamed(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    """Return why no driver of that name can be bound to the device, as a sentence or two.

    None if there is one, and where one may be loaded later.
    """
    if sysfs.exists("bus/%s/drivers/%s" % (device.bus, driver)):
        return None
    return (
        _of_vfio(device, driver)
        or _on_another_bus(sysfs, device, driver)
        or _spelt_otherwise(sysfs, device, driver)
        or _name_of_a_module(sysfs, device, driver)
    )


def not_registered(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> str:
    """Return why there is no driver of that name now, as a sentence or two."""
    if not kmod.is_available(driver):
        without = kmod.without_modules()
        if without:
            return NO_MODULES % ("Driver %s for %s" % (driver, device.label), without)
        return (
            "Driver %s for %s does not exist here: no driver and no module has that name. List "
            "the drivers with 'ls /sys/bus/%s/drivers'" % (driver, device.label, device.bus)
        )
    module = canonical_name(driver)
    if sysfs.exists("module/" + module) or kmod.is_built_in(driver):
        return (
            "Driver %s for %s does not exist here: %s is the name of a loaded or built-in "
            "module, and the kernel does not expose the names of its drivers. List the drivers "
            "with 'ls /sys/bus/%s/drivers'" % (driver, device.label, driver, device.bus)
        )
    return (
        "Driver %s for %s is not loaded. Load its module with 'modprobe %s', and add the module "
        "to /etc/modules-load.d; the names of its drivers are unknown until then ('ls "
        "/sys/module/%s/drivers')" % (driver, device.label, driver, module)
    )


def _of_vfio(device: Identity, driver: str) -> str | None:
    """Return why it is not the driver that VFIO has for the device's bus."""
    own, asked = BUSES[device.bus].vfio_driver, driver.replace("_", "-")
    if asked == own:
        # The module's name, even before the module is loaded.
        return None if driver == own else _called_otherwise(device, driver, [own])
    bus = bus_of_vfio_driver(asked)
    if bus in (None, device.bus):
        return None
    if own is None:
        return "Driver %s is on the %s bus, but %s is on the %s bus, where VFIO has no driver" % (
            driver,
            bus,
            device.label,
            device.bus,
        )
    return (
        "Driver %s is on the %s bus, but %s is on the %s bus, where the VFIO driver is %s. Set "
        "`policy: vfio` in a list of host_policy, or use the module vfio_binding"
        % (driver, bus, device.label, device.bus, own)
    )


def _on_another_bus(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    for bus in sysfs.names("bus"):
        if sysfs.exists("bus/%s/drivers/%s" % (bus, driver)):
            return (
                "Driver %s is on the %s bus, but %s is on the %s bus. Use a driver from 'ls "
                "/sys/bus/%s/drivers'" % (driver, bus, device.label, device.bus, device.bus)
            )
    return None


def _spelt_otherwise(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    asked = canonical_name(driver)
    names = sysfs.names("bus/%s/drivers" % device.bus)
    spellings = [name for name in names if canonical_name(name) == asked]
    return _called_otherwise(device, driver, spellings) if spellings else None


def _name_of_a_module(sysfs: Sysfs, device: Identity, driver: str) -> str | None:
    # module_add_driver in drivers/base/module.c makes the links, named "bus:driver"; for a module
    # that is built in since Linux 7.
    links = sysfs.names("module/%s/drivers" % canonical_name(driver))
    drivers = [tuple(link.split(":", 1)) for link in links]
    here = [name for bus, name in drivers if bus == device.bus]
    if here:
        return _called_otherwise(device, driver, here)
    if not drivers:
        return None
    return (
        "Driver %s for %s does not exist here: the module of that name has no driver on the %s "
        "bus, but %s. List the drivers with 'ls /sys/bus/%s/drivers'"
        % (
            driver,
            device.label,
            device.bus,
            ", ".join("%s on the %s bus" % (name, bus) for bus, name in drivers),
            device.bus,
        )
    )


def _called_otherwise(device: Identity, driver: str, names: list[str]) -> str:
    own = BUSES[device.bus].vfio_driver
    return "Driver %s for %s does not exist here: on the %s bus it is called %s. %s" % (
        driver,
        device.label,
        device.bus,
        " or ".join(names),
        "Set `policy: vfio` in a list of host_policy, or `driver: %s` in driver_override" % own
        if names == [own]
        else "Set `driver: %s`" % names[0],
    )
