# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only gateway to the kernel's log. Reads only."""

from __future__ import annotations

import errno
import os
import re
from typing import Iterator

from .. import _text

_RECORD = 8192
_MOST = 3


class KernelLog:
    """What the kernel says of devices from a moment on.

    ``path`` is a file as Documentation/ABI/testing/dev-kmsg describes it; where it is not there or
    may not be read, as in containers, nothing is said.
    """

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._path = path
        self._descriptor: int | None = None

    def begin(self) -> None:
        """From here on; what was said before does not count."""
        self.end()
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            self.end()

    def about(self, name: str) -> list[str]:
        """Return up to three of the last records since :meth:`begin` that contain ``name``.

        Each record is returned once.
        """
        # A name can be part of a longer one.
        pattern = re.compile(r"(?<![\w.-])%s(?![\w-])" % re.escape(name))
        return [text for text in self._texts() if pattern.search(text)][-_MOST:]

    def end(self) -> None:
        """Let go of the log."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _texts(self) -> Iterator[str]:
        while self._descriptor is not None:
            try:
                record = os.read(self._descriptor, _RECORD)
            except OSError as error:
                # Records were overwritten before they were read; the next read goes on after them.
                if error.errno == errno.EPIPE:
                    continue
                return
            if not record:
                return
            head, _semicolon, text = record.decode("utf-8", "replace").partition(";")
            # A fragment of user space's own ("facility" other than 0) is not the kernel's word.
            priority = _text.number(head.partition(",")[0])
            if priority is not None and priority < 8:
                yield text.partition("\n")[0]
