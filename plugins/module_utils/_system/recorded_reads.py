# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that a run reads of its host, so that a later run can ask whether all of it is the same.

What a run does depends on its options and on the answers of the gateways to /sys and to files. If
each answer is the same again, so is the result, and nothing has to be planned to know it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Callable, cast

from .files import Files
from .reads import READS, Read, canonical
from .sysfs import Sysfs

if TYPE_CHECKING:
    from .host import Host
    from .kmod import Kmod

# What modprobe and modinfo are asked that their files answer.
ASKED_OF_MODPROBE = frozenset(
    {
        "aliases",
        "aliases_at_once",
        "built_in_at_once",
        "claimants",
        "claimants_at_once",
        "command_instead",
        "is_available",
        "is_built_in",
        "parameter",
        "resolve",
        "resolve_at_once",
        "explain_missing",
        "without_modules",
    }
)


class Record:
    """What was read in a run, in order, and a digest of the answers.

    ``is_complete`` is whether nothing was done but reading, and every read had an answer.
    """

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self.is_complete = True
        self._answers = hashlib.sha256()
        self._known: dict[str, bytes] = {}

    @property
    def digest(self) -> str:
        """The digest of all answers, in hexadecimal digits."""
        return self._answers.hexdigest()

    def host(self, host: Host) -> Host:
        """Return the host with all that is read of /sys and of its files recorded.

        So are the files that modprobe answers ASKED_OF_MODPROBE from. Any other use of the other
        gateways ends the record: what they read is not recorded.
        """
        files = cast(Files, _Recorded(host.files, "files", self))
        return host._replace(
            sysfs=cast(Sysfs, _Recorded(host.sysfs, "sysfs", self)),
            kmod=cast("Kmod", _RecordedKmod(host.kmod, files, self)),
            files=files,
            log=self.unrecorded(host.log),
        )

    def unrecorded(self, gateway: object) -> Any:
        """Return the gateway such that any use of it ends the record."""
        return _Recorded(gateway, "", self)

    def add(self, read: Read, answer: object) -> None:
        """Add a read and its answer; two answers to the same read end the record."""
        content = canonical(answer)
        if self._known.setdefault(repr(read), content) is not content:
            self.is_complete &= self._known[repr(read)] == content
            return
        self.reads.append(read)
        self._answers.update(content)

    def end(self) -> None:
        """Take note that something was done that cannot be asked again."""
        self.is_complete = False


class _Recorded:
    """A gateway whose calls are recorded."""

    def __init__(self, gateway: object, label: str, record: Record) -> None:
        self._gateway = gateway
        self._label = label
        self._record = record

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._gateway, name)
        if not callable(attribute):
            # What is more than a text can read the host later on.
            if not (self._label and isinstance(attribute, str)):
                self._record.end()
            return attribute
        is_read = name in READS.get(self._label, ())
        function = self._reading(name, attribute) if is_read else self._acting(attribute)
        # The next call comes here no more.
        setattr(self, name, function)
        return function

    def _reading(self, method: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            try:
                answer = function(*arguments)
            except BaseException:
                self._record.end()
                raise
            self._record.add(Read(self._label, method, arguments), answer)
            return answer

        return read

    def _acting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            self._record.end()
            return function(*arguments, **options)

        return act


class _RecordedKmod(_Recorded):
    """modprobe, with the files that its answers come from recorded before it is asked."""

    def __init__(self, kmod: Kmod, files: Files, record: Record) -> None:
        super().__init__(kmod, "", record)
        self._kmod = kmod
        self._files = files

    def __getattr__(self, name: str) -> Any:
        if name not in ASKED_OF_MODPROBE:
            return super().__getattr__(name)
        self._kmod.read_sources(self._files)
        # No other question comes here any more: one reading is enough for all of them.
        for asked in ASKED_OF_MODPROBE:
            setattr(self, asked, getattr(self._kmod, asked))
        return getattr(self._kmod, name)
