# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices a process holds, by descriptors of every thread and by mappings. Reads only."""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import struct
import sys
from typing import Any, Callable, NamedTuple, Sequence

from . import proc_files

_DELETED = " (deleted)"
# Lines of /proc/PID/maps that may be mappings of a device: addresses and path (show_map_vma in
# fs/proc/task_mmu.c). A mapping lasts after its descriptor was closed.
_MAPPED = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) [^ \n]+ [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [0-9]+ +"
    rb"((?:/[^\n]*)?/dev/(?!shm/|zero)[^\n]*|anon_inode:\[vfio[^\n]*)$",
    re.MULTILINE,
)
# kcmp(2); KCMP_FILES of include/uapi/linux/kcmp.h. Its number in 64-bit programs.
_KCMP = {"aarch64": 272, "riscv64": 272, "x86_64": 312}
_KCMP_FILES = 2
# statx(2) without asking a server: AT_STATX_DONT_SYNC and STATX_TYPE.
_AT_FDCWD, _DONT_SYNC, _TYPE = -100, 0x4000, 1
_STATX_BYTES, _MODE_OFFSET, _RDEV_OFFSET = 256, 28, 128


class Held(NamedTuple):
    """What a process holds: devices by their numbers ("c1:3", "b254:0"), and by their paths.

    ``keys`` are also what has no number, such as "anon_inode:[vfio-device]", and the path of what
    may be a device and does not tell its number. ``threads`` are those of the process but for the
    first, as "PID/task/TID".
    """

    keys: set[str]
    paths: set[str]
    threads: Sequence[str]


class Descriptors:
    """Reads what processes hold from ``proc``, where procfs is mounted.

    It ``is_complete`` unless descriptors of a process could not be read, as without root.
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self.is_complete = True

    def of(self, pid: str) -> Held:
        """Return what a process has open in any of its threads, or mapped."""
        held = Held(set(), set(), self._threads(pid))
        for table in self._tables(pid, held.threads):
            for name in self._names(table):
                self._add(held, "%s/%s" % (table, name))
        # If the first thread has ended, the others have the memory that was its own.
        for task in (pid, *held.threads):
            maps = proc_files.content("%s/%s/maps" % (self._proc, task)) or b""
            for addresses, path in _MAPPED.findall(maps):
                # Each thread has this directory under its own number, and not below "task".
                mapping = (self._proc, task.rpartition("/")[2], os.fsdecode(addresses))
                self._add(held, "%s/%s/map_files/%s" % mapping, os.fsdecode(path))
            if maps:
                break
        return held

    def _threads(self, pid: str) -> list[str]:
        return [
            "%s/task/%s" % (pid, thread)
            for thread in proc_files.names("%s/%s/task" % (self._proc, pid))
            if thread != pid
        ]

    def _names(self, table: str) -> list[str]:
        try:
            return os.listdir(table)
        except PermissionError:
            self.is_complete = False
            return []
        except OSError:
            # The process has ended.
            return []

    def _add(self, held: Held, link: str, mapped: str | None = None) -> None:
        target = proc_files.link_target(link) if mapped is None else mapped
        if not target.startswith("/"):
            if target.startswith("anon_inode:"):
                held.keys.add(target)
            return
        path = target[: -len(_DELETED)] if target.endswith(_DELETED) else target
        try:
            number = device_number(link, target)
        except OSError as error:
            # Nobody but its own user reads a file system of his (fuse_allow_current_process in
            # fs/fuse/dir.c), and none of those has devices.
            is_there = mapped is not None or proc_files.link_target(link)
            if path.startswith("/dev/") and error.errno != errno.EACCES and is_there:
                held.keys.add(path)
                held.paths.add(path)
            return
        if number:
            held.keys.add(number)
            held.paths.add(path)

    def _tables(self, pid: str, threads: Sequence[str]) -> list[str]:
        """Return the directories of a process's descriptor tables; most processes have one."""
        own = [
            thread
            for thread in threads
            if not _share_descriptors(int(pid), int(thread.rpartition("/")[2]))
        ]
        return ["%s/%s/fd" % (self._proc, task) for task in (pid, *own)]


def device_number(link: str, target: str) -> str | None:
    """ "c" or "b" and major:minor of what a link in /proc leads to, or None if it is no device.

    OSError if that cannot be known. The file may be on a server that is gone, so nothing is asked
    that could wait for it.
    """
    status = _status()
    if status is not None:
        mode, major, minor = status(link)
    elif target.startswith("/dev/"):
        here = os.stat(link)
        mode, major, minor = here.st_mode, os.major(here.st_rdev), os.minor(here.st_rdev)
    else:
        return None
    kind = "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else None
    return kind and "%s%d:%d" % (kind, major, minor)


@functools.lru_cache(maxsize=None)
def _ctypes() -> tuple[Any, Any]:
    """Return the module and the C library."""
    import ctypes  # noqa: PLC0415  (most runs find no node that anybody could hold)

    return ctypes, ctypes.CDLL(None, use_errno=True)


@functools.lru_cache(maxsize=None)
def _status() -> Callable[[str], tuple[int, int, int]] | None:
    """Return mode, major and minor of a file by statx(2), or None if libc lacks it."""
    ctypes, libc = _ctypes()
    statx = getattr(libc, "statx", None)
    if statx is None:
        return None
    buffer = ctypes.create_string_buffer(_STATX_BYTES)

    def status(link: str) -> tuple[int, int, int]:
        if statx(_AT_FDCWD, os.fsencode(link), _DONT_SYNC, _TYPE, buffer):
            raise OSError(ctypes.get_errno(), "statx")
        (mode,) = struct.unpack_from("=H", buffer, _MODE_OFFSET)
        major, minor = struct.unpack_from("=II", buffer, _RDEV_OFFSET)
        return mode, major, minor

    return status


def _share_descriptors(process: int, thread: int) -> bool:
    """Return whether a thread surely has the descriptors of its process."""
    number = _KCMP.get(os.uname().machine) if sys.maxsize > 2**32 else None
    if number is None:
        return False
    _module, libc = _ctypes()
    return bool(libc.syscall(number, process, thread, _KCMP_FILES, 0, 0) == 0)
