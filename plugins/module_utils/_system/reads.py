# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads of a host as data: what was asked of its gateways can be asked again."""

from __future__ import annotations

import hashlib
from typing import Any, Mapping, NamedTuple, Sequence

from .._errors import PolicyError
from .file_reads import FileReader
from .sysfs import KernelBlockedError, Sysfs

# Methods that only read. Any other ends a record.
READS: Mapping[str, frozenset[str]] = {
    "sysfs": frozenset(
        {
            "count_directories",
            "exists",
            "has_node",
            "is_read_only",
            "link",
            "link_name",
            "list_directories",
            "listing",
            "names",
            "read",
            "read_bytes",
            "read_locked",
            "read_long",
            "strings",
        }
    ),
    "files": frozenset(
        {
            "block_number",
            "changed_at",
            "directories_above",
            "is_executable",
            "is_past",
            "is_same",
            "drop_in_files",
            "link",
            "links",
            "names",
            "node_access",
            "own_changed_at",
            "placed_at",
            "read",
            "read_drop_in",
            "read_line",
            "read_own",
            "read_start",
            "status",
            "version",
        }
    ),
}


class Read(NamedTuple):
    """One call of a gateway: ``gateway`` and ``method`` as in READS, and its arguments."""

    gateway: str
    method: str
    arguments: Sequence[Any]


def digest_again(sysfs: Sysfs, files: FileReader, reads: Sequence[Read]) -> str | None:
    """Return the digest of what the same reads answer now; None if one has no answer.

    ValueError if one of them is no read; KernelBlockedError if the kernel does not answer.
    """
    if not all(read.method in READS.get(read.gateway, ()) for read in reads):
        raise ValueError
    answers = hashlib.sha256()
    gateways = {"sysfs": sysfs, "files": files}
    for read in reads:
        try:
            answer = getattr(gateways[read.gateway], read.method)(*read.arguments)
        except KernelBlockedError:
            # The run would wait for the same device once more.
            raise
        except PolicyError:
            return None
        answers.update(canonical(answer))
    return answers.hexdigest()


def canonical(answer: object) -> bytes:
    """Return the same bytes for the same answer in every process: sets have no order."""
    return (repr(_ordered(answer)) + "\n").encode("ascii", "backslashreplace")


def _ordered(answer: object) -> object:
    if isinstance(answer, dict):
        return sorted((key, _ordered(value)) for key, value in answer.items())
    if isinstance(answer, (set, frozenset)):
        return sorted(answer)
    if isinstance(answer, (list, tuple)):
        return list(map(_ordered, answer))
    return answer
