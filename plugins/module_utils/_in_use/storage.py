# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks, flash memory and shared files in use, or that a boot uses, through all that is stacked on
them.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Iterator, Mapping

from .. import _text
from .._system.processes import Mounts
from .._system.sysfs import KernelBlockedError
from .configured_flash import attached_now
from .flash import MTD_BLOCK_MAJOR, FlashName, flash_name
from .kinds import STORAGE, Hazard
from .use_kind import ClassCheck, Entry, Sources, UseKind
from .virtio_shares import BUS, P9, share_of, use_of_share


class Storage(UseKind):
    name = STORAGE
    is_of_user_space = True
    fatal_remedy = (
        "Unmount it and end what uses its files; a mounted 9p device is never unbound, because the "
        "kernel would wait for that for ever"
    )

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._used: dict[str, str] | None = None
        self._loops: dict[str, list[str]] | None = None

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {
            "block": ClassCheck(self._use_of_disk, judges_below=True),
            "nvme": ClassCheck(self._use_of_disk, self._behind_controller, judges_node=True),
            "mtd": ClassCheck(self._use_of_flash),
        }

    @property
    def configured(self) -> Mapping[str, ClassCheck]:
        return {
            "block": ClassCheck(self._configured_use, judges_below=True),
            "nvme": ClassCheck(self._configured_use, self._behind_controller),
            "mtd": ClassCheck(self._configured_flash),
            BUS: ClassCheck(self._configured_share),
        }

    def of_bound(self, entry: Entry, subsystem: str) -> list[Hazard]:
        """Return the use of a virtio device that shares files.

        p9_virtio_remove in net/9p/trans_virtio.c waits until nobody has it mounted;
        virtio_fs_remove in fs/fuse/virtio_fs.c leaves what is mounted without answers (ENOTCONN).
        """
        share = share_of(self.sysfs, entry.path, entry.name) if subsystem == BUS else None
        if share is None:
            return []
        use = use_of_share(self.sysfs, share, self._mounts.mounts)
        uses = [use] if use else self._mounts.unknown[:1]
        is_fatal = share.kind == P9 and bool(use)
        return [
            Hazard(self.name, entry.name, "%s: %s" % (share.label, use), is_fatal) for use in uses
        ]

    def _configured_share(self, entry: Entry) -> str | None:
        share = share_of(self.sysfs, entry.path, entry.name)
        use = self.sources.configured.share(share.kind, share.tag) if share else None
        return "%s: it is %s" % (share.label, use) if share and use else None

    def _use_of_disk(self, entry: Entry) -> str | None:
        uses = [
            use
            for block, number in self._stack(entry.path)
            for use in [self._use_of_block(block, number)]
            if use
        ]
        if not uses:
            uses = self._claim(entry.name) or self._mounts.unknown[:1]
        return "disk %s: %s" % (entry.name, ", ".join(uses)) if uses else None

    def _configured_use(self, entry: Entry) -> str | None:
        blocks = [block for block, _number in self._stack(entry.path)]
        uses = self.sources.configured.blocks(blocks)
        return "disk %s: %s" % (entry.name, uses) if uses else None

    def _configured_flash(self, entry: Entry) -> str | None:
        index = _index_of(entry)
        if index is None:
            return None
        uses = self.sources.configured.flash(index, entry.read("name"))
        return "flash %s: %s" % (entry.name, uses) if uses else None

    def _use_of_flash(self, entry: Entry) -> str | None:
        name = entry.name
        index = _index_of(entry)
        if index is None:
            return None
        used = self._used_blocks().get("%d:%s" % (MTD_BLOCK_MAJOR, index))
        uses = ["%s %s" % (name, used)] if used else []
        for ubi, mtd in attached_now(self.sysfs).items():
            if mtd == index:
                uses += ["%s is part of ubi%s" % (name, ubi), *self._mounted_volumes(ubi)]
                uses += self._used_volume_blocks(ubi)
        uses = uses or self._mounts.unknown[:1]
        return "flash %s: %s" % (name, ", ".join(uses)) if uses else None

    def _mounted_volumes(self, ubi: str) -> list[str]:
        volume = FlashName(ubi=ubi)
        return [
            "%s is mounted on %s" % (_text.printable(mount.source), mount.mount_point)
            for mount in self._mounts.mounts
            if flash_name(mount.source) == volume
        ]

    def _used_volume_blocks(self, ubi: str) -> list[str]:
        """Return the uses of block devices of volumes: squashfs, a map for dm-verity, swap.

        The kernel calls the root file system's source /dev/root, so that it tells no volume:
        ubiblock_create in drivers/mtd/ubi/block.c.
        """
        pattern = re.compile(r"ubiblock%s_\d+" % re.escape(ubi))
        return [
            use
            for name in self.sysfs.names("class/block")
            if pattern.fullmatch(name)
            for block, number in self._stack("class/block/" + name)
            for use in [self._use_of_block(block, number)]
            if use
        ]

    def _behind_controller(self, entry: Entry) -> Iterator[Entry]:
        """Yield the disks of an NVMe controller that the kernel shows below another device.

        With several paths to a disk it belongs to the subsystem, not to a controller
        (nvme_mpath_set_live in drivers/nvme/host/multipath.c).
        """
        subsystems = "class/nvme-subsystem"
        for subsystem in self.sysfs.names(subsystems):
            path = "%s/%s" % (subsystems, subsystem)
            if self.sysfs.link("%s/%s" % (path, entry.name)):
                for disk in self.sysfs.list_directories(path):
                    if self.sysfs.exists("%s/%s/holders" % (path, disk)):
                        yield entry._replace(path="%s/%s" % (path, disk), name=disk)

    def _use_of_block(self, block: str, number: str) -> str | None:
        used = self._used_blocks()
        # LVM and its like name what they make: drivers/md/dm-sysfs.c.
        given = self.sysfs.read("class/block/%s/dm/name" % block)
        label = "%s (%s)" % (block, _text.printable(given)) if given else block
        if number in used:
            return "%s %s" % (label, used[number])
        holders = self.sources.processes.holders("/dev/" + block, "b" + number)
        if holders:
            return "%s is held open by %s" % (label, _text.listed(holders))
        built = [*self.sysfs.names("class/block/%s/holders" % block), *self._loops_on(number)]
        return "%s is part of %s" % (label, ", ".join(built)) if built else None

    def _claim(self, name: str) -> list[str]:
        """Some file systems and exports (ZFS, further disks of btrfs, DRBD, iSCSI) show nowhere."""
        try:
            is_claimed = self.sysfs.is_claimed("/dev/" + name)
        except KernelBlockedError:
            return ["%s does not answer" % name]
        return ["it is in use by the kernel, which does not report the user"] if is_claimed else []

    def _stack(self, path: str) -> list[tuple[str, str]]:
        """Return a disk, its partitions and what is stacked on them: (name, major:minor)."""
        stack: list[tuple[str, str]] = []
        waiting = [path]
        while waiting:
            block = waiting.pop(0)
            name = block.rpartition("/")[2]
            number = self.sysfs.read(block + "/dev")
            if number is None or (name, number) in stack:
                continue
            stack.append((name, number))
            waiting += [
                "%s/%s" % (block, entry)
                for entry in self.sysfs.list_directories(block)
                if self.sysfs.exists("%s/%s/partition" % (block, entry))
            ]
            holders = block + "/holders/"
            waiting += [holders + holder for holder in self.sysfs.names(holders)]
            waiting += ["class/block/" + loop for loop in self._loops_on(number)]
        return stack

    def _loops_on(self, number: str) -> list[str]:
        """A loop device is no holder of the disk that it is set up on."""
        if self._loops is None:
            self._loops = self._read_loops()
        return self._loops.get(number, [])

    def _read_loops(self) -> dict[str, list[str]]:
        loops: dict[str, list[str]] = {}
        for name in self.sysfs.names("class/block"):
            backing = self.sysfs.read("class/block/%s/loop/backing_file" % name)
            number = _number_of(backing) if backing else None
            if number:
                loops.setdefault(number, []).append(name)
        return loops

    @functools.cached_property
    def _mounts(self) -> Mounts:
        return self.sources.processes.mounts()

    def _used_blocks(self) -> dict[str, str]:
        if self._used is None:
            self._used = self._read_used()
        return self._used

    def _read_used(self) -> dict[str, str]:
        """Return what each block device in use is used for, by its major:minor."""
        used: dict[str, str] = {}
        for path in self._mounts.swaps:
            number = _number_of(path)
            if number:
                used[number] = "is swap"
        for mount in self._mounts.mounts:
            sentence = "is mounted on %s" % mount.mount_point
            used.setdefault(mount.number, sentence)
            # btrfs and its like have a number of their own; the source tells the block device.
            number = _number_of(mount.source)
            if number:
                used.setdefault(number, sentence)
        return used


def _index_of(entry: Entry) -> str | None:
    """Return the number of an MTD device; None for another device of the class, such as mtd0ro."""
    index = entry.name[len("mtd") :]
    return None if _text.number(index) is None else index


def _number_of(node: str) -> str | None:
    """major:minor of a block device's node; files elsewhere may be on a server that is gone."""
    if not node.startswith("/dev/"):
        return None
    try:
        number = os.stat(_text.usable_path(node)).st_rdev
    except OSError:
        return None
    return "%d:%d" % (os.major(number), os.minor(number))
