# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text from descriptions, which anybody may have written, in messages."""

from __future__ import annotations

from pathlib import Path

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


def read_limited(path: Path, largest: int) -> bytes:
    """Return the content of a regular file of at most so many MiB; raise SimulatorError."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SimulatorError(f"Cannot read {path}: it is not a regular file")
        with path.open("rb") as stream:
            content = stream.read((largest << 20) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SimulatorError(f"Cannot read {path}: {reason}") from None
    if len(content) > largest << 20:
        raise SimulatorError(f"{path} is larger than {largest} MiB")
    return content


def check_length(count: int, most: int, kind: str) -> None:
    """Raise SimulatorError if a description has more entries of a kind than ``most``."""
    if count > most:
        raise SimulatorError(f"{kind} has {count} entries, more than {most}")
