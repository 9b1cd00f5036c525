# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a file is replaced at once, and what can prevent it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
import tempfile

from .file_reads import failure
from .files import mode_of

_TEMPORARY = ".armfleet-vfio-"

# FS_IOC_GETFLAGS and its flags in include/uapi/linux/fs.h, as arm and x86 have them.
_GET_FLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


class StagedFile:
    """A file's new content, written in full beside the file, or that it shall not be.

    ``commit`` or ``discard`` ends it; neither needs any more space.
    """

    def __init__(self, root: str, path: str, content: str | None, owner: tuple[int, int]) -> None:
        self.path = path
        self._owner = owner
        self._file = root + path
        self._directory = os.path.dirname(self._file)
        self._made: list[str] = []
        self._temporary: str | None = None
        self._descriptor: int | None = None
        if content is None:
            return
        try:
            self._write(content)
        except OSError as error:
            self.discard()
            raise failure("write", path, error) from None
        except BaseException:
            self.discard()
            raise

    def _write(self, content: str) -> None:
        self._make_directory()
        # In the directory itself, so that it is on the same file system and gets the directory's
        # SELinux type. udev, modprobe and modules-load read only names with their own ending.
        remove_leftovers(self._directory)
        self._descriptor, self._temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._directory)
        # Until it is committed or discarded, so that no other run takes it for a leftover.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with os.fdopen(os.dup(self._descriptor), "wb") as stream:
            stream.write(content.encode("utf-8", "surrogateescape"))
        os.fchmod(self._descriptor, mode_of(content))
        # A directory can give its own group to what is made in it.
        if self._owner != _owner_of(self._descriptor):
            os.fchown(self._descriptor, *self._owner)
        os.fsync(self._descriptor)

    def _make_directory(self) -> None:
        missing = []
        directory = self._directory
        while not os.path.lexists(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            os.mkdir(directory, 0o755)
            self._made.append(directory)

    def commit(self) -> None:
        """Make the file be this one or, without content, not be."""
        try:
            if self._temporary is None:
                _remove(self._file)
            else:
                os.rename(self._temporary, self._file)
                self._temporary, self._made = None, []
                _fsync_directory(self._directory)
        except OSError as error:
            raise failure("write", self.path, error) from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave what was not committed as if nothing had been prepared."""
        with contextlib.suppress(OSError):
            if self._temporary is not None:
                os.unlink(self._temporary)
            for directory in reversed(self._made):
                os.rmdir(directory)
        self._temporary, self._made = None, []
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def remove_leftovers(directory: str) -> None:
    """Remove what runs that were killed left behind; a run that goes on has its file locked."""
    for name in os.listdir(directory):
        if name.startswith(_TEMPORARY):
            # Another run may be quicker.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                left = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(os.path.join(directory, name))
                finally:
                    os.close(left)


def find_obstacle(file: str, size: int) -> tuple[int | None, str]:
    """Return the errno that replacing ``file`` would meet, or None, and its nearest directory."""
    directory = os.path.dirname(file)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    return _find_obstacle(file, directory, size), directory


def _find_obstacle(file: str, directory: str, size: int) -> int | None:
    if not os.path.isdir(directory):
        return errno.ENOTDIR
    status = os.statvfs(directory)
    if status.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if _is_unchangeable(directory) or _is_unchangeable(file):
        return errno.EPERM
    if not os.access(directory, os.W_OK | os.X_OK):
        return errno.EACCES
    if _is_mounted_on(file):
        return errno.EBUSY
    # A file system that does not count them says 0 of 0.
    is_full = status.f_blocks and status.f_bfree * status.f_frsize < size
    has_no_inode = status.f_files and not status.f_ffree
    return errno.ENOSPC if size and (is_full or has_no_inode) else None


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _fsync_directory(os.path.dirname(path))


def _owner_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_uid, status.st_gid


def _fsync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_unchangeable(path: str) -> bool:
    """Return whether it has an attribute of chattr(1) that keeps even root from replacing it."""
    flags = bytearray(8)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.ioctl(descriptor, _GET_FLAGS, flags)
        finally:
            os.close(descriptor)
    except OSError:
        # It is not there, or its file system has no such attributes.
        return False
    return bool(int.from_bytes(flags[:4], sys.byteorder) & (_IMMUTABLE | _APPEND_ONLY))


def _is_mounted_on(file: str) -> bool:
    """Return whether the file is a mount of its own, as a container's can be."""
    path = os.path.join(os.path.realpath(os.path.dirname(file)), os.path.basename(file))
    try:
        with open("/proc/self/mountinfo", "rb") as stream:
            return any(line.split(b" ", 5)[4] == os.fsencode(path) for line in stream)
    except (OSError, IndexError):
        return False
