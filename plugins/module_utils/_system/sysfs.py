# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only gateway to /sys.

Plain reads touch only what the kernel serves without the device lock: links, listings and
properties of the device tree. ``driver_override`` and every write can wait for that lock for ever
(a remove that hangs, a device that user space holds open), so they run in a child process that
can be left behind.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import struct
from typing import NamedTuple, NoReturn, Sequence

from .. import _text
from .._errors import PolicyError

# The operation, whether the requests that came before are to be answered now, two lengths.
_REQUEST = struct.Struct("=c?II")
_REPLY = struct.Struct("=iI")
_COUNT = struct.Struct("=I")
_READ, _WRITE, _CLAIM = b"r", b"w", b"x"
# Never O_CREAT: on a file that sysfs does not have it turns ENOENT into EACCES.
_FLAGS = {
    _READ: os.O_RDONLY,
    _WRITE: os.O_WRONLY,
    _CLAIM: os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK,
}
# So few requests fit into the pipe, so that they are sent before the first is looked at.
_BATCH = 200
_SECOND_WAITS = 4
# How often one request is looked at within the time limit before it is given up.
_WAITS = 10

# What a user can do about an errno of the files that this collection writes; the causes are those
# of drivers/base/bus.c and drivers/base/dd.c.
_ADVICE = {
    errno.EACCES: "set `become: true`",
    errno.EPERM: "a security module or the kernel's lockdown denied it; check the audit log",
    errno.EROFS: "/sys is mounted read-only, as in most containers; run on the host itself",
    errno.ENODEV: "the device went away, or its driver_override names another driver",
    errno.EBUSY: "the device is bound already, or VFIO owns its IOMMU group",
    errno.EAGAIN: "a supplier of the device is not ready; bind the supplier first and run again",
    errno.ENOENT: "the driver no longer exists",
    errno.EINVAL: "the driver's probe failed or a supplier is not ready; see 'dmesg'",
    errno.ENOMEM: "the kernel is out of memory",
}


class KernelRefusedError(Exception):
    """The kernel answered a write to ``path`` (relative to /sys) with ``code``, an errno."""

    def __init__(self, path: str, text: str, code: int) -> None:
        self.path, self.text, self.code = path, text, code
        super().__init__(
            "writing %r to /sys/%s failed with %s (%s)"
            % (text, path, errno.errorcode.get(code, str(code)), os.strerror(code))
        )

    @property
    def advice(self) -> str:
        """A remedy, or an empty text where none is known."""
        return _ADVICE.get(self.code, "")


class KernelBlockedError(PolicyError):
    """The kernel did not answer within the time limit; process ``pid`` still waits for it.

    ``function`` is that of the kernel in which it waits, or None if that cannot be seen.
    """

    def __init__(self, path: str, seconds: float, pid: int, function: str | None) -> None:
        self.path = path
        super().__init__(
            "%s did not answer within %g s: the kernel holds this device's lock, because a "
            "driver's probe or remove hangs or user space holds the device open. Process %d is "
            "still waiting there%s and ends when the kernel answers. If the device is bound to "
            "VFIO, find the holder with 'fuser -v /dev/vfio/* /dev/vfio/devices/*' and stop it. "
            "If a driver hangs, read 'dmesg'; a reboot may be required. Then run again"
            % (
                path if path.startswith("/") else "/sys/" + path,
                seconds,
                pid,
                " (in %s)" % function if function else "",
            )
        )


class Listing(NamedTuple):
    """The names in a directory: real directories, sorted, and all else (files, links)."""

    directories: list[str]
    others: set[str]


