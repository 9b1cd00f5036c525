# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device is meant: parse, validate and match selectors. Pure."""

from __future__ import annotations

import string
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from .._errors import PolicyError
from .device import Identity

KINDS = ("dt_path", "compatible", "acpi_path", "acpi_hid", "name")

_TREE_ROOTS = ("/proc/device-tree", "/sys/firmware/devicetree/base")

_LETTERS = string.ascii_letters + string.digits
# Node names as in the Devicetree Specification 0.4, section 2.2.1, and what sysfs makes of them.
# Nothing here is special to udev, to a path or to a configuration file. Sets, because compiling
# patterns takes longer than everything else here.
_NODE = frozenset(_LETTERS + ",._+@#-")
_COMPATIBLE = frozenset(_LETTERS + ",._+/#-")
_ALIAS = frozenset(_LETTERS + ",._+-")
_NAME = frozenset(_LETTERS + ",._+@:#-")
_DRIVER = frozenset(_LETTERS + ",._+ #-")
# DMI tables have names such as "ProLiant XL270d Gen10 (P12345-B21)".
BOARD_CHARACTERS = frozenset(_LETTERS + " ,._+/#-()&:@=")
_ACPI = frozenset(string.ascii_uppercase + string.digits + "_")
_TAG = frozenset(_LETTERS + "._-")

# The kernel takes PAGE_SIZE - 2 bytes, the newline among them; longer ones are EINVAL.
_DRIVER_LENGTH = 4093
_TAG_LENGTH = 64


class Selector(NamedTuple):
    """One way to name devices; ``kind`` is one of KINDS and ``value`` is normalised.

    ``when_board`` are the names of the boards that it is for; empty for all.
    """

    kind: str
    value: str
    bus: str | None = None
    expect: int | None = None
    required: bool = True
    when_board: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        bus = " on bus %s" % self.bus if self.bus else ""
        return "%s %r%s" % (self.kind, self.value, bus)

    @property
    def alias(self) -> str | None:
        """The device-tree alias that ``value`` starts with, or None for an absolute path."""
        if self.kind != "dt_path" or self.value.startswith("/"):
            return None
        return self.value.partition("/")[0]


def _consists_of(text: str, characters: frozenset[str]) -> bool:
    return bool(text) and characters.issuperset(text)


def parse(entry: Mapping[str, Any]) -> Selector:
    """The selector of one entry of ``devices``; PolicyError says what is wrong with it."""
    given = [kind for kind in KINDS if entry.get(kind) is not None]
    if len(given) != 1:
        raise PolicyError(
            "An entry of `devices` has %s; it needs exactly one of %s"
            % (" and ".join(given) or "no selector", ", ".join(KINDS))
        )
    kind = given[0]
    bus = entry.get("bus")
    if bus and kind != "name":
        raise PolicyError("bus goes with name only, not with %s %r" % (kind, entry[kind]))
    expect = entry.get("expect")
    if expect is not None and expect < 1:
        raise PolicyError(
            "expect of %s %r is %d; it is the number of devices, 1 or more"
            % (kind, entry[kind], expect)
        )
    required = entry.get("required")
    return Selector(
        kind,
        _NORMALISE[kind](entry[kind]),
        bus,
        expect,
        True if required is None else required,
        _when_board("%s %r" % (kind, entry[kind]), entry.get("when_board")),
    )


