# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of a run that found nothing to do, for later runs that are asked the same.

Nearly all runs of a fleet are such. The file in /run has what the run was asked, all that it read
of its host and its answer; while all that was read is the same, so is the answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from typing import Any, Mapping, NamedTuple

from .._errors import PolicyError
from .._system.files import Files, open_own
from .._system.recorded_reads import Read, Record, digest_again
from .._system.sysfs import KernelBlockedError, Sysfs
from .run_lock import RunLock

_NAME = "last-answer"
# In bytes; that of a board with 1,000 devices is as long, and /run is memory.
_LARGEST = 1 << 20


class Answer(NamedTuple):
    """What a module returns, and its warnings."""

    result: dict[str, Any]
    warnings: list[str]


class LastAnswer:
    """The answer that was kept beside the lock of runs.

    ``asked`` is all that a run depends on beside its host: its module, its options, the kernel's
    release. ``code`` is the digest of the code that runs, or None if it cannot be told: then
    nothing is kept and nothing found.
    """

    def __init__(self, lock: RunLock, asked: Mapping[str, Any], code: str | None) -> None:
        self._lock = lock
        self._asked = None if code is None else _digest([code, asked])
        self._path = "%s/%s" % (lock.directory, _NAME)

    def find(self, sysfs: Sysfs, files: Files, *, check_mode: bool) -> Answer | None:
        """Return the answer if it is still true; None if only a run can tell.

        PolicyError as of RunLock; KernelBlockedError if the kernel does not answer.
        """
        # What others may read is less than what root read.
        if self._asked is None or os.geteuid() != 0:
            return None
        with contextlib.nullcontext() if check_mode else self._lock.acquire():
            return None if self._lock.has_journal() else self._find(sysfs, files)

    def keep(self, record: Record, answer: Answer) -> None:
        """Keep the answer of a run that had nothing to do, if all that it read is recorded."""
        if self._asked is None or not record.is_complete:
            return
        kept = {
            "asked": self._asked,
            "reads": record.reads,
            "answers": record.digest,
            "result": answer.result,
            "warnings": answer.warnings,
        }
        content = json.dumps(kept).encode()
        if len(content) > _LARGEST:
            return
        # It only saves time: without room for it, or beside another run, there is none.
        with contextlib.suppress(OSError, PolicyError), self._lock.acquire(timeout=0):
            self._write(content)

    def _find(self, sysfs: Sysfs, files: Files) -> Answer | None:
        try:
            with open(open_own(self._path, os.O_RDONLY, os.getuid()), "rb") as stream:
                kept = json.loads(stream.read())
            if kept["asked"] != self._asked:
                return None
            reads = [Read(*read) for read in kept["reads"]]
            if digest_again(sysfs, files, reads) != kept["answers"]:
                return None
            return Answer(kept["result"], kept["warnings"])
        except KernelBlockedError:
            raise
        except (OSError, PolicyError, ValueError, KeyError, TypeError, RecursionError):
            # Of none, of one that others may have written, and of one that is damaged.
            return None

    def _write(self, content: bytes) -> None:
        new = self._path + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(open_own(new, flags, os.getuid()), "wb") as stream:
            stream.write(content)
        os.rename(new, self._path)


def _digest(asked: object) -> str | None:
    """Return a digest of what is asked; None if it has what no JSON has, as an option can."""
    try:
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    except TypeError:
        return None


def code_digest() -> str | None:
    """Return a digest of this collection's code as it runs; None outside a module's payload.

    ansible-core sends a module with all that it imports as one archive. Its times, and what is in
    it beside code, differ from call to call.
    """
    archive = getattr(globals().get("__loader__"), "archive", None)
    return None if archive is None else archive_digest(archive)


def archive_digest(archive: str) -> str:
    """Return a digest of the collections' files in a zip archive, whatever their times."""
    with zipfile.ZipFile(archive) as payload:
        entries = [(entry.filename, entry.CRC) for entry in payload.infolist()]
    code = sorted(entry for entry in entries if entry[0].startswith("ansible_collections/"))
    return hashlib.sha256(repr(code).encode()).hexdigest()