class Sysfs:
    """Reads and writes below ``root``; all paths are relative to it.

    ``timeout`` is in seconds and limits each single write and each read that takes a lock.
    """

    def __init__(self, root: str = "/sys", timeout: float = 30) -> None:
        self.root = root
        self._timeout = timeout
        self._worker: _IoWorker | None = None

    def path(self, path: str) -> str:
        located = path if path.startswith("/") else self.root + "/" + path
        # Nearly all are, and every call counts: a plan reads thousands of files.
        is_plain = located.isascii() and "\0" not in located
        return located if is_plain else _text.usable_path(located)

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a file that needs no lock, or None if there is no such file."""
        try:
            descriptor = os.open(self.path(path), os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.read(descriptor, 65536)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def read_long(self, path: str) -> bytes | None:
        """As :meth:`read_bytes`, for a file of which the kernel gives one page at a time."""
        try:
            with open(self.path(path), "rb") as stream:
                return stream.read()
        except OSError:
            return None

    def read(self, path: str) -> str | None:
        """As :meth:`read_bytes`, as text without the newline at its end."""
        content = self.read_bytes(path)
        return None if content is None else os.fsdecode(content).rstrip("\n")

    def strings(self, path: str) -> tuple[str, ...]:
        """Return a string list of the device tree: NUL-separated, with a NUL at its end."""
        content = self.read_bytes(path)
        if not content:
            return ()
        return tuple(os.fsdecode(content).rstrip("\0").split("\0"))

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; empty where there is no such directory."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """Return where a symbolic link points, or None if there is no link."""
        try:
            return os.readlink(self.path(path))
        except OSError:
            return None

    def link_name(self, path: str) -> str | None:
        """Return the last part of where a symbolic link points, or None."""
        target = self.link(path)
        return None if target is None else target.rpartition("/")[2]

    def listing(self, path: str) -> Listing:
        """Return the names in a directory; empty if it does not exist."""
        directories: list[str] = []
        others: set[str] = set()
        try:
            with os.scandir(self.path(path)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.name)
                    else:
                        others.add(entry.name)
        except OSError:
            return Listing([], set())
        return Listing(sorted(directories), others)

    def count_directories(self, path: str) -> int:
        """Return how many real directories are in a directory, without listing it.

        kernfs_refresh_inode in fs/kernfs/inode.c counts them.
        """
        try:
            return os.stat(self.path(path)).st_nlink - 2
        except OSError:
            return 0

    def list_directories(self, path: str) -> list[str]:
        """Return the names of directories in a directory, sorted, without symbolic links."""
        return self.listing(path).directories

    def exists(self, path: str) -> bool:
        # Unlike os.path.exists it makes no exception of what is missing, which is slow.
        return os.access(self.path(path), os.F_OK)

    def has_node(self, node: str) -> bool:
        """Return whether a device node such as /dev/vfio/12 is there."""
        return os.path.exists(node)

    def is_claimed(self, node: str) -> bool:
        """Return whether the kernel lets nobody else have a block device (/dev/…) for himself.

        It does so while the device is mounted, is swap, or is part of something: bd_may_claim in
        block/bdev.c. Opening it for that moment changes nothing; KernelBlockedError if it hangs.
        """
        ((code, _unused),) = self._ask([(_CLAIM, node, b"")])
        return code == errno.EBUSY

    def is_read_only(self) -> bool:
        return bool(os.statvfs(self.root).f_flag & os.ST_RDONLY)

    def read_locked(self, paths: Sequence[str]) -> list[str | None]:
        """Return the contents of files whose read takes the device lock; None if missing."""
        replies = self._ask([(_READ, path, b"") for path in paths])
        return [None if code else os.fsdecode(content).rstrip("\n") for code, content in replies]

    def write(self, path: str, text: str) -> None:
        """Write ``text`` at once; KernelRefusedError, or KernelBlockedError at the time limit."""
        ((code, _unused),) = self._ask([(_WRITE, path, os.fsencode(text))])
        if code:
            raise KernelRefusedError(path, text, code)

    def close(self) -> None:
        if self._worker:
            self._worker.detach()
            self._worker = None

    def _ask(self, requests: Sequence[tuple[bytes, str, bytes]]) -> list[tuple[int, bytes]]:
        replies = []
        for start in range(0, len(requests), _BATCH):
            replies += self._ask_batch(requests[start : start + _BATCH])
        return replies

    def _ask_batch(self, requests: Sequence[tuple[bytes, str, bytes]]) -> list[tuple[int, bytes]]:
        worker = self._worker = self._worker or _IoWorker()
        last = len(requests) - 1
        try:
            worker.send(
                [
                    (operation, os.fsencode(self.path(path)), data)
                    for operation, path, data in requests
                ]
            )
            if not worker.answers_within(self._timeout):
                raise self._blocked(requests[min(worker.count_done(), last)][1], worker.pid)
            return [worker.receive() for _request in requests]
        except (EOFError, BrokenPipeError):
            self.close()
            raise PolicyError(
                "The worker process that writes to /sys was killed. Run again"
            ) from None
        except BaseException:
            # An answer that was not fetched would be taken for that of the next request.
            self.close()
            raise

    def _blocked(self, path: str, pid: int) -> KernelBlockedError:
        error = KernelBlockedError(path, self._timeout, pid, _waiting_in(pid))
        # However many devices hang after the first, together they take no more than as long again,
        # or _SECOND_WAITS seconds.
        self._timeout = min(self._timeout, _SECOND_WAITS) / 2
        return error


class _IoWorker:
    """A child process that does one read or write after the other and can be left behind."""

    def __init__(self) -> None:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._replies, select.POLLIN)
        # How many of the requests are done is read without waking anybody.
        self._done = mmap.mmap(-1, _COUNT.size)
        self.pid = os.fork()
        if self.pid == 0:
            _serve(requests, replies, self._done)
        os.close(requests)
        os.close(replies)

    def send(self, requests: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """Send operations with their paths and data, which are answered together."""
        _COUNT.pack_into(self._done, 0, 0)
        last = len(requests) - 1
        _write_all(
            self._requests,
            b"".join(
                _REQUEST.pack(operation, number == last, len(path), len(data)) + path + data
                for number, (operation, path, data) in enumerate(requests)
            ),
        )

    def count_done(self) -> int:
        """Return how many of the requests that were sent last are done."""
        (count,) = _COUNT.unpack_from(self._done)
        return int(count)

    def answers_within(self, timeout: float) -> bool:
        """Wait for the answers; return False if one request takes longer than ``timeout``."""
        done, waits = self.count_done(), 0
        while not self._poll.poll(timeout * 1000 / _WAITS):
            before, done = done, self.count_done()
            waits = waits + 1 if done == before else 0
            if waits == _WAITS:
                return False
        return True

    def receive(self) -> tuple[int, bytes]:
        """Return errno (0 for success) and content."""
        code, length = _REPLY.unpack(_read_all(self._replies, _REPLY.size))
        return code, _read_all(self._replies, length)

    def detach(self) -> None:
        """Close the pipes; the child ends by itself, at once unless the kernel holds it."""
        os.close(self._requests)
        os.close(self._replies)


def _waiting_in(pid: int) -> str | None:
    try:
        with open("/proc/%d/wchan" % pid, encoding="ascii") as stream:
            return stream.read().strip("0\n") or None
    except (OSError, ValueError):
        return None


def _serve(requests: int, replies: int, done: mmap.mmap) -> NoReturn:
    # The session of ssh ends when nobody holds its pipes, so a child that hangs must not; and
    # nothing of the parent's clean-up may run here.
    try:
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        lowest, highest = sorted((requests, replies))
        os.closerange(3, lowest)
        os.closerange(lowest + 1, highest)
        os.closerange(highest + 1, 1024)
        # A process that is woken for each reply of many costs more than all the reads.
        answer, count = b"", 0
        while True:
            header = _REQUEST.unpack(_read_all(requests, _REQUEST.size))
            operation, is_last, path_length, length = header
            path = _read_all(requests, path_length)
            code, content = _perform(operation, path, _read_all(requests, length))
            answer += _REPLY.pack(code, len(content)) + content
            count += 1
            _COUNT.pack_into(done, 0, count)
            if is_last:
                _write_all(replies, answer)
                answer, count = b"", 0
    finally:
        os._exit(0)


def _perform(operation: bytes, path: bytes, data: bytes) -> tuple[int, bytes]:
    try:
        descriptor = os.open(path, _FLAGS[operation])
        try:
            if operation == _READ:
                return 0, os.read(descriptor, 65536)
            if operation == _WRITE:
                os.write(descriptor, data)
            return 0, b""
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or errno.EIO, b""


def _read_all(descriptor: int, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part = os.read(descriptor, length - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
