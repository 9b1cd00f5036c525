# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only door to files: whole files, read, compared and replaced at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
import tempfile
from typing import NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model import NodeAccess

_TEMPORARY = ".armfleet-vfio-"

_NO_FOLDER = "a part of this path that has to be a folder is a file"
_NO_ROOM = "make room there, or have somebody raise the quota, and run again"
# What a user can do about an errno of a file or its folder.
_ADVICE = {
    errno.EACCES: "become root (become: true)",
    errno.EPERM: "become root (become: true), and see 'lsattr' for a file that may not be changed",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EROFS: "its file system is mounted read-only; remount it, or set `persistent: false`",
    errno.EIO: "the disk may be failing; see 'dmesg'",
}


_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_NULL = os.makedev(1, 3)
# Many times as much as the longest that is read, a list of the kernel's symbols.
_LONGEST = 1 << 26


class FileChange(NamedTuple):
    """A file's whole content before and after; None where it is or shall be absent.

    ``damage`` is why a file with the right content has to be replaced all the same. Where a run is
    rolled back the content alone comes back, not an owner who is not root.
    """

    path: str
    before: str | None
    after: str | None
    damage: Sequence[str] = ()

    @property
    def is_needed(self) -> bool:
        return self.before != self.after or bool(self.damage)


class FileStatus(NamedTuple):
    """What is at a path; ``kind`` is in words, ``mode`` the permissions."""

    is_regular: bool
    kind: str
    user: int
    group: int
    mode: int

    @property
    def label(self) -> str:
        return "%s:%s mode %04o" % (_user_name(self.user), _group_name(self.group), self.mode)

    @property
    def is_replaceable_by_others(self) -> bool:
        """Of a directory: whether others than root can put a file of their own into it."""
        return bool(
            self.user or self.mode & stat.S_IWOTH or (self.group and self.mode & stat.S_IWGRP)
        )


