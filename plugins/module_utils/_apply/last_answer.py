# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answer of a run that found nothing to do, for later runs that are asked the same.

Nearly all runs of a fleet are such. A file in /run has all that the run read of its host and its
answer; while all that was read is the same, so is the answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from typing import Any, NamedTuple, Sequence

from .._errors import PolicyError
from .._system.file_reads import FileReader, open_own
from .._system.reads import Read, digest_again
from .._system.sysfs import KernelBlockedError, Sysfs
from .host_lock import HostLock

PREFIX = "last-answer-"
# In bytes; that of a board with 1,500 devices is as long, and /run is memory.
_LARGEST = 1 << 21
# The list of a host, a rollout of it and its drift are asked differently.
_MOST = 4
_DIGEST = re.compile("[0-9a-f]{64}")


class Answer(NamedTuple):
    """What a module returns, and its warnings."""

    result: dict[str, Any]
    warnings: list[str]


class LastAnswer:
    """The answer that was kept beside the lock of runs.

    ``request_digest`` is a SHA-256 in hexadecimal digits of all that a run depends on beside its
    host: its module, its options and the code. Without a valid one nothing is kept and nothing
    found.
    """

    def __init__(self, lock: HostLock, request_digest: str | None) -> None:
        self._lock = lock
        self._path: str | None = None
        # What others may read is less than what root read.
        if request_digest and _DIGEST.fullmatch(request_digest) and os.geteuid() == 0:
            asked = "%s %s" % (request_digest, os.uname().release)
            self._asked = hashlib.sha256(asked.encode()).hexdigest()
            self._path = "%s/%s%s" % (lock.directory, PREFIX, self._asked[:16])

    def find(self, sysfs: Sysfs, files: FileReader, *, check_mode: bool) -> str | None:
        """Return the answer as JSON if it is still true; None if only a run can tell.

        PolicyError as of HostLock; KernelBlockedError if the kernel does not answer.
        """
        if self._path is None or not os.path.exists(self._path):
            return None
        with contextlib.nullcontext() if check_mode else self._lock.acquire(timeout=0):
            return None if self._lock.has_journal() else self._find(self._path, sysfs, files)

    def keep(self, reads: Sequence[Read], digest: str, answer: Answer) -> None:
        """Keep the answer of a run that had nothing to do.

        ``reads`` are all that it read, and ``digest`` is that of what was read.
        """
        if self._path is None:
            return
        # A text in it, because who finds it has only to pass it on.
        warnings = {"warnings": answer.warnings} if answer.warnings else {}
        output = json.dumps({**answer.result, **warnings, "is_kept": True})
        kept = {"asked": self._asked, "reads": reads, "answers": digest, "output": output}
        content = json.dumps(kept).encode()
        if len(content) > _LARGEST:
            return
        # It only saves time: without room for it, or beside another run, there is none.
        with contextlib.suppress(OSError, PolicyError), self._lock.acquire(timeout=0):
            self._write(self._path, content)

    def _find(self, path: str, sysfs: Sysfs, files: FileReader) -> str | None:
        try:
            with open(open_own(path, os.O_RDONLY, os.getuid()), "rb") as stream:
                kept = json.loads(stream.read())
            if kept["asked"] != self._asked:
                return None
            reads = [Read(*read) for read in kept["reads"]]
            if digest_again(sysfs, files, reads) != kept["answers"]:
                return None
            output = kept["output"]
            return output if isinstance(output, str) else None
        except KernelBlockedError:
            raise
        except (OSError, PolicyError, ValueError, KeyError, TypeError, RecursionError):
            # Of none, of one that others may have written, and of one that is damaged.
            return None

    def _write(self, path: str, content: bytes) -> None:
        new = self._lock.directory + "/last-answer.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(open_own(new, flags, os.getuid()), "wb") as stream:
            stream.write(content)
        os.rename(new, path)
        for oldest in self._paths()[:-_MOST]:
            os.unlink(oldest)

    def _paths(self) -> list[str]:
        """Return all files of answers, the oldest first."""
        directory = self._lock.directory
        names = [name for name in os.listdir(directory) if name.startswith(PREFIX)]
        return sorted(("%s/%s" % (directory, name) for name in names), key=os.path.getmtime)
