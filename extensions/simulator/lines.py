# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text from descriptions, which anybody may have written, in messages."""

from __future__ import annotations

from .errors import SimulatorError

_LONGEST = 100


def quoted(value: object) -> str:
    """Return a value as one line, shortened and without control characters; text is in quotes."""
    text = value if isinstance(value, str) else repr(value)
    shown = printable(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")
    return f"'{shown}'" if isinstance(value, str) else shown


def printable(text: str) -> str:
    """Return a text with control characters, such as terminal escapes, as in Python's strings."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def check_length(count: int, most: int, kind: str) -> None:
    """Raise SimulatorError if a description has more entries of a kind than ``most``."""
    if count > most:
        raise SimulatorError(f"{kind} has {count} entries, more than {most}")