class Files:
    """Reads and replaces files below ``root``, which is empty for this machine itself."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def read(self, path: str) -> str | None:
        """The content, or None where there is no such file."""
        try:
            with open(
                self._root + path, encoding="utf-8", errors="surrogateescape", opener=_open_file
            ) as stream:
                content = stream.read(_LONGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure("read", path, error) from None
        if len(content) > _LONGEST:
            raise PolicyError("Cannot read %s: it is longer than %d bytes" % (path, _LONGEST))
        return content

    def status(self, path: str) -> FileStatus | None:
        """What is at a path, a link not followed; None where there is nothing."""
        try:
            found = os.lstat(self._root + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure("read", path, error) from None
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device node")
        if stat.S_ISLNK(found.st_mode):
            kind += " to " + (self.link(path) or "nothing")
        return self._status(found, kind)

    def _status(self, found: os.stat_result, kind: str) -> FileStatus:
        # Files of an image belong to the one who made it.
        user, group = self._owner
        return FileStatus(
            stat.S_ISREG(found.st_mode),
            kind,
            0 if found.st_uid == user else found.st_uid,
            0 if found.st_gid == group else found.st_gid,
            stat.S_IMODE(found.st_mode),
        )

    @property
    def _owner(self) -> tuple[int, int]:
        if not self._root:
            return 0, 0
        root = os.stat(self._root)
        return root.st_uid, root.st_gid

    def directories_above(self, path: str) -> dict[str, FileStatus]:
        """The directories from the root to that of ``path``, by their paths, links followed."""
        found = {}
        while path not in ("", "/"):
            path = os.path.dirname(path)
            try:
                found[path] = self._status(os.stat(self._root + path), "a directory")
            except OSError:
                continue
        return found

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        try:
            return sorted(os.listdir(self._root + path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise failure("read", path, error) from None

    def layered(self, folders: Sequence[str], ending: str, ours: str) -> list[str]:
        """Paths of others' files in a layered configuration, in the order of the files' names.

        A file hides its namesakes in the folders that come after its own. So does ``ours``, which
        may not be written yet.
        """
        found = {ours.rpartition("/")[2]: ours}
        for folder in folders:
            for name in self.names(folder):
                if name.endswith(ending):
                    found.setdefault(name, "%s/%s" % (folder, name))
        return [found[name] for name in sorted(found) if found[name] != ours]

    def is_executable(self, path: str) -> bool:
        """Whether there is a program of that name."""
        return os.access(self._root + path, os.X_OK)

    def changed_at(self, path: str) -> float | None:
        """When the content was last written, in seconds of the clock; None without such a file."""
        try:
            return os.stat(self._root + path).st_mtime
        except OSError:
            return None

    def placed_at(self, path: str) -> float | None:
        """When the file came here, whatever time its package gives it; None without such a file."""
        try:
            return os.stat(self._root + path).st_ctime
        except OSError:
            return None

    def put(self, path: str, content: str | None) -> None:
        """Make the file be ``content`` or, with None, not be; never half of it.

        Its mode is 0644, and 0755 for a script.
        """
        try:
            if content is None:
                _remove(self._root + path)
            else:
                _replace(self._root + path, content, self._owner)
        except OSError as error:
            raise failure("write", path, error) from None

    def node_access(self, path: str) -> NodeAccess | None:
        """Group and mode of a device node, or None where there is no such node."""
        try:
            status = os.stat(self._root + path)
        except FileNotFoundError:
            return None
        return NodeAccess(_group_name(status.st_gid), "%04o" % stat.S_IMODE(status.st_mode))

    def links(self, path: str) -> dict[str, str]:
        """Where the links in a folder lead, by their paths; nothing for what is no link."""
        return {
            "%s/%s" % (path, name): self.link("%s/%s" % (path, name)) or ""
            for name in self.names(path)
        }

    def link(self, path: str) -> str | None:
        """Where a link leads; None where there is none."""
        try:
            return os.readlink(self._root + path)
        except OSError as error:
            # EINVAL is of something that is no link.
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                return None
            raise failure("read", path, error) from None

    def point(self, path: str, target: str | None) -> None:
        """Make the link lead to ``target`` or, with None, not be, nor its folder if it was alone.

        PolicyError where something else is in its place.
        """
        try:
            if self.link(path) is not None:
                # udev may be quicker.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._root + path)
            self._link(path, target)
        except OSError as error:
            raise failure("link", path, error) from None

    def _link(self, path: str, target: str | None) -> None:
        folder = os.path.dirname(self._root + path)
        if target is None:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            return
        os.makedirs(folder, mode=0o755, exist_ok=True)
        try:
            os.symlink(target, self._root + path)
        except FileExistsError:
            if self.link(path) != target:
                raise

    def give_node(self, path: str, access: NodeAccess) -> None:
        """Set group and mode of a device node, where it is there; what is None is left."""
        try:
            if access.group is not None:
                os.chown(self._root + path, -1, _group_id(access.group))
            if access.mode is not None:
                os.chmod(self._root + path, int(access.mode, 8))
        except FileNotFoundError:
            return
        except (KeyError, OSError) as error:
            raise PolicyError("Cannot give %s %s: %s" % (path, access.label, error)) from None


def is_group(name: str) -> bool:
    """Whether this host has a group of that name."""
    try:
        _group_id(name)
    except KeyError:
        return False
    return True


def _group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid


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


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _settle(os.path.dirname(path))


def _replace(path: str, content: str, owner: tuple[int, int]) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    # In the folder itself, so that it is on the same file system and gets the folder's SELinux
    # type. udev, modprobe and modules-load read only names with their own ending.
    _clear(folder)
    descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode_of(content))
            # A directory can give its own group to what is made in it.
            if owner != _owner_of(stream.fileno()):
                os.fchown(stream.fileno(), *owner)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _settle(folder)


def _owner_of(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_uid, found.st_gid


def mode_of(content: str) -> int:
    """The permissions of a file with that content: those of a program for a script."""
    return 0o755 if content.startswith("#!") else 0o644


def _open_file(path: str, flags: int) -> int:
    """Open what can be read to its end at once; PolicyError for a FIFO and its like."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    found = os.fstat(descriptor)
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL
    if is_null or stat.S_IFMT(found.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        return descriptor
    os.close(descriptor)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device node")
    raise PolicyError(
        "Cannot read %s: it is %s and not a file. Remove it, and run again" % (path, kind)
    )


def _clear(folder: str) -> None:
    """Remove what runs that were killed left behind; a run that goes on has its file locked."""
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY):
            # Another run may be quicker.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                left = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(os.path.join(folder, name))
                finally:
                    os.close(left)


def _settle(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def failure(verb: str, path: str, error: OSError) -> PolicyError:
    """What stopped a file from being read or written, with a remedy."""
    place = error.filename if isinstance(error.filename, str) else path
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    advice = _ADVICE.get(error.errno or 0, "see 'dmesg'")
    return PolicyError(
        "Cannot %s %s: %s (%s, %s); %s" % (verb, path, error.strerror, code, place, advice)
    )
