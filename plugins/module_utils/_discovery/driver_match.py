# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a driver has a device, where it is not the override that says so. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES, BY_AMBA_ID, BY_BUS_ID, BY_NAME, BY_PCI_ID, is_vfio_driver
from .._model.device import Identity
from .._system.kmod import Kmod
from .._system.sysfs import Sysfs
from .vfio import is_built_in, modalias

OVERRIDE, COMPATIBLE, ACPI, AMBA, PCI, BUS_ID, NAME, MANUAL, UNKNOWN = (
    "override",
    "compatible",
    "acpi",
    BY_AMBA_ID,
    BY_PCI_ID,
    BY_BUS_ID,
    BY_NAME,
    "manual",
    "unknown",
)
# By how a modalias begins: drivers/of/device.c, drivers/acpi/device_sysfs.c, and the bus.
_KINDS = {"of": COMPATIBLE, "acpi": ACPI, **{name: bus.match_kind for name, bus in BUSES.items()}}


class Reason(NamedTuple):
    """By what a device came to its driver."""

    kind: str
    sentence: str


class Match(NamedTuple):
    """Why a driver has a device, whatever its override says now.

    ``module`` is that of the driver, None for one that is built in. udev loads it for the device
    if it ``is_claiming``.
    """

    reason: Reason
    module: str | None = None
    is_claiming: bool = False

    @property
    def is_manual(self) -> bool:
        return self.reason.kind == MANUAL


class Drivers:
    """The drivers that are there, and what they claim; modprobe is asked once of each."""

    def __init__(self, sysfs: Sysfs, kmod: Kmod) -> None:
        self._sysfs = sysfs
        self._kmod = kmod
        self._modules: dict[tuple[str, str], tuple[str | None, bool]] = {}
        self._claiming: dict[tuple[str, str], bool] = {}
        self._names: dict[str, list[str]] = {}

    def names(self, bus: str) -> list[str]:
        """Return the drivers of a bus."""
        if bus not in self._names:
            self._names[bus] = self._sysfs.names("bus/%s/drivers" % bus)
        return self._names[bus]

    def module(self, bus: str, driver: str) -> str | None:
        """Return the module of a driver that is there; None for one that is built in."""
        named, is_in_kernel = self._named_module(bus, driver)
        return None if is_in_kernel else named

    def _named_module(self, bus: str, driver: str) -> tuple[str | None, bool]:
        """Return the module that the kernel names, and whether it is built in.

        One that is built in is named since Linux 7.
        """
        key = bus, driver
        if key not in self._modules:
            named = self._sysfs.link_name("bus/%s/drivers/%s/module" % key)
            self._modules[key] = named, named is None or is_built_in(self._sysfs, named)
        return self._modules[key]

    def ask_at_once(self, bound: Sequence[tuple[Identity, str]]) -> None:
        """Have :meth:`match` know what kmod answers about many devices and their drivers."""
        modules = []
        unnamed = []
        for device, driver in bound:
            named, _is_in_kernel = self._named_module(device.bus, driver)
            if named:
                modules.append(named)
            elif not is_vfio_driver(driver, device.bus):
                unnamed.append(modalias(self._sysfs, device))
        self._kmod.resolve_at_once(unnamed)
        claiming = [module for asked in unnamed for module in self._kmod.resolve(asked)]
        self._kmod.built_in_at_once(claiming)
        self._kmod.aliases_at_once([*modules, *filter(self._kmod.is_built_in, claiming)])

    def match(self, device: Identity, driver: str) -> Match:
        """Return why that driver has the device."""
        module = self.module(device.bus, driver)
        if is_vfio_driver(driver, device.bus):
            return Match(_manual("%s claims no device by itself" % driver), module)
        if module and self._kmod.aliases(module) is None:
            return Match(_unknown(module), module, is_claiming=True)
        asked = modalias(self._sysfs, device)
        named, _is_in_kernel = self._named_module(device.bus, driver)
        for claiming in [named] if named else self._built_in_for(asked):
            reason = self._claimed(device, asked, claiming)
            if reason:
                return Match(reason, module, is_claiming=self._claims(claiming, asked))
        if _name(device, asked) == driver:
            return Match(
                Reason(NAME, ("the device's name, %s, is the driver's name") % driver), module
            )
        if module:
            return Match(_manual("the module %s does not claim it" % module), module)
        sentence = "the driver is built in, and the kernel does not expose why it matched"
        return Match(Reason(UNKNOWN, sentence))

    def _built_in_for(self, asked: str) -> list[str]:
        return [module for module in self._kmod.resolve(asked) if self._kmod.is_built_in(module)]

    def _claimed(self, device: Identity, asked: str, module: str) -> Reason | None:
        """Return what of the device the module claims first, in the kernel's order."""
        kind = _KINDS.get(asked.partition(":")[0], UNKNOWN)
        if kind == COMPATIBLE and device.compatible:
            head = asked.partition("C" + device.compatible[0])[0]
            for compatible in device.compatible:
                if self._claims(module, "%sC%s" % (head, compatible)):
                    return _by(kind, "its compatible %s" % compatible, module)
        if self._claims(module, asked):
            return _by(kind, asked, module)
        name = _name(device, asked)
        if self._claims(module, "%s:%s" % (device.bus, name)):
            return _by(NAME, "its name, %s" % name, module)
        return None

    def _claims(self, module: str, asked: str) -> bool:
        key = module, asked
        if key not in self._claiming:
            patterns = self._kmod.aliases(module) or ()
            self._claiming[key] = any(_text.is_like(asked, pattern) for pattern in patterns)
        return self._claiming[key]


def _by(kind: str, what: str, module: str) -> Reason:
    return Reason(kind, "the module %s claims %s" % (module, what))


def _manual(reason: str) -> Reason:
    sentence = (
        "%s: it was bound manually, with a driver_override that has since been cleared" % reason
    )
    return Reason(MANUAL, sentence)


def _unknown(module: str) -> Reason:
    sentence = "modinfo does not find the module %s, so what it claims is unknown" % module
    return Reason(UNKNOWN, sentence)


def _name(device: Identity, asked: str) -> str:
    """Return what platform_match in drivers/base/platform.c compares with names of drivers."""
    prefix, _colon, name = asked.partition(":")
    return name if _KINDS.get(prefix) == NAME else device.name
