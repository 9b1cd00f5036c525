# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories, files and links in memory, in the layout of sysfs.

Paths are relative to the root and have no slash at either end; the root is the empty string.
"""

from __future__ import annotations

import errno
import os
from posixpath import dirname, join, relpath
from typing import Callable, Iterator, Union

Show = Callable[[], bytes]
Store = Callable[[bytes], None]

_MOST_LINKS = 40


def failure(code: int) -> OSError:
    """Return the error that a system call ends with."""
    return OSError(code, os.strerror(code))


class File:
    """A file; a write calls ``store``, and ``is_live`` is false after its removal.

    An ``is_exclusive`` file can be open once at a time. Only root can open an ``is_for_root`` file,
    regardless of its mode.
    """

    __slots__ = (
        "content",
        "gid",
        "is_exclusive",
        "is_for_root",
        "is_live",
        "mode",
        "opened",
        "store",
        "uid",
    )

    def __init__(
        self, content: bytes | Show = b"", mode: int = 0o444, store: Store | None = None
    ) -> None:
        self.content = content
        self.mode = mode
        self.store = store
        self.is_live = True
        self.is_exclusive = False
        self.is_for_root = False
        self.opened = 0
        self.uid = 0
        self.gid = 0

    def read(self) -> bytes:
        if not self.is_live:
            raise failure(errno.ENODEV)
        return self.content if isinstance(self.content, bytes) else self.content()

    def write(self, data: bytes) -> None:
        if not self.is_live:
            raise failure(errno.ENODEV)
        if self.store is None:
            raise failure(errno.EACCES)
        self.store(data)


class Link:
    """A symbolic link; ``target`` is relative to the link's directory."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


class Directory:
    """A directory with its entries by name."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}


Entry = Union[File, Link, Directory]


class Tree:
    """The whole tree, from its root."""

    def __init__(self) -> None:
        self.root = Directory()

    def make_directory(self, path: str) -> Directory:
        """Return the directory at ``path``; create it and its parents if they do not exist."""
        directory = self.root
        for name in _parts(path):
            entry = directory.entries.get(name)
            if entry is None:
                entry = directory.entries[name] = Directory()
            if not isinstance(entry, Directory):
                raise failure(errno.ENOTDIR)
            directory = entry
        return directory

    def add(self, path: str, entry: Entry) -> None:
        directory, _slash, name = path.rpartition("/")
        self.make_directory(directory).entries[name] = entry

    def put(
        self,
        path: str,
        content: str | bytes | Show = b"",
        mode: int = 0o444,
        store: Store | None = None,
    ) -> File:
        file = File(content.encode() if isinstance(content, str) else content, mode, store)
        self.add(path, file)
        return file

    def point(self, path: str, target: str) -> None:
        """Make a link; both paths are relative to the root."""
        self.add(path, Link(relpath(join("/", target), join("/", dirname(path)))))

    def remove(self, path: str) -> None:
        """Remove an entry with everything below it."""
        directory, _slash, name = path.rpartition("/")
        entry = self.make_directory(directory).entries.pop(name)
        for file in _files(entry):
            file.is_live = False

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at ``path`` without following links, as FUSE requires."""
        entry: Entry = self.root
        for name in _parts(path):
            child = entry.entries.get(name) if isinstance(entry, Directory) else None
            if child is None:
                return None
            entry = child
        return entry

    def resolve(self, path: str) -> str | None:
        """Return the path with every link followed, or None if it does not exist."""
        walked = self._walk(path)
        return None if walked is None else "/".join(name for name, _entry in walked)

    def find(self, path: str) -> Entry | None:
        """Return the entry at ``path``, links followed."""
        walked = self._walk(path)
        if walked is None:
            return None
        return walked[-1][1] if walked else self.root

    def _walk(self, path: str) -> list[tuple[str, Entry]] | None:
        """Return the entries from the root to ``path`` with their names, links followed."""
        walked: list[tuple[str, Entry]] = []
        waiting = _parts(path)[::-1]
        followed = 0
        while waiting:
            name = waiting.pop()
            if name == "..":
                del walked[-1:]
                continue
            directory = walked[-1][1] if walked else self.root
            entry = directory.entries.get(name) if isinstance(directory, Directory) else None
            if entry is None:
                return None
            if isinstance(entry, Link):
                followed += 1
                if followed > _MOST_LINKS:
                    return None
                waiting += _parts(entry.target)[::-1]
            else:
                walked.append((name, entry))
        return walked

    def read(self, path: str) -> bytes | None:
        entry = self.find(path)
        return entry.read() if isinstance(entry, File) else None

    def names(self, path: str) -> list[str]:
        entry = self.find(path)
        return sorted(entry.entries) if isinstance(entry, Directory) else []

    def link(self, path: str) -> str | None:
        """Return the target of the link at ``path``."""
        parent = self.find(dirname(path))
        entry = (
            parent.entries.get(path.rpartition("/")[2]) if isinstance(parent, Directory) else None
        )
        return entry.target if isinstance(entry, Link) else None


def _parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _files(entry: Entry) -> Iterator[File]:
    if isinstance(entry, File):
        yield entry
    elif isinstance(entry, Directory):
        for below in entry.entries.values():
            yield from _files(below)
