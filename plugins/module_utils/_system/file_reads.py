# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole files, read and compared: all that a run without changes needs of the gateway to files."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import time
from typing import NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._model.node_access import NodeAccess

_NO_DIRECTORY = "a component of this path is a file or a dangling link; move it away"
_NO_ROOM = "free space there, or have the quota raised, and run again"
# What a user can do about an errno of a file or its directory.
_ADVICE = {
    errno.EACCES: "set `become: true`",
    errno.EPERM: "set `become: true`, and check 'lsattr' for a file that cannot be changed",
    errno.ENOENT: _NO_DIRECTORY,
    errno.ENOTDIR: _NO_DIRECTORY,
    errno.EEXIST: _NO_DIRECTORY,
    errno.ELOOP: "its symbolic links lead in a circle; remove them",
    errno.EISDIR: "a directory has this file's name; move it away",
    errno.EBUSY: "something is mounted there; unmount it",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EROFS: "its file system is mounted read-only; remount it",
    errno.EIO: "the disk may be failing; see 'dmesg'",
}
_WITHOUT_BOOT_FILES = ", or set `persistent: false`"
# What a path answers that leads nowhere: a dangling link, a circle of links, a name too long to be.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_NULL = os.makedev(1, 3)
# What hides its namesakes in later directories: whatever has the name, what can be followed to
# something, or that if it is no directory.
ANY_ENTRY, WHAT_EXISTS, NO_DIRECTORY = "entry", "existing", "no directory"
# Many times as much as the longest that is read, a list of the kernel's symbols.
_LONGEST = 1 << 26
_LONGEST_START = 1 << 16


class FileStatus(NamedTuple):
    """What is at a path; ``kind`` is in words, ``mode`` the permissions."""

    is_regular: bool
    kind: str
    user: int
    group: int
    mode: int
    is_link: bool = False

    @property
    def label(self) -> str:
        return "%s:%s mode %04o" % (_user_name(self.user), _group_name(self.group), self.mode)

    @property
    def is_replaceable_by_others(self) -> bool:
        """Of a directory: whether others than root can put a file of their own into it."""
        return bool(
            self.user or self.mode & stat.S_IWOTH or (self.group and self.mode & stat.S_IWGRP)
        )


