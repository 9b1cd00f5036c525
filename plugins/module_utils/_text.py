# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text of the kernel and of configuration files, cut where their own readers cut it. Pure.

Python's ``splitlines``, ``split``, ``strip`` and ``isdigit`` know many more separators and digits
than those of ASCII, and a mount point, a process or a node of the device tree may be called by
any of them.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from typing import Any, Sequence

BLANKS = " \t\n\v\f\r"
_WORD = re.compile("[^%s]+" % BLANKS)
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")
# What a message has of one name, and of a list of them.
_LONGEST = 200
_MOST = 10
# What a result has of one text.
_LONGEST_TEXT = 1 << 16


def lines(content: str) -> list[str]:
    """Return the lines of a text, each ended by a newline; the last one may lack it."""
    lines = content.split("\n")
    return lines if lines[-1] else lines[:-1]


def words(text: str) -> list[str]:
    """Return what stands between blanks of ASCII."""
    return _WORD.findall(text)


def stripped(text: str) -> str:
    """Return the text without blanks of ASCII at its ends."""
    return text.strip(BLANKS)


def number(text: str | None) -> int | None:
    """Return a number of at most 20 digits of ASCII, as 64 bits have; None for anything else."""
    is_number = text and len(text) <= 20 and text.isascii() and text.isdigit()
    return int(text) if text and is_number else None


def is_like(text: str, pattern: str) -> bool:
    """Return whether a text matches a pattern that others wrote, as fnmatch of glibc compares.

    By a range that ends before it begins nothing does; before Python 3.10 fnmatch ends with an
    error.
    """
    try:
        return fnmatchcase(text, pattern)
    except re.error:
        return False


def unescaped(field: str) -> str:
    r"""Return a field without escapes of ``mangle_path`` in fs/seq_file.c, as ``\040``."""
    content = field.encode("utf-8", "surrogateescape")
    content = _ESCAPED.sub(lambda match: bytes((int(match[1], 8),)), content)
    return content.decode("utf-8", "surrogateescape")


def usable_path(path: str) -> str:
    """Return the path, or an empty one, which names nothing, if no file can have that name.

    The os module makes ValueError of a NUL and of what has no bytes, and configuration has both.
    """
    try:
        return "" if b"\0" in os.fsencode(path) else path
    except UnicodeEncodeError:
        return ""


def printable(text: str, longest: int = _LONGEST) -> str:
    r"""Return the text as a terminal can take it: what is not printable as an escape (``\x1b``).

    It is cut after ``longest`` characters; 0 for a text of any length.
    """
    if longest and len(text) > longest:
        text = text[:longest] + "…"
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    # A byte that is no UTF-8 is a surrogate (PEP 383).
    code = ord(character)
    return "\\x%02x" % (code - 0xDC00) if 0xDC80 <= code <= 0xDCFF else ascii(character)[1:-1]


def printable_result(value: Any, *, in_lines: bool = False) -> Any:
    """Return a result that is safe for a terminal and JSON, whatever names it has.

    Texts are as :func:`printable` returns them. Those of a diff keep their ends of lines, and their
    length.
    """
    if isinstance(value, str) and in_lines:
        return "\n".join(printable(part, 0) for part in value.split("\n"))
    if isinstance(value, str):
        return printable(value, _LONGEST_TEXT)
    if isinstance(value, dict):
        return {
            printable(key): printable_result(item, in_lines=in_lines or key == "diff")
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [printable_result(item, in_lines=in_lines) for item in value]
    return value


def listed(names: Sequence[str], most: int = _MOST) -> str:
    """Return the names for a sentence, at most so many of them."""
    shown = ", ".join(names[:most])
    return "%s and %d more" % (shown, len(names) - most) if len(names) > most else shown
