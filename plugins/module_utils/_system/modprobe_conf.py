# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of modprobe.d(5), split as libkmod splits them."""

from __future__ import annotations

import re
from typing import Iterator

from .. import _text
from .file_reads import FileReader
from .kmod import CONFIGURATION

# Separators of libkmod are blanks and tabs alone.
_WORD = re.compile("[^ \t]+")


def paths(files: FileReader, ours: str) -> list[str]:
    """Return the foreign files, beside ``ours``, in the order in which libkmod reads them."""
    drop_ins = [
        path
        for ending in (".conf", ".alias")
        for path in files.drop_in_files(CONFIGURATION, ending, ours)
    ]
    return sorted(drop_ins, key=lambda path: path.rpartition("/")[2])


def lines(content: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number.

    A line that ends in a backslash goes on in the next one, also within a word, and has the number
    of its end: freadline_wrapped in libkmod/libkmod-util.c.
    """
    waiting = ""
    for number, text in enumerate(_text.lines(content), 1):
        waiting += text
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
        else:
            yield number, waiting
            waiting = ""
    if waiting:
        yield number, waiting


def words(text: str) -> list[str]:
    """Return what stands between separators of libkmod."""
    return _WORD.findall(text)
