# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each boot uses flash memory for by the host's configuration. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .. import _text
from .._system.sysfs import Sysfs
from .flash import FlashName, attachments, flash_name


class ConfiguredSource(NamedTuple):
    """What a file names: as it is ``called``, as the ``node`` that this leads to, and its use.

    ``use`` is a clause, such as "in /etc/fstab for /data".
    """

    called: str
    node: str
    use: str


class ConfiguredFlash:
    """``sources`` are what is mounted or read at each boot, ``parameters`` the values of the
    parameter ``mtd`` of the module ubi, each with the clause of its use.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        sources: Sequence[ConfiguredSource],
        parameters: Sequence[tuple[str, str]],
    ) -> None:
        self._sources = [
            (source, name) for source in sources for name in [flash_name(source.node)] if name
        ]
        attached = attachments([value for value, _use in parameters])
        uses = [use for _value, use in parameters]
        self._attached = list(zip(attached, uses))
        self._present = attached_now(sysfs) if self._sources else {}

    def uses_of(self, index: str, label: str) -> list[str]:
        """Return what an MTD device, by its number and its name, will be used for, as sentences.

        What is on a UBI device that is not attached, and that no parameter attaches, may be on any
        MTD device that is part of no other one.
        """
        names = FlashName(mtd=index), FlashName(label=label)
        volumes_on_it = self._ubis_on(index, names)
        uses = [
            "mtd%s is %s" % (index, use)
            for attachment, use in self._attached
            if attachment.flash in names
        ]
        for source, name in self._sources:
            called = _text.printable(source.called)
            if name in names:
                uses.append("mtd%s is %s" % (index, source.use))
            elif name.ubi in volumes_on_it:
                uses.append("%s, which is on mtd%s, is %s" % (called, index, source.use))
            elif name.ubi and not volumes_on_it and not self._is_attached(name.ubi):
                uses.append("%s, which may be on mtd%s, is %s" % (called, index, source.use))
        return uses

    def _ubis_on(self, index: str, names: Sequence[FlashName]) -> set[str]:
        """Return the numbers of the UBI devices on an MTD device, of which there is at most one."""
        present = {ubi for ubi, mtd in self._present.items() if mtd == index}
        return present or {
            attachment.ubi for attachment, _use in self._attached if attachment.flash in names
        }

    def _is_attached(self, ubi: str) -> bool:
        return ubi in self._present or any(
            attachment.ubi == ubi for attachment, _use in self._attached
        )


def attached_now(sysfs: Sysfs) -> dict[str, str]:
    """Return the numbers of the MTD devices of the UBI devices, by the numbers of these."""
    numbers = {}
    for ubi in sysfs.names("class/ubi"):
        # mtd_num in drivers/mtd/ubi/build.c; volumes have none.
        mtd = sysfs.read("class/ubi/%s/mtd_num" % ubi)
        if mtd is not None:
            numbers[ubi[len("ubi") :]] = mtd
    return numbers
