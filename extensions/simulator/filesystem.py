# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine's tree as a file system (FUSE) that behaves like sysfs."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import mfusepy

from .machine import Machine
from .modules import Modules
from .tree import Directory, Entry, File, Link, Tree, failure

_PAGE = 4096
_MODPROBE = "/modprobe"
_WANTED = {os.O_RDONLY: os.R_OK, os.O_WRONLY: os.W_OK, os.O_RDWR: os.R_OK | os.W_OK}


class _RunOfModprobe(File):
    """The request of one run of modprobe, and the answer of the simulator.

    modprobe writes its arguments, each followed by a NUL, and its configuration. From that offset,
    it reads a line with its exit status, and its output.
    """

    __slots__ = ("_answer", "_modules", "_said")

    def __init__(self, modules: Modules) -> None:
        super().__init__(mode=0o666)
        self._modules = modules
        self._said = b""
        self._answer = b""

    def write(self, data: bytes) -> None:
        self._said += data

    def read(self) -> bytes:
        if not self._answer:
            *arguments, configuration = self._said.decode(errors="replace").split("\0")
            code, output = self._modules.modprobe(arguments, configuration)
            self._answer = f"{code}\n{output}".encode()
        return self._said + self._answer


class FileSystem:
    """Serves the tree; calls ``when_mounted`` once the kernel has mounted it."""

    use_ns = True

    def __init__(self, machine: Machine, when_mounted: Callable[[], None]) -> None:
        self._machine = machine
        self._tree = Tree()
        self._tree.root.entries["sys"] = machine.tree.root
        self._tree.make_directory("dev").entries["vfio"] = machine.vfio.nodes.root
        self._tree.root.entries[_MODPROBE[1:]] = _RunOfModprobe(machine.modules)
        machine.kernel.provided.mount_number = _mount_number
        self._when_mounted = when_mounted
        self._open: dict[int, File] = {}
        self._handles = count(1)
        self._lock = threading.Lock()

    def init(self, _path: str) -> None:
        self._when_mounted()

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, Any]:
        entry = self._entry(path)
        common = {"st_uid": 0, "st_gid": 0, "st_nlink": 1}
        if isinstance(entry, Directory):
            directories = sum(isinstance(child, Directory) for child in entry.entries.values())
            return {**common, "st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2 + directories}
        if isinstance(entry, Link):
            return {**common, "st_mode": stat.S_IFLNK | 0o777, "st_size": len(entry.target)}
        return {
            "st_mode": stat.S_IFREG | entry.mode,
            "st_size": len(entry.content) if isinstance(entry.content, bytes) else _PAGE,
            "st_nlink": 1,
            "st_uid": entry.uid,
            "st_gid": entry.gid,
        }

    def readdir(self, path: str, _fh: int) -> list[tuple[str, int, int]]:
        """Return names with their types, as sysfs does, so that no stat of each is needed."""
        directory = self._entry(path)
        if not isinstance(directory, Directory):
            raise failure(errno.ENOTDIR)
        dots = [(name, stat.S_IFDIR, 0) for name in (".", "..")]
        return dots + [(name, _type(entry), 0) for name, entry in list(directory.entries.items())]

    def readlink(self, path: str) -> str:
        entry = self._entry(path)
        if not isinstance(entry, Link):
            raise failure(errno.EINVAL)
        return entry.target

    def open(self, path: str, flags: int) -> int:
        file = _RunOfModprobe(self._machine.modules) if path == _MODPROBE else self._file(path)
        _check_permission(file, _WANTED[flags & os.O_ACCMODE])
        uid, _gid, _pid = mfusepy.fuse_get_context()
        if file.is_for_root and uid:
            raise failure(errno.EPERM)
        with self._lock:
            if file.is_exclusive and file.opened:
                raise failure(errno.EBUSY)
            handle = next(self._handles)
            self._open[handle] = file
            file.opened += 1
        return handle

    def access(self, path: str, wanted: int) -> int:
        entry = self._entry(path)
        if isinstance(entry, File):
            _check_permission(entry, wanted)
        return 0

    def opendir(self, path: str) -> int:
        self._entry(path)
        return 0

    def release(self, _path: str, fh: int) -> int:
        with self._lock:
            self._open.pop(fh).opened -= 1
        with self._machine.kernel.changed:
            self._machine.kernel.changed.notify_all()
        return 0

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        return self._open[fh].read()[offset : offset + size]

    def write(self, path: str, data: bytes, _offset: int, fh: int) -> int:
        if path == _MODPROBE:
            self._open[fh].write(data)
        else:
            self._machine.watch.around(path.removeprefix("/sys/"), data, self._open[fh].write)
        return len(data)

    def truncate(self, path: str, _length: int, _fh: int | None = None) -> int:
        self._file(path)
        return 0

    def create(self, _path: str, _mode: int, _fi: object = None) -> int:
        raise failure(errno.EACCES)

    def mkdir(self, path: str, _mode: int) -> int:
        self._directory_in_dev(path).entries[_name(path)] = Directory()
        return 0

    def symlink(self, path: str, target: str) -> int:
        self._directory_in_dev(path).entries[_name(path)] = Link(target)
        return 0

    def unlink(self, path: str) -> int:
        del self._directory_in_dev(path).entries[_name(path)]
        return 0

    def rmdir(self, path: str) -> int:
        directory = self._entry(path)
        if isinstance(directory, Directory) and directory.entries:
            raise failure(errno.ENOTEMPTY)
        return self.unlink(path)

    def chmod(self, path: str, mode: int) -> int:
        self._file(path).mode = stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        file = self._file(path)
        file.uid, file.gid = (
            old if new in (-1, 2**32 - 1) else new
            for old, new in ((file.uid, uid), (file.gid, gid))
        )
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": _PAGE, "f_frsize": _PAGE, "f_namemax": 255}

    def _directory_in_dev(self, path: str) -> Directory:
        """Return the directory of ``path``; entries can be created in /dev, but not in sysfs."""
        directory = self._entry(path.rpartition("/")[0])
        if not path.startswith("/dev/vfio/") or not isinstance(directory, Directory):
            raise failure(errno.EPERM)
        return directory

    def _entry(self, path: str) -> Entry:
        entry = self._tree.lookup(path.strip("/"))
        if entry is None:
            raise failure(errno.ENOENT)
        return entry

    def _file(self, path: str) -> File:
        entry = self._entry(path)
        if not isinstance(entry, File):
            raise failure(errno.EISDIR)
        return entry


def _mount_number(mount_point: str) -> str | None:
    """Return the major:minor of what is mounted for the process that asks, or None."""
    _uid, _gid, pid = mfusepy.fuse_get_context()
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").split("\n")
    except OSError:
        return None
    # Of two mounts at one place, the last one is seen.
    for line in reversed(lines):
        fields = line.split()
        if fields[4:5] == [mount_point]:
            return fields[2]
    return None


def _check_permission(file: File, wanted: int) -> None:
    """Raise EACCES if the caller has no permission; supplementary groups are ignored.

    Root needs one permission bit as well: kernfs_fop_open in fs/kernfs/file.c.
    """
    uid, gid, _pid = mfusepy.fuse_get_context()
    granted = file.mode
    if uid:
        granted >>= 6 if uid == file.uid else 3 if gid == file.gid else 0
        granted &= 0o7
    if any(wanted & bit and not granted & bit * 0o111 for bit in (os.R_OK, os.W_OK)):
        raise failure(errno.EACCES)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _type(entry: Entry) -> int:
    if isinstance(entry, Directory):
        return stat.S_IFDIR
    return stat.S_IFLNK if isinstance(entry, Link) else stat.S_IFREG


def serve(machine: Machine, mount_point: Path, when_mounted: Callable[[], None]) -> None:
    """Mount the machine at ``mount_point`` and serve it until it is unmounted."""
    mfusepy.FUSE(
        FileSystem(machine, when_mounted),
        str(mount_point),
        foreground=True,
        raw_fi=False,
        allow_other=True,
        # Content and attributes are not cached, because a write to one file changes others. Only
        # lookups of directories are, for a second. Permission is not checked for the directories of
        # a path, but always for its last component.
        direct_io=True,
        attr_timeout=0,
        entry_timeout=1,
        fsname="armfleet-simulator",
    )
