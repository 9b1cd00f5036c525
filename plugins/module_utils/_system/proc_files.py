# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of /proc, whose processes can end at any time. Reads only."""

from __future__ import annotations

import os


def link_target(path: str) -> str:
    """Return where a link leads to; empty if it cannot be read."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def names(path: str) -> list[str]:
    """Return what is in a directory; nothing if it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def content(path: str) -> bytes | None:
    """Return all that is in a file; None if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None
