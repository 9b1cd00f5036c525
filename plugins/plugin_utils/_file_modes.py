# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modes of files on the control node, as users write them. Pure."""

from __future__ import annotations

import re
from typing import Any

_OCTAL = re.compile("0?[0-7]{3,4}")
_CLAUSE = re.compile("([ugoa]*)([-+=])([rwxX]*)")
_SYMBOLIC = re.compile("%s(,%s)*" % (_CLAUSE.pattern, _CLAUSE.pattern))
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def is_mode(value: Any) -> bool:
    """Return whether it is a mode in octal or in the symbols of chmod, as a string.

    YAML makes the number 416 of 0640, and the number 640, which is mode 1200, of 640. So a number
    is none: nobody knows which of the two it was.
    """
    return isinstance(value, str) and bool(_OCTAL.fullmatch(value) or _SYMBOLIC.fullmatch(value))


def to_bits(mode: str, current: int) -> int:
    """Return the bits of a mode; ``current`` are those that symbols add to or remove from."""
    if _OCTAL.fullmatch(mode):
        return int(mode, 8)
    for who, operator, permissions in _CLAUSE.findall(mode):
        current = _changed(current, who or "a", operator, permissions)
    return current


def _changed(current: int, who: str, operator: str, permissions: str) -> int:
    is_executable = bool(current & 0o111)
    given = sum(
        _BITS[letter] for letter in set(permissions.replace("X", "x" if is_executable else ""))
    )
    for shift in {_SHIFTS[letter] for letter in who.replace("a", "ugo")}:
        if operator == "-":
            current &= ~(given << shift)
        else:
            kept = current & ~(7 << shift) if operator == "=" else current
            current = kept | given << shift
    return current
