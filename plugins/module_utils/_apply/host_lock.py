# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time on a host. The lock is in /run and ends with its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import Iterator

from .._errors import PolicyError
from .._system.file_reads import failure, open_own

DIRECTORY = "/run/armfleet-vfio"

_BETWEEN_TRIES = 0.1


class HostLock:
    """The lock that a run holds while it changes the host.

    ``name`` is what messages call this run; ``timeout`` is how many seconds it waits for another
    one to end. What a run that was interrupted left is in the same ``directory``.
    """

    def __init__(self, name: str, timeout: float = 30, directory: str = DIRECTORY) -> None:
        self.owner = "process %d (%s, started %s)" % (os.getpid(), name, time.strftime("%X"))
        self.directory = directory
        self.timeout = timeout
        self._path = directory + "/lock"

    @contextlib.contextmanager
    def acquire(self, timeout: float | None = None) -> Iterator[None]:
        """Keep every other run away; PolicyError that names the other one at the time limit.

        ``timeout`` is another limit than that of the lock.
        """
        try:
            make_directory(self.directory)
            descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT, os.getuid())
        except OSError as error:
            raise failure("lock", self._path, error) from None
        try:
            self._wait(descriptor, self.timeout if timeout is None else timeout)
            self._write_owner(descriptor)
            yield
        finally:
            os.close(descriptor)

    def has_journal(self) -> bool:
        """Return whether there is a journal; raise PolicyError if it may be forged."""
        path = journal_path(self.directory)
        try:
            check_directory(self.directory)
            os.lstat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise failure("read", path, error) from None
        return True

    def _write_owner(self, descriptor: int) -> None:
        content = self.owner.encode()
        try:
            os.ftruncate(descriptor, 0)
            if os.pwrite(descriptor, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failure("lock", self._path, error) from None

    def _wait(self, descriptor: int, timeout: float) -> None:
        limit = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= limit:
                    break
            time.sleep(_BETWEEN_TRIES)
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
        if not holder or not holder.isprintable():
            holder = "another process"
        raise PolicyError(
            "Another run works on this host's devices and did not end within %g s: %s holds the "
            "lock %s. Nothing was changed. Wait for it or end it, and run again"
            % (timeout, holder, self._path)
        )


def journal_path(directory: str) -> str:
    """Return the journal beside the lock."""
    return directory + "/journal"


def make_directory(directory: str) -> None:
    """Make the directory, if it is not there; PolicyError if others can write to it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    check_directory(directory)


def check_directory(directory: str) -> None:
    """PolicyError if others can write to the directory; OSError as of ``os.open``."""
    os.close(open_own(directory, os.O_RDONLY | os.O_DIRECTORY, os.getuid()))
