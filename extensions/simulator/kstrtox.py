# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Numbers and booleans in writes, as lib/kstrtox.c reads them."""

from __future__ import annotations

import re

# kstrtobool reads only these first characters.
_TRUE = ("1", "y", "t", "on")
_FALSE = ("0", "n", "f", "of")
_NUMBER = re.compile(
    r"\+?(?:0x(?P<hexadecimal>[0-9a-f]+)|(?P<octal>0[0-7]*)|(?P<decimal>[0-9]+))\n?"
)
_BASES = {"hexadecimal": 16, "octal": 8, "decimal": 10}
_LARGEST_U16 = 0xFFFF
_LARGEST_UL = 0xFFFF_FFFF_FFFF_FFFF


def kstrtobool(text: str) -> bool | None:
    """Return a boolean, or None if the text is not one."""
    if text.lower().startswith(_TRUE):
        return True
    return False if text.lower().startswith(_FALSE) else None


def kstrtou16(data: bytes) -> int | None:
    """Return a number of 16 bits in any base, or None if it is not one."""
    return _number(data, _LARGEST_U16)


def kstrtoul(data: bytes) -> int | None:
    """Return a number of 64 bits in any base, or None if it is not one."""
    return _number(data, _LARGEST_UL)


def _number(data: bytes, largest: int) -> int | None:
    text = data.partition(b"\0")[0].decode(errors="replace").lower()
    match = _NUMBER.fullmatch(text)
    if match is None or match.lastgroup is None:
        return None
    number = int(match[match.lastgroup], _BASES[match.lastgroup])
    return number if number <= largest else None
