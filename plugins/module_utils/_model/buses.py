# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The buses whose devices have a driver_override: one entry for each. Pure data."""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

# What a device's own modalias names it by: its name, or an id of its hardware.
BY_NAME, BY_AMBA_ID = "name", "amba"

_FIRMWARE = ("dt_path", "compatible", "acpi_path", "acpi_hid")

# Returns the content of an attribute of a device, or None.
ReadAttribute = Callable[[str], "str | None"]


def _modalias(read: ReadAttribute) -> str:
    return read("modalias") or ""


def _amba_modalias(read: ReadAttribute) -> str:
    # amba_uevent in drivers/amba/bus.c makes it of the id, and there is no modalias file.
    return "amba:d%s" % (read("id") or "").upper()


class Bus(NamedTuple):
    """A bus, and everything in which it differs from the others.

    ``name`` is that in /sys/bus, ``title`` that in messages. ``vfio_driver`` is None if VFIO has no
    driver for its devices; ``vfio_needs`` are the modules that the module of that driver depends
    on. If it ``vfio_resets``, it asks for a function that resets the device, unless its parameter
    reset_required is off. ``identified_by`` are the fields of Identity that firmware can give its
    devices; if firmware gives none, drivers are matched by what ``match_kind`` says. If the bus
    ``hides_owners``, a driver of a module can look like one that is built in.
    """

    name: str
    title: str
    vfio_driver: str | None = None
    vfio_needs: Sequence[str] = ()
    vfio_resets: bool = False
    identified_by: Sequence[str] = _FIRMWARE
    match_kind: str = BY_NAME
    modalias: Callable[[ReadAttribute], str] = _modalias
    hides_owners: bool = False

    @property
    def vfio_module(self) -> str:
        """The module of its VFIO driver as the kernel spells it; empty if it has none."""
        return (self.vfio_driver or "").replace("-", "_")


_ALL = (
    Bus(
        "platform",
        "platform",
        vfio_driver="vfio-platform",
        vfio_needs=("vfio_platform_base", "vfio"),
        vfio_resets=True,
    ),
    Bus(
        "amba",
        "AMBA",
        vfio_driver="vfio-amba",
        vfio_needs=("vfio_platform_base", "vfio"),
        match_kind=BY_AMBA_ID,
        modalias=_amba_modalias,
        # Before Linux 6.9 (amba_driver_register).
        hides_owners=True,
    ),
)

BUSES = {bus.name: bus for bus in _ALL}
# By bus, for those that have one.
VFIO_DRIVERS = {bus.name: bus.vfio_driver for bus in _ALL if bus.vfio_driver}
# The one whose VFIO driver has the parameter reset_required.
RESETTING = next(bus for bus in _ALL if bus.vfio_resets)


def is_vfio_driver(driver: str | None, bus: str) -> bool:
    """Return whether ``driver`` is the VFIO driver of that bus."""
    return driver is not None and driver == BUSES[bus].vfio_driver


def titles(last: str) -> str:
    """Return the buses as messages list them; ``last``, such as "or", is before the last one."""
    *others, end = [bus.title for bus in _ALL]
    return "%s %s %s" % (", ".join(others), last, end)
