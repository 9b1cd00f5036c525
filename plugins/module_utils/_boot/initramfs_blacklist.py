# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel parameters by which scripts of an initramfs write a blacklist for modprobe. Reads only."""

from __future__ import annotations

from typing import Sequence

from .. import _text
from .._system.files import Files
from .._system.kernel_parameters import KERNEL_COMMAND_LINE, parameters_of_any_reader
from .._system.kmod import canonical_name

_OF_DRACUT = ("rd.driver.blacklist", "rdblacklist")
_OF_INITRAMFS_TOOLS = "blacklist="


def by_dracut(files: Files, modules: Sequence[str]) -> list[str]:
    """Return the parameters of dracut that keep ``modules`` from being loaded in the initramfs.

    getargs in modules.d/*base/dracut-lib.sh: since dracut 057 as the kernel splits them, before at
    each blank.
    """
    parameters = parameters_of_any_reader(files.read(KERNEL_COMMAND_LINE) or "") if modules else ()
    return [
        sentence
        for word in parameters
        if word.partition("=")[0] in _OF_DRACUT
        for sentence in _sentences(word, modules)
    ]


def by_initramfs_tools(files: Files, modules: Sequence[str]) -> list[str]:
    """Return the parameter of initramfs-tools that does so; the last one counts.

    init and scripts/init-top/blacklist: a shell cuts the line at its blanks, and keeps quotation
    marks.
    """
    words = _text.words(files.read(KERNEL_COMMAND_LINE) or "") if modules else []
    given = [word for word in words if word.startswith(_OF_INITRAMFS_TOOLS)]
    return _sentences(given[-1], modules) if given else []


def _sentences(word: str, modules: Sequence[str]) -> list[str]:
    names = {canonical_name(name) for name in word.partition("=")[2].split(",")}
    return [
        "%s has '%s', so %s is not loaded in the initramfs: devices that need it have no driver "
        "until the root file system is mounted" % (KERNEL_COMMAND_LINE, word, module)
        for module in modules
        if canonical_name(module) in names
    ]
