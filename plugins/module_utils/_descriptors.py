# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices a process holds, by descriptors of every thread and by mappings. Reads only."""

from __future__ import annotations

import functools
import os
import re
import stat
import struct
import sys
from typing import Any, Callable

_DELETED = " (deleted)"
# Lines of /proc/PID/maps that may be mappings of a device: addresses and path. A mapping lasts
# after its descriptor was closed.
_MAPPED = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) .* ((?:/[^\n]*)?/dev/(?!shm/|zero)[^\n]*|anon_inode:\[vfio[^\n]*)$",
    re.MULTILINE,
)
# kcmp(2); KCMP_FILES of include/uapi/linux/kcmp.h. Its number in 64-bit programs.
_KCMP = {"aarch64": 272, "riscv64": 272, "x86_64": 312}
_KCMP_FILES = 2
# statx(2) without asking a server: AT_STATX_DONT_SYNC and STATX_TYPE.
_AT_FDCWD, _DONT_SYNC, _TYPE = -100, 0x4000, 1
_STATX_BYTES, _MODE_OFFSET, _RDEV_OFFSET = 256, 28, 128


class Descriptors:
    """Reads what processes hold from ``proc``, where procfs is mounted.

    It ``is_complete`` unless descriptors of a process could not be read, as without root.
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self.is_complete = True

    def of(self, pid: str) -> set[str]:
        """Paths of the nodes that a process holds, and their numbers ("c1:3", "b254:0").

        Also what has neither, such as "anon_inode:[vfio-device]".
        """
        held: set[str] = set()
        for table in self._tables(pid):
            for name in self._names(table):
                self._add(held, "%s/%s" % (table, name))
        home = "%s/%s" % (self._proc, pid)
        for addresses, path in _MAPPED.findall(_content(home + "/maps")):
            self._add(held, "%s/map_files/%s" % (home, os.fsdecode(addresses)), os.fsdecode(path))
        return held

    def _names(self, table: str) -> list[str]:
        try:
            return os.listdir(table)
        except PermissionError:
            self.is_complete = False
            return []
        except OSError:
            # The process has ended.
            return []

    def _add(self, held: set[str], link: str, target: str | None = None) -> None:
        target = _target(link) if target is None else target
        if not target.startswith("/"):
            if target.startswith("anon_inode:"):
                held.add(target)
            return
        number = device_number(link, target)
        if number:
            held.add(number)
        if target.endswith(_DELETED):
            target = target[: -len(_DELETED)]
        if number or target.startswith("/dev/"):
            held.add(target)

    def _tables(self, pid: str) -> list[str]:
        """The folders of a process's descriptor tables; most processes have one."""
        threads = [one for one in _listing("%s/%s/task" % (self._proc, pid)) if one != pid]
        own = [thread for thread in threads if not _share_descriptors(int(pid), int(thread))]
        return [
            "%s/%s/fd" % (self._proc, pid),
            *("%s/%s/task/%s/fd" % (self._proc, pid, thread) for thread in own),
        ]


def device_number(link: str, target: str) -> str | None:
    """ "c" or "b" and major:minor of what a link in /proc leads to, or None if it is no device.

    The file may be on a server that is gone, so nothing is asked that could wait for it.
    """
    status = _status()
    if status is not None:
        found = status(link)
    elif target.startswith("/dev/"):
        try:
            here = os.stat(link)
        except OSError:
            return None
        found = here.st_mode, os.major(here.st_rdev), os.minor(here.st_rdev)
    else:
        return None
    if found is None:
        return None
    mode, major, minor = found
    kind = "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else None
    return kind and "%s%d:%d" % (kind, major, minor)


@functools.lru_cache(maxsize=None)
def _ctypes() -> tuple[Any, Any]:
    """The module and the C library."""
    import ctypes  # noqa: PLC0415  (most runs find no node that anybody could hold)

    return ctypes, ctypes.CDLL(None)


@functools.lru_cache(maxsize=None)
def _status() -> Callable[[str], tuple[int, int, int] | None] | None:
    """Mode, major and minor of a file by statx(2), which Python lacks; None if libc has none."""
    ctypes, libc = _ctypes()
    statx = getattr(libc, "statx", None)
    if statx is None:
        return None
    buffer = ctypes.create_string_buffer(_STATX_BYTES)

    def status(link: str) -> tuple[int, int, int] | None:
        if statx(_AT_FDCWD, os.fsencode(link), _DONT_SYNC, _TYPE, buffer):
            return None
        (mode,) = struct.unpack_from("=H", buffer, _MODE_OFFSET)
        major, minor = struct.unpack_from("=II", buffer, _RDEV_OFFSET)
        return mode, major, minor

    return status


def _share_descriptors(process: int, thread: int) -> bool:
    """Whether a thread surely has the descriptors of its process."""
    number = _KCMP.get(os.uname().machine) if sys.maxsize > 2**32 else None
    if number is None:
        return False
    _module, libc = _ctypes()
    return bool(libc.syscall(number, process, thread, _KCMP_FILES, 0, 0) == 0)


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""
