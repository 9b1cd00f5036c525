# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems that a host of virtual machines shares with this one through virtio: 9p, virtiofs.

They have no block device. What is mounted is named by the tag of its device. Reads only.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from .. import _text
from .._system.processes import Mount
from .._system.sysfs import Sysfs

BUS = "virtio"
P9 = "9p"
_P9_DRIVER = "9pnet_virtio"
# Types of file system by the drivers of their devices, whose names are those of their modules:
# net/9p/trans_virtio.c and fs/fuse/virtio_fs.c.
TYPES: Mapping[str, str] = {_P9_DRIVER: P9, "virtiofs": "virtiofs"}


class Share(NamedTuple):
    """A virtio device that shares files: its name, the type of file system, and its tag.

    The tag is None if the kernel does not show it: of virtiofs before Linux 6.9.
    """

    name: str
    kind: str
    tag: str | None

    @property
    def label(self) -> str:
        tag = "" if self.tag is None else " " + _text.printable(self.tag)
        return "%s (%s%s)" % (self.name, self.kind, tag)


def share_of(sysfs: Sysfs, path: str, name: str) -> Share | None:
    """Return what a virtio device with this directory shares, or None for other devices."""
    kind = TYPES.get(sysfs.link_name(path + "/driver") or "")
    if kind is None:
        return None
    if kind == P9:
        return Share(name, kind, _tag_of_9p(sysfs, path))
    return Share(name, kind, _tag_of_virtiofs(sysfs, name))


def use_of_share(sysfs: Sysfs, share: Share, mounts: Sequence[Mount]) -> str | None:
    """Return where a share is mounted, as a clause, or None."""
    of_kind = [mount for mount in mounts if mount.kind == share.kind]
    if share.tag is None:
        points = [mount.mount_point for mount in of_kind]
        return "it may be mounted on %s" % ", ".join(points) if points else None
    points = [mount.mount_point for mount in of_kind if mount.source == share.tag]
    if points:
        return "it is mounted on %s" % ", ".join(points)
    if share.kind == P9 and _has_hidden_client(sysfs, of_kind):
        return "it may be in use by a mount that is no longer visible (module %s)" % _P9_DRIVER
    return None


def _tag_of_9p(sysfs: Sysfs, path: str) -> str | None:
    # With a NUL at its end, and no newline: p9_mount_tag_show in net/9p/trans_virtio.c.
    return next(iter(sysfs.strings(path + "/mount_tag")), None)


def _tag_of_virtiofs(sysfs: Sysfs, name: str) -> str | None:
    # virtio_fs_add_instance in fs/fuse/virtio_fs.c.
    for number in sysfs.names("fs/virtiofs"):
        if sysfs.link_name("fs/virtiofs/%s/device" % number) == name:
            return sysfs.read("fs/virtiofs/%s/tag" % number)
    return None


def _has_hidden_client(sysfs: Sysfs, mounts: Sequence[Mount]) -> bool:
    """Return whether there are more clients of virtio than mounts, as after "umount --lazy".

    Each client has a reference to the module: v9fs_get_trans_by_name in net/9p/mod.c.
    """
    clients = _text.number(sysfs.read("module/%s/refcnt" % _P9_DRIVER))
    if not clients:
        return False
    home = "bus/%s/drivers/%s" % (BUS, _P9_DRIVER)
    tags = {_tag_of_9p(sysfs, "%s/%s" % (home, name)) for name in sysfs.names(home)}
    return clients > len({mount.number for mount in mounts if mount.source in tags})
