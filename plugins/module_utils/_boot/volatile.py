# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that forget their configuration at each reboot, as live systems do. Reads only."""

from __future__ import annotations

from typing import Mapping

from .._system.file_reads import FileReader
from .._system.mounts import Mount, mounts

_ETC = "/etc"
# rootfs is what an initramfs is unpacked into.
_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")
_UPPER = "upperdir="
_LOST = (
    "The boot files of this list are in memory (%s), so the next boot does not have them unless "
    "something restores them. Add them to what this host boots from, or apply the list after each "
    "boot"
)


def warning(files: FileReader) -> str | None:
    """Return a sentence if what is written to /etc is lost at reboot; None if that is not known.

    Of an overlay, what is written is in its upper directory. A container does not see that.
    """
    mounted = mounts(files)
    point = _mount_point(mounted, _ETC)
    if point is None:
        return None
    mount = mounted[point]
    if mount.kind in _IN_MEMORY:
        return _LOST % ("%s on %s" % (mount.kind, point))
    for option in mount.options if mount.kind == "overlay" else ():
        if option.startswith(_UPPER):
            upper = option[len(_UPPER) :]
            below = _mount_point(mounted, upper)
            if below not in (None, point) and mounted[below].kind in _IN_MEMORY:
                return _LOST % (
                    "an overlay on %s, with %s on %s" % (point, mounted[below].kind, below)
                )
    return None


def _mount_point(mounted: Mapping[str, Mount], path: str) -> str | None:
    """Return where the file system is mounted that has a path."""
    while path not in mounted:
        if path in ("", "/"):
            return None
        path = path.rpartition("/")[0] or "/"
    return path
