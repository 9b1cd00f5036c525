# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of modprobe.d(5) and the kernel command line, split as libkmod splits them."""

from __future__ import annotations

import re
from typing import Iterator, NamedTuple

from .. import _text
from .file_reads import NO_DIRECTORY, FileReader
from .kernel_parameters import quoted_words
from .kmod import CONFIGURATION

# Separators of libkmod are blanks and tabs alone.
_WORD = re.compile("[^ \t]+")
# A quotation mark can be before the name of a module and in the value; a module can have no dot.
_PARAMETER = re.compile(
    '("?)([^".=%(blanks)s]*)\\.([^".=%(blanks)s]*)(?:=(.*))?' % {"blanks": _text.BLANKS},
    re.DOTALL,
)


class ModuleParameter(NamedTuple):
    """One parameter of the command line: its whole text, and what libkmod makes of it.

    ``value`` is None without one; it is not unquoted.
    """

    text: str
    module: str
    name: str
    value: str | None


def paths(files: FileReader, ours: str) -> list[str]:
    """Return the foreign files, beside ``ours``, in the order in which libkmod reads them.

    Directories are skipped before names are compared. So are links to nowhere by kmod 34; before,
    conf_files_filter_out in libkmod/libkmod-config.c judged them by what was in memory.
    """
    drop_ins = [
        path
        for ending in (".conf", ".alias")
        for path in files.drop_in_files(CONFIGURATION, ending, ours, NO_DIRECTORY)
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


def module_parameters(content: str) -> list[ModuleParameter]:
    """Return the parameters of modules on the kernel command line.

    kmod_config_parse_kcmdline in libkmod/libkmod-config.c since kmod 29: blanks count outside of
    quotation marks alone, a parameter whose mark nobody closes is ignored, and one that is quoted
    as a whole has its first mark before the value instead.
    """
    parameters = []
    for text, is_closed in quoted_words(content):
        match = _PARAMETER.fullmatch(text) if is_closed else None
        if match:
            mark, module, name, value = match.groups()
            is_set = value is not None
            parameters.append(ModuleParameter(text, module, name, mark + value if is_set else None))
    return parameters
