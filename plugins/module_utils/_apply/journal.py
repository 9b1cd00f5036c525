# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal: how things were before a run changed them, for the next run if it is interrupted.

It is in /run, because after a boot there is no run-time state to undo.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._system.file_reads import failure, open_own
from .._system.files import Files
from .host_lock import check_directory, journal_path, make_directory
from .operations import Operation, UndoRecord, from_record
from .record_fields import mapping, printable, quoted, text_of

# Another version of the collection may write another one.
FORMAT = 1

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# Bytes of a journal; one of 500 devices and their rules has less than 1 MiB.
_LONGEST = 64 << 20
_MOST_LINES = 5
# What is at most written of a device or a module, in bytes; it is some 500 mostly.
_PER_CHANGE = 4096


class DamagedLine(NamedTuple):
    """A line of the journal that cannot be read; the first line is number 1."""

    number: int
    content: bytes
    reason: str


class InterruptedRun(NamedTuple):
    """A run that did not come to its end: whose it was, and what it had changed, in its order."""

    owner: str
    operations: list[Operation]
    damaged: list[DamagedLine]


class Journal:
    """The journal of the run of ``owner``, and what an earlier one left in it."""

    def __init__(self, owner: str, directory: str) -> None:
        self.path = journal_path(directory)
        self._directory = directory
        self._owner = owner
        self._descriptor: int | None = None
        # What earlier runs, or this one, could not undo, and whose that was.
        self._remaining: list[UndoRecord | bytes] = []
        self._remaining_owners: list[str] = []

    def read_interrupted(self) -> InterruptedRun | None:
        """Return what a run of this boot left that was killed or could not undo everything."""
        try:
            check_directory(self._directory)
            with open(open_own(self.path, os.O_RDONLY, os.getuid()), "rb") as stream:
                content = stream.read(_LONGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure("read", self.path, error) from None
        try:
            if len(content) > _LONGEST:
                raise ValueError("it is larger than %d MiB" % (_LONGEST >> 20))
            return parse(content, _boot_id())
        except ValueError as error:
            raise PolicyError(
                "%s (%s). Nothing was rolled back. Inspect the devices with device_info, and "
                "delete the file" % (self._unreadable, error)
            ) from None

    def report_damage(self, damaged: Sequence[DamagedLine], outcome: str) -> str:
        """Return a message on damaged lines; ``outcome`` is what becomes of the others."""
        lines = ["line %d (%s)" % (line.number, line.reason) for line in damaged[:_MOST_LINES]]
        if len(damaged) > _MOST_LINES:
            lines.append("%d more" % (len(damaged) - _MOST_LINES))
        return (
            "%s in %s. The rest of it %s. Inspect the devices with device_info, correct what "
            "differs, and delete the file" % (self._unreadable, ", ".join(lines), outcome)
        )

    @property
    def _unreadable(self) -> str:
        return "%s, the journal of an interrupted run, cannot be parsed" % self.path

    def obstacle(self) -> str | None:
        """Return why a run could not write its journal. Reads only."""
        return Files().obstacle(self.path, _PER_CHANGE)

    def begin(self, records: Sequence[UndoRecord], changes: int) -> None:
        """Begin to write; PolicyError if there is no room for ``records`` and the changes."""
        size = sum(len(json.dumps(record)) + 1 for record in records) + _PER_CHANGE * (changes + 1)
        self._descriptor = self._create([*self._remaining_owners, self._owner], size)

    def append(self, record: UndoRecord) -> None:
        """Write how something is, before it is changed."""
        if self._descriptor is None:
            self._descriptor = self._create([*self._remaining_owners, self._owner])
        self._write(self._descriptor, record)

    def discard(self) -> None:
        """Remove what this run wrote: nothing of it is left to be undone."""
        self._close()
        if self._remaining:
            os.close(self._create(self._remaining_owners))
            return
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure("write", self.path, error) from None

    def replace(
        self,
        records: Sequence[UndoRecord],
        owner: str | None = None,
        damaged: Sequence[DamagedLine] = (),
    ) -> None:
        """Keep only this for the next run to undo; ``owner`` is whose it was, if not this run's."""
        self._close()
        self._remaining += records
        self._remaining += [line.content for line in damaged]
        self._remaining_owners.append(owner or self._owner)
        os.close(self._create(self._remaining_owners))

    def _create(self, owners: Sequence[str], size: int = 0) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        temporary = self.path + ".new"
        try:
            make_directory(self._directory)
            descriptor = open_own(temporary, flags, os.getuid())
        except OSError as error:
            raise failure("write", self.path, error) from None
        try:
            _reserve(descriptor, size)
            head = {"format": FORMAT, "boot": _boot_id(), "who": " and ".join(owners)}
            for line in (head, *self._remaining):
                self._write(descriptor, line)
            os.rename(temporary, self.path)
        except (OSError, PolicyError) as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError):
                raise failure("write", self.path, error) from None
            raise
        return descriptor

    def _write(self, descriptor: int, line: Any) -> None:
        content = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failure("write", self.path, error) from None

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def parse(content: bytes, boot: str) -> InterruptedRun | None:
    """Return the run of a journal; None if it is empty or of another boot than ``boot``.

    ValueError if it is not known whose it is. Other lines that cannot be read are kept apart.
    """
    # A line that was cut short stands for a change that was not made.
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
    if not lines:
        return None
    head = mapping(_loads(lines[0]), "its first line")
    if text_of(head.get("boot"), "the boot") != boot:
        for line in lines:
            _loads(line)
        return None
    # True would be equal to 1.
    if head.get("format") != FORMAT or isinstance(head["format"], bool):
        raise ValueError(
            "its format is %s, but this version of the collection reads format %d"
            % (quoted(head.get("format")), FORMAT)
        )
    interrupted = InterruptedRun(printable(head.get("who"), "who it was"), [], [])
    for number, line in enumerate(lines[1:], start=2):
        try:
            interrupted.operations.append(from_record(_loads(line)))
        except ValueError as error:
            interrupted.damaged.append(DamagedLine(number, line, str(error)))
    return interrupted


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None


def _reserve(descriptor: int, size: int) -> None:
    """Make an empty file be of that size for a moment; OSError if there is no room for it."""
    if not size:
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            raise
    os.ftruncate(descriptor, 0)


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return _text.stripped(stream.read())
    except OSError:
        # An image that is not running has no /proc.
        return ""
