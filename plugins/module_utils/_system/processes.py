# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of this machine hold open, mount and come in by. Reads only."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple

from .. import _text
from . import proc_files
from .descriptors import Descriptors

# What a VFIO device is open as that was got from its group, or whose node was closed since.
VFIO_DEVICE = "anon_inode:[vfio-device]"
_VFIO_NODE = re.compile(r"/dev/vfio/(noiommu-)?\d+$|/dev/vfio/devices/")
_NUMBER = re.compile(r"[0-9]+:[0-9]+\Z")
# Path, type, size, used and priority.
_SWAP = re.compile(r"(/[^ \t]*)[ \t]+[a-z]+[ \t]+[0-9]+[ \t]+[0-9]+[ \t]+-?[0-9]+\Z")
_UNKNOWN = "a line of %s cannot be parsed, so it may be %s"
_ANCESTORS_AT_MOST = 1000


class Mount(NamedTuple):
    """A mounted file system; ``number`` is major:minor, ``source`` any text as the kernel has it.

    ``mount_point`` is printable, and followed by who has it mounted if that is another namespace.
    ``kind`` is the type of file system.
    """

    number: str
    source: str
    mount_point: str
    kind: str


class Mounts(NamedTuple):
    """What is mounted, or is swap, and a sentence for each list of which a line is not known."""

    mounts: list[Mount]
    swaps: list[str]
    unknown: list[str]


class Processes:
    """Reads ``proc``, where procfs is mounted, once and when the first question comes.

    ``unanswered`` is how often nobody was found to hold a node while processes of others could not
    be read, as without root.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        # Process ids by what is open: a number, or the path of what does not tell its number.
        self._holders: dict[str, list[str]] | None = None
        # The same by the paths of all devices.
        self._named: dict[str, list[str]] = {}
        self._is_complete = os.geteuid() == 0
        self.unanswered = 0
        # Tasks ("PID", "PID/task/TID") of each mount namespace, by what the kernel calls it.
        self._in_other_namespaces: dict[str, list[str]] = {}

    def holders(self, node: str, number: str | None = None) -> list[str]:
        """Return who has a device node open or mapped, or a VFIO device that no open node tells.

        ``number`` is "c" or "b" and the device's major:minor. If it is known it counts alone: any
        user can call a file, or another device, like the node in a mount namespace of his own.
        """
        if self._holders is None:
            self._holders = self._read()
        pids = self._holders.get(node, [])
        pids = [*pids, *(self._holders.get(number, []) if number else self._named.get(node, []))]
        if not (pids or self._is_complete):
            self.unanswered += 1
        return [self._command(pid) for pid in dict.fromkeys(pids)]

    def mounts(self) -> Mounts:
        """Return mounts, of this process first and then of all other mount namespaces."""
        if self._holders is None:
            self._holders = self._read()
        mounts = Mounts([], *self._swaps())
        own = proc_files.link_target(self._proc + "/self/ns/mnt")
        self._add_mounts(mounts, "self", "")
        for namespace, tasks in self._in_other_namespaces.items():
            if namespace != own:
                # One that has ended tells nothing any more.
                any(
                    self._add_mounts(mounts, task, " by %s" % self._command(task.partition("/")[0]))
                    for task in tasks
                )
        return mounts

    def _swaps(self) -> tuple[list[str], list[str]]:
        """Return the files and devices that are swap: swap_show in mm/swapfile.c."""
        path = self._proc + "/swaps"
        lines = _text.lines(_content(path) or "")[1:]
        swaps = [_text.unescaped(match[1]) for match in map(_SWAP.match, lines) if match]
        return swaps, [] if len(swaps) == len(lines) else [_UNKNOWN % (path, "swap")]

    def _add_mounts(self, mounts: Mounts, task: str, by_whom: str) -> bool:
        """Add what is mounted for a task, and return whether it is still there.

        show_mountinfo in fs/proc_namespace.c. Lines are cut at spaces alone, for the kernel escapes
        no other blanks but tab and newline.
        """
        path = "%s/%s/mountinfo" % (self._proc, task)
        lines = _text.lines(_content(path) or "")
        is_whole = True
        for line in lines:
            mount, _separator, rest = line.partition(" - ")
            fields = mount.split(" ")
            kind_and_source = rest.split(" ")
            if len(fields) < 6 or len(kind_and_source) < 3 or not _NUMBER.match(fields[2]):
                is_whole = False
                continue
            mount_point = _text.printable(_text.unescaped(fields[4]))
            source = _text.unescaped(kind_and_source[1])
            kind = kind_and_source[0]
            mounts.mounts.append(Mount(fields[2], source, mount_point + by_whom, kind))
        if not is_whole:
            mounts.unknown.append(_UNKNOWN % (path, "mounted"))
        return bool(lines)

    def text(self, name: str) -> str:
        """Return a file of procfs that is not about a process; empty if it is not there."""
        return _content("%s/%s" % (self._proc, name)) or ""

    def address_of_this_run(self) -> str | None:
        """Return the address of this machine by which ssh came in, or None if it did not.

        sudo drops SSH_CONNECTION, so that processes above are asked as well.
        """
        process = "self"
        # A process cannot be its own ancestor, but a file can say so.
        for _ancestor in range(_ANCESTORS_AT_MOST):
            home = "%s/%s/" % (self._proc, process)
            address = _ssh_address(_content(home + "environ") or "")
            if address:
                return address
            lines = _text.lines(_content(home + "status") or "")
            parents = [
                _text.number(_text.stripped(line[len("PPid:") :]))
                for line in lines
                if line.startswith("PPid:")
            ]
            if not parents or not parents[0]:
                return None
            process = str(parents[0])
        return None

    def _read(self) -> dict[str, list[str]]:
        holders: dict[str, list[str]] = {}
        descriptors = Descriptors(self._proc)
        for pid in proc_files.names(self._proc):
            if _text.number(pid) is None:
                continue
            held = descriptors.of(pid)
            opened = held.keys
            if VFIO_DEVICE in opened and any(_VFIO_NODE.match(path) for path in held.paths):
                opened.discard(VFIO_DEVICE)
            for target in opened:
                holders.setdefault(target, []).append(pid)
            for path in held.paths:
                self._named.setdefault(path, []).append(pid)
            # Those of a thread can be its own, and the first thread may have ended.
            for task in (pid, *held.threads):
                namespace = proc_files.link_target("%s/%s/ns/mnt" % (self._proc, task))
                self._in_other_namespaces.setdefault(namespace, []).append(task)
        self._is_complete = self._is_complete and descriptors.is_complete
        self._in_other_namespaces.pop("", None)
        return holders

    def _command(self, pid: str) -> str:
        command = (_content("%s/%s/comm" % (self._proc, pid)) or "").rstrip("\n")
        return "%s (pid %s)" % (_text.printable(command) or "a process", pid)


def _ssh_address(environment: str) -> str | None:
    for variable in environment.split("\0"):
        name, _equals, value = variable.partition("=")
        fields = value.split(" ")
        if name == "SSH_CONNECTION" and len(fields) == 4:
            address = fields[2].partition("%")[0]
            try:
                known = ipaddress.ip_address(address)
            except ValueError:
                continue
            mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
            return str(mapped or known)
    return None


def _content(path: str) -> str | None:
    content = proc_files.content(path)
    return None if content is None else os.fsdecode(content)
