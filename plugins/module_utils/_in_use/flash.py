# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How mounts, files and kernel parameters name flash memory. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .. import _text

# MTD_BLOCK_MAJOR, which a file system on an MTD device has for its own: get_tree_mtd in
# drivers/mtd/mtdsuper.c.
MTD_BLOCK_MAJOR = 31
_MTD = re.compile(r"(?:/dev/)?mtd(?:block)?(\d+)(?:ro)?\Z")
_MTD_BLOCK = re.compile(r"%d:(\d+)\Z" % MTD_BLOCK_MAJOR)
_VOLUME = re.compile(r"(?:/dev/)?ubi(?:block)?(\d+)_\d+\Z|ubi(\d*)[:!].|ubi\d+\Z")


class FlashName(NamedTuple):
    """What flash memory is named by: exactly one of the fields is set.

    ``mtd`` is the number of an MTD device, ``label`` its name, and ``ubi`` the number of the UBI
    device whose volume is meant. Numbers are decimal, without zeros before them.
    """

    mtd: str | None = None
    label: str | None = None
    ubi: str | None = None


class Attachment(NamedTuple):
    """The MTD device that a parameter of the module ubi attaches, and the number that UBI gets."""

    flash: FlashName
    ubi: str


def flash_name(source: str) -> FlashName | None:
    """Return what a source of a mount names, or None if that is no flash memory.

    MTD devices are named as in get_tree_mtd of drivers/mtd/mtdsuper.c (``mtd3``, ``mtd:label``,
    ``/dev/mtdblock3``, ``31:3``), volumes as in open_ubi of fs/ubifs/super.c: ``ubi1_0``,
    ``ubi1:label``, ``ubi1!label``; without a number, and as ``ubi0``, volumes of the first UBI.
    """
    number = _MTD.match(source) or _MTD_BLOCK.match(source)
    if number:
        return FlashName(mtd=_decimal(number[1]))
    if source.startswith("mtd:") and source != "mtd:":
        return FlashName(label=source[len("mtd:") :])
    volume = _VOLUME.match(source)
    return FlashName(ubi=_decimal(volume[1] or volume[2] or "0")) if volume else None


def attachments(values: Sequence[str]) -> list[Attachment]:
    """Return what the values of the parameter ``mtd`` of the module ubi attach, in their order.

    Their fields are those of ubi_mtd_param_parse in drivers/mtd/ubi/build.c: first a number, a
    label or a node, and in the fourth place the number for UBI, else the first one that is free.
    """
    attached: list[Attachment] = []
    for value in values:
        fields = value.split(",")
        wanted = fields[3] if len(fields) > 3 else ""
        taken = {attachment.ubi for attachment in attached}
        free = next(str(number) for number in range(len(taken) + 1) if str(number) not in taken)
        ubi = _decimal(wanted) if _text.number(wanted) is not None else free
        attached.append(Attachment(_attached(fields[0]), ubi))
    return attached


def _attached(text: str) -> FlashName:
    """Return what open_mtd_device in drivers/mtd/ubi/build.c opens."""
    if _text.number(text) is not None:
        return FlashName(mtd=_decimal(text))
    node = _MTD.match(text) if text.startswith("/dev/") else None
    return FlashName(mtd=_decimal(node[1])) if node else FlashName(label=text)


def _decimal(digits: str) -> str:
    return digits.lstrip("0") or "0"
