# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records writes to a machine, and injects the faults that a test sets."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from .tree import failure


class Write(NamedTuple):
    """A write to a file of /sys, and its errno (0 for success)."""

    path: str
    data: bytes
    code: int


class Fault(NamedTuple):
    """A fault at the ``number``-th write from now on; 1 is the next one.

    The write fails with errno ``code``. Without a code, the processes ``kill`` are killed instead
    of the write or, with ``is_after``, after it.
    """

    number: int
    code: int = 0
    kill: tuple[int, ...] = ()
    is_after: bool = False


@dataclass
class Watch:
    """All writes, in order; ``fault`` is for a future one."""

    writes: list[Write] = field(default_factory=list)
    fault: Fault | None = None
    _left: int = 0

    def arm(self, fault: Fault) -> None:
        self.fault = fault
        self._left = fault.number

    def take(self) -> list[Write]:
        """Return the writes since the last call."""
        writes, self.writes = self.writes, []
        return writes

    def around(self, path: str, data: bytes, write: Callable[[bytes], None]) -> None:
        """Do the write, or inject the fault that is set for it."""
        fault = self._due()
        code = 0
        try:
            if fault and fault.code:
                raise failure(fault.code)
            if fault and fault.kill and not fault.is_after:
                _kill(fault)
                raise failure(errno.EINTR)
            write(data)
        except OSError as error:
            code = error.errno or 0
            raise
        finally:
            self.writes.append(Write(path, data, code))
            if fault and fault.is_after:
                _kill(fault)

    def _due(self) -> Fault | None:
        if self.fault is None:
            return None
        self._left -= 1
        if self._left:
            return None
        fault, self.fault = self.fault, None
        return fault


def _kill(fault: Fault) -> None:
    for pid in fault.kill:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
