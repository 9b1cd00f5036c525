# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The buses whose devices have a driver_override: one entry for each. Pure data."""

from __future__ import annotations

from typing import Callable, Iterable, NamedTuple, Sequence

# What a device's own modalias names it by: its name, or an id of its hardware.
BY_NAME, BY_AMBA_ID, BY_PCI_ID, BY_BUS_ID = "name", "amba", "pci", "id"

# What gives a device its interrupts by message.
BY_NODE, BY_BRIDGE, NO_MESSAGES = "node", "bridge", "none"

PCI = "pci"

_FIRMWARE = ("dt_path", "compatible", "acpi_path", "acpi_hid", "acpi_uid")
# The ends of the names of drivers for devices of some vendors, as mlx5_vfio_pci, whose modules have
# an alias that begins with "vfio_pci:" (PCI_DRIVER_OVERRIDE_DEVICE_VFIO in include/linux/pci.h).
_VARIANTS = ("-vfio-pci", "_vfio_pci")

# Returns the content of an attribute of a device, or None.
ReadAttribute = Callable[[str], "str | None"]


def _modalias(read: ReadAttribute) -> str:
    # A device of ACPI with ids and compatibles has a line for each; an event has the last one
    # (__acpi_device_modalias and __acpi_device_uevent_modalias in drivers/acpi/device_sysfs.c).
    return (read("modalias") or "").rpartition("\n")[2]


def _amba_modalias(read: ReadAttribute) -> str:
    # amba_uevent in drivers/amba/bus.c makes it of the id, and there is no modalias file.
    return "amba:d%s" % (read("id") or "").upper()


class Unit(NamedTuple):
    """What VFIO takes on a bus of which it does not take every device.

    ``names`` is a pattern of fnmatch for the names of such devices, ``taken`` what they are, and
    ``remedy`` what to do about a device with another name, as a sentence. If it ``has_others``, the
    devices below it on the bus are there only while it has a driver, and are VFIO's with it.
    """

    names: str
    taken: str
    remedy: str
    has_others: bool = False


class Deprecation(NamedTuple):
    """What the kernel logs when its code is used first, without its mark "DEPRECATION: ".

    It does so from the version ``since`` on, and no more from ``until`` on; None if no end is
    known.
    """

    text: str
    since: tuple[int, int]
    until: tuple[int, int] | None = None

    def holds_for(self, version: tuple[int, int] | None) -> bool:
        """Return whether a kernel of that version logs it; false if the version is unknown."""
        return (
            version is not None
            and version >= self.since
            and (self.until is None or version < self.until)
        )


class Bus(NamedTuple):
    """A bus, and everything in which it differs from the others.

    ``name`` is that in /sys/bus, ``title`` that in messages. ``vfio_driver`` is None if VFIO has no
    driver for its devices; ``vfio_needs`` are the modules that the module of that driver depends
    on. If it ``vfio_resets``, it asks for a function that resets the device, unless its parameter
    reset_required is off; ``vfio_variants`` are the ends of the names of drivers that VFIO has for
    some devices alone. If it ``vfio_needs_firmware``, that driver takes no device of which firmware
    says nothing; if there is a ``vfio_unit``, it takes only such devices. ``vfio_defect`` is why
    that driver may reject every device (EINVAL), with a remedy; ``vfio_deprecation`` is what the
    kernel says of it. ``messages_by`` is what gives its devices interrupts by message, None if only
    the kernel knows. ``identified_by`` are the fields of
    Identity that its devices can have; if firmware gives none, drivers are matched by what
    ``match_kind`` says. If the bus ``hides_owners``, a driver of a module can look like one that is
    built in. If it ``has_chips``, each of its devices is a chip behind the controller above it.
    """

    name: str
    title: str
    vfio_driver: str | None = None
    vfio_needs: Sequence[str] = ()
    vfio_resets: bool = False
    vfio_variants: tuple[str, ...] = ()
    vfio_needs_firmware: bool = True
    vfio_unit: Unit | None = None
    vfio_defect: str | None = None
    vfio_deprecation: Deprecation | None = None
    messages_by: str | None = None
    identified_by: Sequence[str] = _FIRMWARE
    match_kind: str = BY_NAME
    modalias: Callable[[ReadAttribute], str] = _modalias
    hides_owners: bool = False
    has_chips: bool = False

    @property
    def vfio_module(self) -> str:
        """The module of its VFIO driver as the kernel spells it; empty if it has none."""
        return (self.vfio_driver or "").replace("-", "_")

    def has_vfio_driver(self, driver: str) -> bool:
        """Return whether ``driver`` is one of VFIO's for this bus."""
        return driver == self.vfio_driver or driver.endswith(self.vfio_variants or "/")

    def has_vfio_module(self, module: str) -> bool:
        """Return whether ``module``, with "-" or "_", is that of one of its VFIO drivers."""
        name = module.replace("-", "_")
        return bool(name) and (name == self.vfio_module or self.has_vfio_driver(name))


