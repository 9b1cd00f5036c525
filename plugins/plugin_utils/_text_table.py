# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for a terminal, whose last column is wrapped. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

# Columns of a terminal; details are wrapped to what the other cells leave of it, and not to less
# than so many.
_WIDTH = 120
_LEAST_DETAILS = 40


def wrapped_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; ``rows`` begin with its header."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [line for row in rows for line in _wrapped(row, widths)]


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    *cells, details = row
    first = "".join("%s  " % cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    width = max(_LEAST_DETAILS, _WIDTH - len(first))
    # A path or a command is copied as a whole.
    parts = textwrap.wrap(details, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [
        (start + part).rstrip()
        for start, part in zip([first, *[" " * len(first)] * len(parts)], parts, strict=False)
    ]
