# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel uses a driver and its module for: kind of use ``consumers``. Reads only."""

from __future__ import annotations

import functools
from typing import NamedTuple, Sequence

from .. import _text
from .._system.processes import Processes
from .._system.sysfs import Sysfs
from .use_kind import counted


class DriverUse(NamedTuple):
    """What a driver is used for, in sentences.

    ``held`` is for a device of which nothing else tells a use: a count of references to the module
    that can mean no other device.
    """

    uses: Sequence[str]
    held: str | None


class DriverUses:
    """What the kernel uses drivers for; what concerns the whole machine is read once."""

    def __init__(self, sysfs: Sysfs, processes: Processes) -> None:
        self._sysfs = sysfs
        self._processes = processes
        self._of_drivers: dict[tuple[str, str], DriverUse] = {}

    def of_driver(self, bus: str, driver: str) -> DriverUse:
        """Return what the kernel uses a driver for, and so each device that is bound to it."""
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
        handlers_of: dict[str, list[str]] = {}
        processors = len(_text.words(lines[0])) if lines else 0
        for line in lines[1:]:
            words = _text.words(line)
            # Number, a count for each processor, chip, number in the chip, trigger.
            handlers = words[processors + 4 :]
            if handlers and _text.number(words[0][:-1]) is not None:
                handlers_of.setdefault(words[processors + 1], []).append(" ".join(handlers))
        return handlers_of

    def _read_driver(self, bus: str, driver: str) -> DriverUse:
        uses = []
        policies = self._frequency_drivers.get(driver)
        if policies:
            sentence = "its driver %s sets the frequency of the processors (%s)"
            uses.append(sentence % (driver, ", ".join(policies)))
        module = self._sysfs.link_name("bus/%s/drivers/%s/module" % (bus, driver))
        references = self._references(module) if module else 0
        if module is None or references <= 0:
            return DriverUse(uses, None)
        algorithms = self._algorithms.get(module)
        if algorithms:
            sentence = "the kernel uses %s of its driver's module %s"
            uses.append(sentence % (", ".join(algorithms), module))
        if self._bound_devices(module) != 1:
            return DriverUse(uses, None)
        sentence = "its driver's module %s is in use (%s), and no other device is bound to it"
        return DriverUse(uses, sentence % (module, counted(str(references), "reference")))

    def _references(self, module: str) -> int:
        """Return uses of a module besides those by modules that need it (module_refcount)."""
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
        used: dict[str, list[str]] = {}
        for block in self._processes.text("crypto").split("\n\n"):
            pairs = (line.partition(":") for line in _text.lines(block))
            fields = {_text.stripped(key): _text.stripped(value) for key, _colon, value in pairs}
            if fields.get("refcnt", "1") != "1":
                used.setdefault(fields.get("module", ""), []).append(fields.get("driver", ""))
        return used

    @functools.cached_property
    def _frequency_drivers(self) -> dict[str, list[str]]:
        """Policies of cpufreq, by the name of the driver that carries them out."""
        policies: dict[str, list[str]] = {}
        directory = "devices/system/cpu/cpufreq"
        for name in self._sysfs.names(directory):
            driver = self._sysfs.read("%s/%s/scaling_driver" % (directory, name))
            if driver:
                policies.setdefault(driver, []).append(name)
        return policies
