# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fields of journal records, each checked before anything is undone by it. Pure.

A check takes the value and what the field is called; ValueError if it cannot be such a field.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping

from .._boot import driverctl, initramfs, last_applied
from .._model.buses import BUSES, VFIO_DRIVERS
from . import symlinks

Check = Callable[[Any, str], object]

# Files that a run writes or removes; driverctl's are in a directory of their own.
PATHS = (
    *(*last_applied.PATHS, *initramfs.PATHS),
    *(last_applied.PREVIOUS, last_applied.UNFINISHED, last_applied.WAITS_FOR_BOOT),
    initramfs.OUTDATED,
)

_MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
_MODE = re.compile(r"[0-7]{3,4}\Z")
# Of a group, and of a device: vfio_group_get_from_iommu and vfio_init_device in drivers/vfio.
_NODE = re.compile(symlinks.DEV + r"/(?:(?:noiommu-)?[0-9]+|devices/vfio[0-9]+)\Z")
_LONGEST_QUOTE = 60
# VFs of a function have 16 bits (PCI Express Base Specification 6.0, section 9.3.3.7).
_MOST = 65535


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return the object that the field has to be."""
    if not isinstance(value, dict):
        raise ValueError("%s is %s" % (what, quoted(value)))
    return value


def text_of(value: Any, what: str) -> str:
    """Return the text, which a file or its name can have."""
    if not isinstance(value, str):
        raise ValueError("%s is %s" % (what, quoted(value)))
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("%s is %s" % (what, quoted(value))) from None
    return value


def printable(value: Any, what: str) -> str:
    """Return the text, which can be shown as it is."""
    text = text_of(value, what)
    if not text.isprintable():
        raise ValueError("%s is %s" % (what, quoted(value)))
    return text


def sysfs_name(value: Any, what: str) -> None:
    """A name in a directory of sysfs."""
    text = text_of(value, what)
    if text in ("", ".", "..") or "/" in text or not text.isprintable():
        raise ValueError("%s is %s" % (what, quoted(value)))


def override(value: Any, what: str) -> None:
    """What can be written to driver_override."""
    if not text_of(value, what) or set(value) & set("\n\0"):
        raise ValueError("%s is %s" % (what, quoted(value)))


def module(value: Any, what: str) -> None:
    """A name that modprobe takes for nothing else."""
    if not _MODULE_NAME.match(text_of(value, what)):
        raise ValueError("%s is %s" % (what, quoted(value)))


def modules(value: Any, what: str) -> None:
    """Names of modules."""
    if not isinstance(value, list):
        raise ValueError("%s is %s" % (what, quoted(value)))
    for name in value:
        module(name, what)


def vfio_module(value: Any, what: str) -> None:
    """A module of VFIO's that a run loads."""
    if value not in list(VFIO_DRIVERS.values()):
        raise ValueError("%s is %s" % (what, quoted(value)))


def switch(value: Any, what: str) -> None:
    """A boolean parameter as the kernel writes it."""
    if value not in ("Y", "N"):
        raise ValueError("%s is %s" % (what, quoted(value)))


def boolean(value: Any, what: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("%s is %s" % (what, quoted(value)))


def count(value: Any, what: str) -> None:
    """A number of things."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError("%s is %s" % (what, quoted(value)))


def mode(value: Any, what: str) -> None:
    """Permissions in octal."""
    if not _MODE.match(text_of(value, what)):
        raise ValueError("%s is %s" % (what, quoted(value)))


def our_path(value: Any, what: str) -> None:
    """A file that this collection writes."""
    directory, _slash, name = text_of(value, what).rpartition("/")
    is_stored = directory == driverctl.DIRECTORY and "\0" not in name and driverctl.device_of(name)
    if value not in PATHS and not is_stored:
        raise ValueError("%s is %s, not a file of this collection" % (what, quoted(value)))


def node(value: Any, what: str) -> None:
    """A node of VFIO, of a group or of a device."""
    if not _NODE.match(text_of(value, what)):
        raise ValueError("%s is %s" % (what, quoted(value)))


def link(value: Any, what: str) -> None:
    """A link that this collection makes."""
    directory, _slash, name = text_of(value, what).rpartition("/")
    if directory not in symlinks.DIRECTORIES or name in ("", ".", "..") or "\0" in name:
        raise ValueError("%s is %s" % (what, quoted(value)))


def link_target(value: Any, what: str) -> None:
    """What a link can lead to."""
    if not text_of(value, what) or "\0" in value:
        raise ValueError("%s is %s" % (what, quoted(value)))


def device(value: Any, what: str) -> None:
    """A device's Identity as JSON has it."""
    if not isinstance(value, list) or len(value) != 6 or not isinstance(value[3], list):
        raise ValueError("%s is %s" % (what, quoted(value)))
    bus, name, dt_path, compatible, acpi_path, acpi_hid = value
    if not isinstance(bus, str) or bus not in BUSES:
        raise ValueError("the bus is %s" % quoted(bus))
    sysfs_name(name, "the device's name")
    for text in (dt_path, acpi_path, acpi_hid):
        if text is not None:
            text_of(text, what)
    for text in compatible:
        text_of(text, what)


def binding(value: Any, what: str) -> None:
    """The driver and the override that the run wanted."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("%s is %s" % (what, quoted(value)))
    or_null(sysfs_name)(value[0], what)
    or_null(override)(value[1], what)


def bound_device(value: Any, what: str) -> None:
    """A device, its driver and its override."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("%s is %s" % (what, quoted(value)))
    device(value[0], what)
    binding(value[1:], what)


def each_of(check: Check) -> Check:
    """Return the check of a list by that of its items."""

    def check_list(value: Any, what: str) -> None:
        if not isinstance(value, list):
            raise ValueError("%s is %s" % (what, quoted(value)))
        for item in value:
            check(item, what)

    return check_list


def or_null(check: Check) -> Check:
    """Return the check that accepts null as well."""
    return lambda value, what: value is None or check(value, what)


def each(check_key: Check, check_value: Check) -> Check:
    """Return the check of an object by those of its keys and of its values."""

    def check(value: Any, what: str) -> None:
        for key, item in mapping(value, what).items():
            check_key(key, what)
            check_value(item, what)

    return check


def quoted(value: Any) -> str:
    """Return the value for a sentence, which it does not make long."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
