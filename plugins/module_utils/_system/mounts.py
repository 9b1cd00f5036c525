# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted where, as this process sees it. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .. import _text
from .file_reads import FileReader

_MOUNTS = "/proc/self/mounts"


class Mount(NamedTuple):
    """A file system: its ``kind`` is tmpfs, overlay and the like."""

    source: str
    kind: str
    options: Sequence[str]


def mounts(files: FileReader) -> dict[str, Mount]:
    """Return what is mounted by the mount points; of several on one, the last one is visible."""
    # Whoever mounts a file system can give it a name with any other blanks: mangle_path and its
    # callers in fs/proc_namespace.c.
    lines = (line.split(" ") for line in _text.lines(files.read_start(_MOUNTS) or ""))
    return {
        _text.unescaped(words[1]): Mount(
            _text.unescaped(words[0]),
            words[2],
            [_text.unescaped(option) for option in words[3].split(",")],
        )
        for words in lines
        if len(words) > 3
    }
