# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drivers that bind a device before user space starts, and how to prevent it. Reads only."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .._model.buses import BUSES
from .._model.device import Identity
from .._system.files import Files
from .._system.kmod import Kmod, canonical_name
from .._system.sysfs import Sysfs
from .vfio import is_built_in, modalias

_SYMBOLS = "/proc/kallsyms"
# __initcall_name in include/linux/init.h: module, counter, line, function, level.
_INITCALL = re.compile(
    r" __initcall__kmod_(\w+?)__\d+_\d+_([A-Za-z_]\w*?)(?:early|rootfs|[0-7]s?)$", re.MULTILINE
)
# The modules of which one has a driver with another name: those for the screen that the firmware
# set up, in drivers/gpu/drm/tiny, since Linux 6.15 in drivers/gpu/drm/sysfb, and in
# drivers/video/fbdev. Until Linux 7 nothing in /sys tells which of them the kernel has.
_MODULES_OF_SCREENS = {
    "simple-framebuffer": ("simpledrm", "simplefb"),
    "efi-framebuffer": ("efidrm", "efifb"),
    "vesa-framebuffer": ("vesadrm", "vesafb"),
}


class BuiltinBinding(NamedTuple):
    """That a device has its native driver for a moment at each boot.

    ``parameter`` goes on the kernel's command line to prevent it; None if it is not known.
    """

    device: Identity
    driver: str
    parameter: str | None
    others: Sequence[str]

    @property
    def sentence(self) -> str:
        """The same in words, with what else they would do."""
        begin = (
            "%s is bound to %s at the start of each boot, before any udev rule runs, because "
            "that driver is built into the kernel" % (self.device.label, self.driver)
        )
        if self.parameter is None:
            return (
                "%s. To prevent this, add initcall_blacklist= with the driver's init function to "
                "the kernel command line; this kernel does not expose the function's name" % begin
            )
        return (
            "%s. To prevent this, add %s to the kernel command line. This also keeps the driver "
            "from other devices: %s"
            % (begin, self.parameter, ", ".join(self.others) or "none is bound to it now")
        )


def is_built_in_driver(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> bool:
    """Return whether a driver that is registered is part of the kernel."""
    module = sysfs.link_name("bus/%s/drivers/%s/module" % (device.bus, driver))
    if module is None and BUSES[device.bus].hides_owners:
        # A module's driver may not name its owner either.
        module = module_of(sysfs, kmod, device, driver)
        return not sysfs.exists("module/%s/initstate" % canonical_name(module))
    return module is None or is_built_in(sysfs, module)


def is_permanent_driver(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> bool:
    """Return whether neither a run nor a boot takes the device from a driver that is registered."""
    driver_dir = "bus/%s/drivers/%s" % (device.bus, driver)
    return (
        sysfs.exists(driver_dir)
        and not sysfs.exists(driver_dir + "/unbind")
        and is_built_in_driver(sysfs, kmod, device, driver)
    )


def module_of(sysfs: Sysfs, kmod: Kmod, device: Identity, driver: str) -> str:
    """Return the module of a driver without a link to it, as built-in ones before Linux 7.

    Nor has such a module aliases there (modules.builtin.modinfo has them since 6.18), and then
    it is taken to be one of the driver's name.
    """
    resolved = kmod.resolve(modalias(sysfs, device))
    return resolved[0] if len(resolved) == 1 else canonical_name(driver)


class BuiltinDrivers:
    """Knows which drivers are built in, and their init functions."""

    def __init__(self, sysfs: Sysfs, kmod: Kmod, files: Files) -> None:
        self._sysfs = sysfs
        self._kmod = kmod
        self._files = files
        self._functions: dict[str, list[str]] | None = None

    def of(self, device: Identity, driver: str | None) -> BuiltinBinding | None:
        """Return the binding of a device to its native ``driver``, if that is built in."""
        if driver is None:
            return None
        driver_dir = "bus/%s/drivers/%s" % (device.bus, driver)
        module = self._sysfs.link_name(driver_dir + "/module")
        if not self._sysfs.exists(driver_dir) or not is_built_in_driver(
            self._sysfs, self._kmod, device, driver
        ):
            return None
        modules = [module] if module else self._modules_of(device, driver)
        functions = [name for module in modules for name in self._init_functions().get(module, [])]
        parameter = "initcall_blacklist=" + functions[0] if len(functions) == 1 else None
        others = [
            name
            for name in self._sysfs.names(driver_dir)
            if name != device.name and self._sysfs.exists("bus/%s/devices/%s" % (device.bus, name))
        ]
        return BuiltinBinding(device, driver, parameter, others)

    def _modules_of(self, device: Identity, driver: str) -> list[str]:
        """Return the modules that a driver without a link to its own can be of."""
        known = _MODULES_OF_SCREENS.get(driver, ())
        return sorted({module_of(self._sysfs, self._kmod, device, driver), *known})

    def _init_functions(self) -> dict[str, list[str]]:
        if self._functions is None:
            self._functions = {}
            for module, function in _INITCALL.findall(self._files.read(_SYMBOLS) or ""):
                self._functions.setdefault(module, []).append(function)
        return self._functions
