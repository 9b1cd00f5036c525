# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that forget their configuration at each reboot, as live systems do. Reads only."""

from __future__ import annotations

import os
import re
from typing import Iterable, Mapping

from .. import _text
from .._system.file_reads import FileReader
from .._system.mounts import Mount, mounts

# rootfs is what an initramfs is unpacked into.
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs"})
_RAM_DISK = re.compile(r"/dev/z?ram\d+\Z")
_OVERLAY, _UPPER = "overlay", "upperdir="
_LOST = (
    "The boot files of this list are in memory (%s), so the next boot does not have them unless "
    "something restores them. Add them to what this host boots from, or apply the list after each "
    "boot"
)


def warning(files: FileReader, paths: Iterable[str]) -> str | None:
    """Return a sentence if what is written to ``paths`` is lost at reboot; None if not known.

    File systems are compared by device number. The upper directory of an overlay has what is
    written, but its path is of the mount namespace that mounted it, which a container does not see.
    """
    mounted = mounts(files)
    in_memory = _by_device(files, {at: it for at, it in mounted.items() if _is_in_memory(it)})
    overlays = _by_device(files, {at: it for at, it in mounted.items() if it.kind == _OVERLAY})
    for directory in sorted({os.path.dirname(path) for path in paths}):
        device = _device_of(files, directory)
        if device in in_memory:
            return _LOST % _label(mounted, in_memory[device])
        at = overlays.get(device)
        upper = _upper_directory(mounted[at]) if at else None
        below = in_memory.get(_device(files, upper)) if upper else None
        if at and below:
            overlay = "an overlay on %s" % _text.printable(at)
            return _LOST % ("%s, with %s" % (overlay, _label(mounted, below)))
    return None


def _is_in_memory(mount: Mount) -> bool:
    return mount.kind in _IN_MEMORY or bool(_RAM_DISK.match(mount.source))


def _by_device(files: FileReader, mounted: Mapping[str, Mount]) -> dict[int | None, str]:
    """Return the mount points by device number; others are not looked at, since a server may hang.

    Of several mount points of one file system, the first one is taken.
    """
    by_device: dict[int | None, str] = {}
    for at in mounted:
        by_device.setdefault(_device(files, at), at)
    by_device.pop(None, None)
    return by_device


def _device_of(files: FileReader, directory: str) -> int | None:
    """Return the number for a directory that may have to be made."""
    device = _device(files, directory)
    while device is None and directory not in ("", "/"):
        directory = os.path.dirname(directory)
        device = _device(files, directory)
    return device


def _device(files: FileReader, path: str) -> int | None:
    version = files.version(path)
    return version[0] if version else None


def _upper_directory(mount: Mount) -> str | None:
    uppers = [option[len(_UPPER) :] for option in mount.options if option.startswith(_UPPER)]
    return uppers[0] if uppers else None


def _label(mounted: Mapping[str, Mount], at: str) -> str:
    return "%s on %s" % (_text.printable(mounted[at].kind), _text.printable(at))