def _when_board(owner: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    names = given if isinstance(given, (list, tuple)) else [given]
    if not names or not all(
        isinstance(name, str) and _consists_of(name, BOARD_CHARACTERS) and name == name.strip()
        for name in names
    ):
        raise PolicyError(
            "when_board of %s is %r; it is the name of a board, or a list of such names, as in "
            "/proc/device-tree/compatible or, with ACPI, in /sys/class/dmi/id: letters, digits, "
            "spaces and any of , . _ + / # - ( ) & : @ = only, no pattern" % (owner, given)
        )
    return tuple(names)


def check_driver(name: str) -> str:
    """``name`` if it can be the name of a driver; PolicyError says why not."""
    if not _consists_of(name, _DRIVER) or name != name.strip() or name in (".", ".."):
        raise PolicyError(
            "driver %r is not a driver's name: letters, digits, spaces and any of , . _ + - # only"
            % name
        )
    if len(name) > _DRIVER_LENGTH:
        raise PolicyError("driver %r… is longer than the kernel takes" % name[:40])
    return name


def check_tag(tag: str) -> str:
    """``tag`` if a link can be called so; PolicyError says why not."""
    if not _consists_of(tag, _TAG) or tag[0] in ".-" or len(tag) > _TAG_LENGTH:
        raise PolicyError(
            "tag %r is not one: 1 to %d letters, digits and any of . _ - only, and neither . nor - "
            "at its beginning" % (tag, _TAG_LENGTH)
        )
    return tag


def is_plain_path(path: str) -> bool:
    """Whether what firmware calls a device is made of such characters as selectors have."""
    return all(_consists_of(part, _NODE) for part in path.split("/"))


def resolve_alias(selector: Selector, lookup: Callable[[str], str | None]) -> Selector:
    """The selector with its device-tree alias replaced by the path that ``lookup`` gives."""
    alias = selector.alias
    if alias is None:
        return selector
    target = lookup(alias)
    if target is None:
        raise PolicyError(
            "dt_path %r does not start with '/', so %r was looked up as a device-tree alias, and "
            "this machine has no such alias. See /proc/device-tree/aliases, or give the whole path"
            % (selector.value, alias)
        )
    return selector._replace(value=target + selector.value[len(alias) :])


def match(selectors: Sequence[Selector], devices: Iterable[Identity]) -> list[list[Identity]]:
    """The devices of each selector, in one pass over ``devices``."""
    wanted: dict[tuple[str, str], list[int]] = {}
    for position, selector in enumerate(selectors):
        wanted.setdefault((selector.kind, selector.value), []).append(position)
    found: list[list[Identity]] = [[] for _selector in selectors]
    for device in devices:
        for key in _keys(device):
            for position in wanted.get(key, ()):
                if selectors[position].bus in (None, device.bus):
                    found[position].append(device)
    return found


def _keys(device: Identity) -> set[tuple[str, str]]:
    keys = {("compatible", value) for value in device.compatible}
    keys.add(("name", device.name))
    for kind, value in (
        ("dt_path", device.dt_path),
        ("acpi_path", device.acpi_path),
        ("acpi_hid", device.acpi_hid),
    ):
        if value:
            keys.add((kind, value))
    return keys


def _dt_path(value: str) -> str:
    path = value
    for root in _TREE_ROOTS:
        if path == root or path.startswith(root + "/"):
            path = path[len(root) :]
    first, *rest = path.split("/")
    if not rest and not first:
        raise PolicyError("dt_path %r names the root of the tree, not a device" % value)
    parts = [first, *rest] if first else rest
    bad = [part for part in parts if not _consists_of(part, _NODE) or part in (".", "..")]
    if bad or (first and not _consists_of(first, _ALIAS)):
        raise PolicyError(
            "dt_path %r is not a device-tree path: %s. It is absolute, such as "
            "/soc/ethernet@e0700000, or starts with an alias, such as ethernet0"
            % (value, _why_no_path(first, bad))
        )
    return path


def _why_no_path(first: str, bad: Sequence[str]) -> str:
    if "" in bad:
        return "a part of it is empty"
    if ".." in bad or "." in bad:
        return "'.' and '..' are not allowed"
    return "%r is not the name of a node" % (bad[0] if bad else first)


def _compatible(value: str) -> str:
    if not _consists_of(value, _COMPATIBLE):
        raise PolicyError(
            "compatible %r is not one: letters, digits and any of , . _ + / # - only, no "
            "pattern, as in 'arm,pl031'" % value
        )
    return value


def _acpi_path(value: str) -> str:
    segments = value[1:].split(".") if value.startswith("\\") else [""]
    if not all(
        _consists_of(segment, _ACPI) and len(segment) <= 4 and not segment[0].isdigit()
        for segment in segments
    ):
        raise PolicyError(
            "acpi_path %r is not an absolute ACPI path, such as \\_SB_.VR00; see "
            "/sys/bus/platform/devices/*/firmware_node/path" % value
        )
    # ACPICA pads each segment to four characters (ACPI 6.5, section 5.3), and so does sysfs.
    return "\\" + ".".join(segment.ljust(4, "_") for segment in segments)


def _acpi_hid(value: str) -> str:
    if not _consists_of(value, _ACPI) or not 3 <= len(value) <= 8:
        raise PolicyError("acpi_hid %r is not a hardware id, such as LNRO0005" % value)
    return value


def _name(value: str) -> str:
    if not _consists_of(value, _NAME) or value in (".", ".."):
        raise PolicyError(
            "name %r is not the name of a device in /sys/bus/*/devices: letters, digits and any of "
            ", . _ + @ : # - only, no pattern and no path" % value
        )
    return value


_NORMALISE: dict[str, Callable[[str], str]] = {
    "dt_path": _dt_path,
    "compatible": _compatible,
    "acpi_path": _acpi_path,
    "acpi_hid": _acpi_hid,
    "name": _name,
}