class FileReader:
    """Reads files below ``root``, which is empty for this machine itself."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def _located(self, path: str) -> str:
        return _text.usable_path(self._root + path)

    def read(self, path: str) -> str | None:
        """Return the content, or None if there is no such file."""
        try:
            return _content(path, _open_file(path, self._located(path)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure("read", path, error) from None

    def read_line(self, path: str, beginning: str) -> str | None:
        """Return the first line that begins so, of a file whose other lines change all the time."""
        lines = _text.lines(self.read(path) or "")
        return next((line for line in lines if line.startswith(beginning)), None)

    def read_drop_in(self, path: str) -> str | None:
        """As :meth:`read`, of a file of others; None also for what its readers skip.

        That is a directory, a socket, and a link that leads nowhere or in a circle.
        """
        try:
            return _content(path, _open_file(path, self._located(path)))
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ENXIO) or error.errno in _NOWHERE:
                return None
            raise failure("read", path, error) from None

    def read_start(self, path: str) -> str | None:
        """Return the first 64 KiB of a text file; None if it is none, or cannot be read."""
        try:
            descriptor = _open_file(path, self._located(path))
            try:
                content = _first_bytes(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, PolicyError):
            return None
        return None if b"\0" in content else content.decode("utf-8", "surrogateescape")

    def read_own(self, path: str) -> str | None:
        """As :meth:`read`, of what another run wrote; PolicyError if others may have written it."""
        try:
            descriptor = self._open_own(path)
            return None if descriptor is None else _content(path, descriptor)
        except OSError as error:
            raise failure("read", path, error) from None

    def own_changed_at(self, path: str) -> float | None:
        """As :meth:`changed_at`, of what another run wrote; PolicyError as of :meth:`read_own`."""
        try:
            descriptor = self._open_own(path)
            if descriptor is None:
                return None
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failure("read", path, error) from None

    def _open_own(self, path: str) -> int | None:
        """Open a file of state for reading; None without such a file.

        Names are resolved once: who can rename a directory or a file after the check must not
        choose what is read.
        """
        owner = self._owner[0]
        parent, name = os.path.split(path)
        # An administrator may have it on another disk, by a link.
        parent = os.path.realpath(self._located(parent))
        if not os.path.isdir(parent):
            return None
        try:
            directory = open_own(parent, os.O_RDONLY | os.O_DIRECTORY, owner)
            try:
                return open_own(name, os.O_RDONLY, owner, directory=(directory, parent))
            finally:
                os.close(directory)
        except FileNotFoundError:
            return None

    def status(self, path: str) -> FileStatus | None:
        """Return what is at a path, a link not followed; None if there is nothing."""
        try:
            status = os.lstat(self._located(path))
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            raise failure("read", path, error) from None
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device node")
        if stat.S_ISLNK(status.st_mode):
            kind += " to " + (self.link(path) or "nothing")
        return self._status(status, kind)

    def _status(self, status: os.stat_result, kind: str) -> FileStatus:
        # Files of an image belong to the one who made it.
        user, group = self._owner
        return FileStatus(
            is_regular=stat.S_ISREG(status.st_mode),
            kind=kind,
            user=0 if status.st_uid == user else status.st_uid,
            group=0 if status.st_gid == group else status.st_gid,
            mode=stat.S_IMODE(status.st_mode),
            is_link=stat.S_ISLNK(status.st_mode),
        )

    @property
    def _owner(self) -> tuple[int, int]:
        if not self._root:
            return 0, 0
        root = os.stat(self._root)
        return root.st_uid, root.st_gid

    def directories_above(self, path: str) -> dict[str, FileStatus]:
        """Return the directories from the root to that of ``path``, by path, links followed."""
        directories = {}
        while path not in ("", "/"):
            path = os.path.dirname(path)
            try:
                directories[path] = self._status(os.stat(self._located(path)), "a directory")
            except OSError:
                continue
        return directories

    def names(self, path: str) -> list[str]:
        """Return names in a directory, sorted; none where there is no such directory."""
        try:
            return sorted(os.listdir(self._located(path)))
        except OSError as error:
            if error.errno in _NOWHERE:
                return []
            raise failure("read", path, error) from None

    def drop_in_files(
        self, directories: Sequence[str], ending: str, ours: str, hiding: str = ANY_ENTRY
    ) -> list[str]:
        """Return foreign drop-in files of ``directories``, in the order of their names.

        A file hides its namesakes in the directories that come after its own; ``hiding`` is what
        else does so: ANY_ENTRY, WHAT_EXISTS or NO_DIRECTORY. So does ``ours``, which may not be
        written yet.
        """
        paths = {ours.rpartition("/")[2]: ours}
        for directory in directories:
            for name in self.names(directory):
                path = "%s/%s" % (directory, name)
                # kmod, systemd, udev and dracut skip hidden files.
                is_named = name.endswith(ending) and not name.startswith(".")
                if is_named and name not in paths and self._hides(path, hiding):
                    paths[name] = path
        return [paths[name] for name in sorted(paths) if paths[name] != ours]

    def _hides(self, path: str, hiding: str) -> bool:
        if hiding == ANY_ENTRY:
            return True
        try:
            status = os.stat(self._located(path))
        except OSError:
            return False
        return hiding == WHAT_EXISTS or not stat.S_ISDIR(status.st_mode)

    def is_executable(self, path: str) -> bool:
        """Return whether there is a program of that name."""
        return os.access(self._located(path), os.X_OK)

    def is_same(self, path: str, other: str) -> bool | None:
        """Return whether both are the same file or directory; None if that cannot be seen."""
        try:
            return os.path.samefile(self._located(path), self._located(other))
        except OSError:
            return None

    def changed_at(self, path: str) -> float | None:
        """Return the mtime in seconds since 1970, or None if there is no file."""
        try:
            return os.stat(self._located(path)).st_mtime
        except OSError:
            return None

    def placed_at(self, path: str) -> float | None:
        """Return the ctime, which no package sets, in seconds since 1970; None if not there."""
        try:
            return os.stat(self._located(path)).st_ctime
        except OSError:
            return None

    def is_past(self, moment: float) -> bool:
        """Return whether a moment of :meth:`changed_at` has come, by the clock of today."""
        return moment <= time.time()

    def version(self, path: str) -> tuple[int, ...] | None:
        """Return what differs after a file was written or replaced; None without such a file."""
        try:
            status = os.stat(self._located(path))
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def node_access(self, path: str) -> NodeAccess | None:
        """Return group and mode of a device node, or None if there is no such node."""
        try:
            status = os.stat(self._located(path))
        except FileNotFoundError:
            return None
        return NodeAccess(_group_name(status.st_gid), "%04o" % stat.S_IMODE(status.st_mode))

    def block_number(self, path: str) -> str | None:
        """major:minor of a block device's node; None if there is no such node."""
        try:
            status = os.stat(self._located(path))
        except OSError:
            return None
        number = status.st_rdev
        is_block = stat.S_ISBLK(status.st_mode)
        return "%d:%d" % (os.major(number), os.minor(number)) if is_block else None

    def links(self, path: str) -> dict[str, str]:
        """Return the targets of the links in a directory, by path."""
        return {
            "%s/%s" % (path, name): self.link("%s/%s" % (path, name)) or ""
            for name in self.names(path)
        }

    def link(self, path: str) -> str | None:
        """Return where a link leads; None if there is none."""
        try:
            return os.readlink(self._located(path))
        except OSError as error:
            # EINVAL is of something that is no link.
            if error.errno == errno.EINVAL or error.errno in _NOWHERE:
                return None
            raise failure("read", path, error) from None


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def open_own(
    path: str, flags: int, owner: int, mode: int = 0o600, directory: tuple[int, str] | None = None
) -> int:
    """Open what ``owner`` alone can have written; OSError as of ``os.open``.

    PolicyError if it is a link, another kind of file, or if others own it or can write to it. With
    O_DIRECTORY it is a directory, else a regular file. ``path`` is relative to ``directory``, its
    descriptor and its name in messages, if that is given.
    """
    is_directory = flags & os.O_DIRECTORY
    parent, label = None, path
    if directory is not None:
        parent, label = directory[0], os.path.join(directory[1], path)
    _check_openable(path, parent, label)
    safely = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, safely, mode, dir_fd=parent)
    except OSError as error:
        # Of a link, of a socket or FIFO, and of what is no directory.
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise
        raise _not_own(label, os.lstat(path, dir_fd=parent)) from None
    status = os.fstat(descriptor)
    is_right = stat.S_ISDIR(status.st_mode) if is_directory else stat.S_ISREG(status.st_mode)
    if is_right and status.st_uid == owner and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return descriptor
    os.close(descriptor)
    raise _not_own(label, status)


