# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time on a host, and what an interrupted one leaves to be undone.

Both are in /run: a lock ends with its process, and after a boot there is no run-time state to undo.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any, Iterator, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._system.files import Files, failure, open_own

FOLDER = "/run/armfleet-vfio"
# Of the journal; another version of the collection may write another one.
FORMAT = 1

DEVICE, MODULE, RELOADED, NOIOMMU, FILE, NODE, LINKS = (
    "device",
    "module",
    "reloaded",
    "noiommu",
    "file",
    "node",
    "links",
)

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BETWEEN_TRIES = 0.1
# Bytes of a journal; one of 500 devices and their rules has less than 1 MiB.
_LONGEST = 64 << 20
_MOST_LINES = 5
# What is at most written down of a device or a module, in bytes; it is some 500 mostly.
_PER_CHANGE = 4096


class Undo(NamedTuple):
    """How something was before a run changed it.

    ``values`` is what JSON can hold, by its ``kind``. One that ``is_late`` is put back after all
    others.
    """

    kind: str
    subject: str
    values: dict[str, Any]
    is_late: bool = False


class DamagedLine(NamedTuple):
    """A line of the journal that cannot be read; the first line is number 1."""

    number: int
    content: bytes
    reason: str


class Interrupted(NamedTuple):
    """A run that did not come to its end: who it was, and what it had changed, in its order."""

    who: str
    undos: list[Undo]
    damaged: list[DamagedLine]


class Runs:
    """The runs of this collection on one host.

    ``who`` is what other runs are told of this one; ``timeout`` is how many seconds it waits for
    another one to end.
    """

    def __init__(self, who: str, timeout: float = 30, folder: str = FOLDER) -> None:
        self._who = "process %d (%s, begun %s)" % (os.getpid(), who, time.strftime("%X"))
        self._timeout = timeout
        self._lock = folder + "/lock"
        self._journal = folder + "/journal"
        self._folder = folder
        self._open: int | None = None
        self._kept: list[Undo | bytes] = []
        self._kept_of: list[str] = []

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other run away; PolicyError that names the other one at the time limit."""
        try:
            self._make_directory()
            descriptor = open_own(self._lock, os.O_RDWR | os.O_CREAT, os.getuid())
        except OSError as error:
            raise failure("lock", self._lock, error) from None
        try:
            self._wait(descriptor)
            self._sign(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _make_directory(self) -> None:
        """Make the directory, if it is not there; PolicyError if others can write to it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        os.close(open_own(self._folder, os.O_RDONLY | os.O_DIRECTORY, os.getuid()))

    def _sign(self, descriptor: int) -> None:
        """Say in the lock whose it is."""
        content = self._who.encode()
        try:
            os.ftruncate(descriptor, 0)
            if os.pwrite(descriptor, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failure("lock", self._lock, error) from None

    def _wait(self, descriptor: int) -> None:
        limit = time.monotonic() + self._timeout
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
            % (self._timeout, holder, self._lock)
        )

    def interrupted(self) -> Interrupted | None:
        """What a run of this boot left behind when it was killed or could not put all back."""
        try:
            os.close(open_own(self._folder, os.O_RDONLY | os.O_DIRECTORY, os.getuid()))
            with open(open_own(self._journal, os.O_RDONLY, os.getuid()), "rb") as stream:
                content = stream.read(_LONGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure("read", self._journal, error) from None
        # Here, because nearly all runs find no journal.
        from .journal import (  # noqa: PLC0415
            parse,
        )

        try:
            if len(content) > _LONGEST:
                raise ValueError("it is larger than %d MiB" % (_LONGEST >> 20))
            return parse(content, _boot())
        except ValueError as error:
            raise PolicyError(
                "%s (%s). Nothing of it was undone. See the devices with device_info, and delete "
                "the file" % (self._unreadable, error)
            ) from None

    def complaint(self, damaged: Sequence[DamagedLine], becomes: str) -> str:
        """What is to be said of lines that cannot be read; ``becomes`` is of the others."""
        lines = ["line %d (%s)" % (line.number, line.reason) for line in damaged[:_MOST_LINES]]
        if len(damaged) > _MOST_LINES:
            lines.append("%d more" % (len(damaged) - _MOST_LINES))
        return (
            "%s in %s. What its other lines say %s. See the devices with device_info, correct what "
            "is not as it should be, and delete the file"
            % (self._unreadable, ", ".join(lines), becomes)
        )

    @property
    def _unreadable(self) -> str:
        return "%s, which says how an interrupted run found this host, cannot be read" % (
            self._journal
        )

    def obstacle(self) -> str | None:
        """Why a run could not write down how things are before it changes them. Reads only."""
        return Files().obstacle(self._journal, _PER_CHANGE)

    def begin(self, undos: Sequence[Undo], changes: int) -> None:
        """Begin to write down; PolicyError if there is no room for ``undos`` and the changes."""
        size = sum(len(json.dumps(undo)) + 1 for undo in undos) + _PER_CHANGE * (changes + 1)
        self._open = self._begin([*self._kept_of, self._who], size)

    def remember(self, undo: Undo) -> None:
        """Write down how something is, before it is changed."""
        if self._open is None:
            self._open = self._begin([*self._kept_of, self._who])
        self._append(self._open, undo)

    def forget(self) -> None:
        """Nothing of this run is left to be undone."""
        self._close()
        if self._kept:
            os.close(self._begin(self._kept_of))
            return
        try:
            os.unlink(self._journal)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure("write", self._journal, error) from None

    def keep(self, who: str, undos: Sequence[Undo], damaged: Sequence[DamagedLine] = ()) -> None:
        """Of the run of ``who`` only this is left to be undone, by the next one."""
        self._close()
        self._kept += undos
        self._kept += [line.content for line in damaged]
        self._kept_of.append(who)
        os.close(self._begin(self._kept_of))

    @property
    def who(self) -> str:
        return self._who

    @property
    def journal(self) -> str:
        return self._journal

    def _begin(self, whose: Sequence[str], size: int = 0) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        fresh = self._journal + ".new"
        try:
            self._make_directory()
            descriptor = open_own(fresh, flags, os.getuid())
        except OSError as error:
            raise failure("write", self._journal, error) from None
        try:
            _try_size(descriptor, size)
            self._append(
                descriptor, {"format": FORMAT, "boot": _boot(), "who": " and ".join(whose)}
            )
            for undo in self._kept:
                self._append(descriptor, undo)
            os.rename(fresh, self._journal)
        except (OSError, PolicyError) as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            if isinstance(error, OSError):
                raise failure("write", self._journal, error) from None
            raise
        return descriptor

    def _append(self, descriptor: int, line: Any) -> None:
        content = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failure("write", self._journal, error) from None

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None


def _try_size(descriptor: int, size: int) -> None:
    """Make an empty file be of that size for a moment; OSError if there is no room for it."""
    if not size:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            raise
    os.ftruncate(descriptor, 0)


def _boot() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return _text.stripped(stream.read())
    except OSError:
        # An image that is not running has no /proc.
        return ""