_ALL = (
    Bus(
        "platform",
        "platform",
        vfio_driver="vfio-platform",
        vfio_needs=("vfio_platform_base", "vfio"),
        vfio_resets=True,
        # of_msi_configure in drivers/of/irq.c.
        messages_by=BY_NODE,
    ),
    Bus(
        "amba",
        "AMBA",
        vfio_driver="vfio-amba",
        vfio_needs=("vfio_platform_base", "vfio"),
        # vfio_amba_probe in drivers/vfio/platform/vfio_amba.c.
        vfio_deprecation=Deprecation(
            "vfio-amba is deprecated and will be removed in a future kernel release", (6, 18)
        ),
        # of_amba_device_create in drivers/of/platform.c.
        messages_by=NO_MESSAGES,
        match_kind=BY_AMBA_ID,
        modalias=_amba_modalias,
        # Before Linux 6.9 (amba_driver_register).
        hides_owners=True,
    ),
    Bus(
        PCI,
        "PCI",
        vfio_driver="vfio-pci",
        vfio_needs=("vfio_pci_core", "vfio"),
        vfio_variants=_VARIANTS,
        # pci_set_msi_domain in drivers/pci/probe.c.
        messages_by=BY_BRIDGE,
        vfio_needs_firmware=False,
        identified_by=(*_FIRMWARE, "pci_id"),
        match_kind=BY_PCI_ID,
    ),
    Bus(
        "fsl-mc",
        "fsl-mc",
        vfio_driver="vfio-fsl-mc",
        vfio_needs=("vfio",),
        vfio_needs_firmware=False,
        # vfio_fsl_mc_probe in drivers/vfio/fsl-mc, which binds to the objects as well; dprc_remove
        # in drivers/bus/fsl-mc, which removes them.
        vfio_unit=Unit(
            "dprc.*",
            "a container (dprc) with all objects in it",
            "Select a container that has the objects for user space, and no others",
            has_others=True,
        ),
        # vfio_fsl_mc_probe; Linux 7.0 took it back.
        vfio_deprecation=Deprecation(
            "vfio-fsl-mc is deprecated and will be removed in a future kernel release",
            (6, 18),
            (7, 0),
        ),
        identified_by=(),
        match_kind=BY_BUS_ID,
    ),
    Bus(
        "cdx",
        "CDX",
        vfio_driver="vfio-cdx",
        vfio_needs=("vfio",),
        vfio_needs_firmware=False,
        # The device of a bus, cdx-00, matches no driver: cdx_bus_match in drivers/cdx/cdx.c.
        vfio_unit=Unit("cdx-*:*", "the devices of a bus (cdx-00:00)", "Select these devices"),
        # __vfio_register_dev in drivers/vfio/vfio_main.c, since Linux 6.6.
        vfio_defect="vfio-cdx of Linux 6.6 to at least 7.2 lacks detach_ioas, which kernels with "
        "CONFIG_IOMMUFD require of VFIO drivers. Use a kernel without CONFIG_IOMMUFD, or one whose "
        "vfio-cdx has it",
        identified_by=(),
        match_kind=BY_BUS_ID,
    ),
    Bus("spi", "SPI", has_chips=True),
    Bus("rpmsg", "rpmsg", identified_by=()),
    Bus("vmbus", "VMBus", identified_by=(), match_kind=BY_BUS_ID),
)

BUSES = {bus.name: bus for bus in _ALL}
# By bus, for those that have one.
VFIO_DRIVERS = {bus.name: bus.vfio_driver for bus in _ALL if bus.vfio_driver}
# What udev can compare the driver of a device with to know that it is one of VFIO's.
VFIO_DRIVER_PATTERNS = (
    *VFIO_DRIVERS.values(),
    *("*" + end for bus in _ALL for end in bus.vfio_variants),
)
# The one whose VFIO driver has the parameter reset_required.
RESETTING = next(bus for bus in _ALL if bus.vfio_resets)


def known_first(names: Iterable[str]) -> list[str]:
    """Return the names of all buses, those of BUSES first, whether or not they are among them."""
    return [*BUSES, *(name for name in names if name not in BUSES)]


def is_vfio_driver(driver: str | None, bus: str) -> bool:
    """Return whether ``driver`` is a VFIO driver of that bus."""
    return driver is not None and BUSES[bus].has_vfio_driver(driver)


def bus_of_vfio_driver(driver: str) -> str | None:
    """Return the bus of which ``driver`` is a VFIO driver, or None."""
    return next((bus.name for bus in _ALL if bus.has_vfio_driver(driver)), None)


def titles(last: str) -> str:
    """Return the buses as messages list them; ``last``, such as "or", is before the last one."""
    *others, end = [bus.title for bus in _ALL]
    return "%s %s %s" % (", ".join(others), last, end)
