# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The selector of an entry, and the names that an entry may have beside it, validated. Pure."""

from __future__ import annotations

import string
from typing import Any, Mapping

from .._errors import PolicyError
from .selector import (
    CONFIRMED_BY,
    KINDS,
    NAME_CHARACTERS,
    Selector,
    consists_of,
    kind_of,
    parse_value,
)

_UID = NAME_CHARACTERS | {"/"}
_LETTERS = string.ascii_letters + string.digits
_DRIVER = frozenset(_LETTERS + ",._+ #-")
_TAG = frozenset(_LETTERS + "._-")
# No rule and no path has a board's name, but a pattern would match nothing, and a fact or a list
# can be evaluated as a template.
_NO_BOARD = frozenset("*?{}")
_BLANK = " "
# The kernel takes PAGE_SIZE - 2 bytes, the newline among them; longer ones are EINVAL.
_DRIVER_LENGTH = 4093
_TAG_LENGTH = 64


def parse(entry: Mapping[str, Any]) -> Selector:
    """Return the selector of one entry of ``devices``; PolicyError says what is wrong with it."""
    given = [kind for kind in KINDS if entry.get(kind) is not None]
    expected_id = None
    confirming = CONFIRMED_BY.get(given[0]) if given else None
    if confirming and given[1:] == [confirming]:
        given = given[:1]
        expected_id = kind_of(confirming).parse(entry[confirming])
    if len(given) != 1:
        raise PolicyError(
            "An entry of `devices` has %s. Give exactly one of %s"
            % (" and ".join(given) or "no selector", ", ".join(KINDS))
        )
    kind = given[0]
    bus = entry.get("bus")
    if bus and not kind_of(kind).takes_bus:
        raise PolicyError(
            "bus requires the selector name, but the entry has %s %r. Omit `bus`"
            % (kind, entry[kind])
        )
    uid = entry.get("acpi_uid")
    if uid is not None and not kind_of(kind).takes_uid:
        raise PolicyError(
            "acpi_uid requires the selector acpi_hid, but the entry has %s %r. Omit `acpi_uid`"
            % (kind, entry[kind])
        )
    expect = entry.get("expect")
    if expect is not None and expect < 1:
        raise PolicyError(
            "expect of %s %r is %d. Set `expect` to the number of devices, 1 or more"
            % (kind, entry[kind], expect)
        )
    required = entry.get("required")
    return Selector(
        kind=kind,
        value=parse_value(kind, entry[kind]),
        bus=bus,
        expect=expect,
        required=True if required is None else required,
        when_board=_when_board("%s %r" % (kind, entry[kind]), entry.get("when_board")),
        pci_id=expected_id,
        acpi_uid=None if uid is None else _checked_uid(uid),
    )


def _checked_uid(uid: str) -> str:
    if not consists_of(uid, _UID) or uid != uid.strip():
        raise PolicyError(
            "acpi_uid %r is not valid. Give it as in /sys/bus/*/devices/*/firmware_node/uid, in "
            "quotes and without patterns, such as '0'" % uid
        )
    return uid


def _when_board(owner: str, given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    names = given if isinstance(given, (list, tuple)) else [given]
    if not names or not all(isinstance(name, str) and is_board_name(name) for name in names):
        raise PolicyError(
            "when_board of %s is %r. Give a board's name or a list of names, as in "
            "/proc/device-tree/compatible or, with ACPI, in /sys/class/dmi/id: one line, without "
            "patterns (* ?) and { }" % (owner, given)
        )
    # What firmware calls a board is compared without blanks at its ends.
    return tuple(name.strip(_BLANK) for name in names)


def is_board_name(name: str) -> bool:
    """Return whether when_board takes the name; spaces at its ends do not count."""
    return bool(name.strip(_BLANK)) and name.isprintable() and _NO_BOARD.isdisjoint(name)


def check_driver(name: str) -> str:
    """``name`` if it can be the name of a driver; PolicyError says why not."""
    if not consists_of(name, _DRIVER) or name != name.strip() or name in (".", ".."):
        raise PolicyError(
            "driver %r is not a valid driver name. Use only letters, digits, spaces and , . _ + - #"
            % name
        )
    if len(name) > _DRIVER_LENGTH:
        raise PolicyError(
            "driver %r… is longer than the kernel accepts. Give a shorter name" % name[:40]
        )
    return name


def check_tag(tag: str) -> str:
    """``tag`` if a link can be called so; PolicyError says why not."""
    if not consists_of(tag, _TAG) or tag[0] in ".-" or len(tag) > _TAG_LENGTH:
        raise PolicyError(
            "tag %r is not valid. Use 1 to %d letters, digits and . _ -, beginning with neither "
            ". nor -" % (tag, _TAG_LENGTH)
        )
    return tag
