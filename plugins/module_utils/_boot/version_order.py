# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of ``sort -V``. Pure."""

from __future__ import annotations

import re
from typing import Tuple

Key = Tuple[Tuple[int, ...], Tuple[int, ...]]

_SUFFIX = re.compile(r"(?:\.[A-Za-z~][A-Za-z0-9~]*)*\Z")
_PART = re.compile(r"([^0-9]*)([0-9]*)")
# The end of a name is the same as a number of nothing, again and again.
_NUMBER = 0
_LONGEST = 2 * 255 + 2


def version_key(name: str) -> Key:
    """Return the key of a file name for ``sort -V``; ``sort -u`` keeps one name of each key.

    filevercmp in lib/filevercmp.c of gnulib, for names that do not begin with a dot: first without
    the suffix, then with it.
    """
    suffix = _SUFFIX.search(name, 1)
    return _key(name[: suffix.start()] if suffix else name), _key(name)


def _key(text: str) -> tuple[int, ...]:
    key: list[int] = []
    for others, digits in _PART.findall(text):
        key += (*map(_order, others), _NUMBER, int(digits or "0"))
    return (*key, *[0] * (_LONGEST - len(key)))


def _order(character: str) -> int:
    if character == "~":
        return -2
    code = ord(character)
    return code if character.isascii() and character.isalpha() else code + 256
