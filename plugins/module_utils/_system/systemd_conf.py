# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of systemd, and which of its drop-in files it reads. Reads only."""

from __future__ import annotations

import re
from typing import Sequence

from .file_reads import NO_DIRECTORY, FileReader

# The last version seen to go by names alone: conf_files_list_strv in src/basic/conf-files.c.
_HIDDEN_BY_ANYTHING = 257
_LIBRARIES = ("/usr/lib", "/lib")
_MULTIARCH = re.compile(r"\w+-linux-gnu\w*")
_SHARED = re.compile(r"libsystemd-shared-(\d{3,4})\b.*\.so")


def systemd_version(files: FileReader) -> int | None:
    """Return the version, by the library that its programs share.

    None without such a library, or with those of several versions.
    """
    libraries = [
        *_LIBRARIES,
        *("/usr/lib/" + name for name in files.names("/usr/lib") if _MULTIARCH.fullmatch(name)),
    ]
    versions = {
        int(match.group(1))
        for directory in libraries
        for match in map(_SHARED.fullmatch, files.names(directory + "/systemd"))
        if match
    }
    return versions.pop() if len(versions) == 1 else None


def drop_in_files(
    files: FileReader, directories: Sequence[str], ending: str, ours: str
) -> list[str]:
    """Return foreign drop-in files of ``directories``, in the order of their names.

    A name that is not hidden counts, in whichever directory. The first directory that has it
    decides, even if it has an empty file or a link to /dev/null; up to systemd 257 also if it has a
    link to nothing or a directory, which 262 skips. Where the version is not known, or is between
    these, nothing is overlooked.
    """
    by_name = files.drop_in_files(directories, ending, ours)
    of_files = files.drop_in_files(directories, ending, ours, NO_DIRECTORY)
    if of_files == by_name:
        return by_name
    version = systemd_version(files)
    return by_name if version and version <= _HIDDEN_BY_ANYTHING else of_files