def _check_openable(path: str, parent: int | None, label: str) -> None:
    """Refuse links, FIFOs and their like before they are opened: that starts a watchdog."""
    try:
        status = os.stat(path, dir_fd=parent, follow_symlinks=False)
    except OSError:
        # To open it has the same error, or creates it.
        return
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise _not_own(label, status)


def _not_own(path: str, status: os.stat_result) -> PolicyError:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device node")
    label = "%s:%s mode %04o" % (
        _user_name(status.st_uid),
        _group_name(status.st_gid),
        stat.S_IMODE(status.st_mode),
    )
    return PolicyError(
        "%s is %s (%s), so a user other than root may have written it. Find out who created it, "
        "remove it, and run again" % (path, kind, label)
    )


def _open_file(path: str, located: str) -> int:
    """Open what can be read to its end at once; PolicyError for a FIFO and its like.

    These are not opened at all: that fails for a socket, and starts a watchdog. ``path`` is for
    messages.
    """
    status = os.stat(located)
    is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL
    if is_null or stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        return os.open(located, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device node")
    raise PolicyError(
        "Cannot read %s: it is %s, not a regular file. Remove it, and run again" % (path, kind)
    )


def _first_bytes(descriptor: int) -> bytes:
    content = b""
    # Files of /proc give a page at a time.
    while len(content) < _LONGEST_START:
        part = os.read(descriptor, _LONGEST_START - len(content))
        if not part:
            break
        content += part
    return content


def _content(path: str, descriptor: int) -> str:
    """Read a whole file by its descriptor, and close it; ``path`` is for messages."""
    try:
        # Line ends as they are: a file with other ones is another file.
        stream = os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError:
        # Of a directory, which is left open.
        os.close(descriptor)
        raise
    with stream:
        content = stream.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise PolicyError(
            "Cannot read %s: it is longer than %d bytes. Remove it or shorten it, and run again"
            % (path, _LONGEST)
        )
    return content


def failure(verb: str, path: str, error: OSError) -> PolicyError:
    """Return what stopped a file from being read or written, with a remedy."""
    location = error.filename if isinstance(error.filename, str) else path
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    advice = _ADVICE.get(error.errno or 0, "see 'dmesg'")
    if error.errno == errno.EROFS and path.startswith("/etc/"):
        advice += _WITHOUT_BOOT_FILES
    return PolicyError(
        "Cannot %s %s: %s (%s, %s); %s" % (verb, path, error.strerror, code, location, advice)
    )
