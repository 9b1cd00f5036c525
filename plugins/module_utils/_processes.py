# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of this machine hold open, mount and come in by. Reads only."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils._descriptors import Descriptors

# What a VFIO device is open as that was got from its group, or whose node was closed since.
VFIO_DEVICE = "anon_inode:[vfio-device]"
_VFIO_NODE = re.compile(r"/dev/vfio/(noiommu-)?\d+$|/dev/vfio/devices/")


class Mount(NamedTuple):
    """A mounted file system; ``number`` is major:minor, ``place`` has the words of a sentence."""

    number: str
    source: str
    place: str


class Processes:
    """Reads ``proc``, where procfs is mounted, once and when the first question comes.

    ``unanswered`` is how often nobody was found to hold a node while processes of others could not
    be read, as without root.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        # Process ids by what is open: a path, or the number of a device.
        self._holders: dict[str, list[str]] | None = None
        self._is_complete = os.geteuid() == 0
        self.unanswered = 0
        # One process of each mount namespace, by what the kernel calls the namespace.
        self._elsewhere: dict[str, str] = {}

    def holders(self, node: str, number: str | None = None) -> list[str]:
        """Who has a device node open or mapped, or a VFIO device that no open node tells.

        ``number`` is "c" or "b" and the device's major:minor, which count whatever the node that
        was opened is called.
        """
        if self._holders is None:
            self._holders = self._read()
        pids = self._holders.get(node, [])
        if number:
            pids = [*pids, *self._holders.get(number, [])]
        if not (pids or self._is_complete):
            self.unanswered += 1
        return [self._command(pid) for pid in dict.fromkeys(pids)]

    def mounts(self) -> list[Mount]:
        """What is mounted, for this process and then in the mount namespaces of all others."""
        if self._holders is None:
            self._holders = self._read()
        found = self._mounts("self", "")
        own = _link(self._proc + "/self/ns/mnt")
        for namespace, pid in self._elsewhere.items():
            if namespace != own:
                found += self._mounts(pid, " by %s" % self._command(pid))
        return found

    def swaps(self) -> list[str]:
        """The files and devices that are swap."""
        lines = (_text(self._proc + "/swaps") or "").splitlines()[1:]
        return [line.split()[0] for line in lines]

    def text(self, name: str) -> str:
        """A file of procfs that is not about a process; empty if it is not there."""
        return _text("%s/%s" % (self._proc, name)) or ""

    def address_of_this_run(self) -> str | None:
        """The address of this machine by which ssh came in, or None where it did not.

        sudo drops SSH_CONNECTION, so that processes above are asked as well.
        """
        process = "self"
        while process not in ("", "0"):
            address = _ssh_address(_text("%s/%s/environ" % (self._proc, process)) or "")
            if address:
                return address
            lines = (_text("%s/%s/status" % (self._proc, process)) or "").splitlines()
            parents = [line.split()[1] for line in lines if line.startswith("PPid:")]
            process = parents[0] if parents else ""
        return None

    def _mounts(self, process: str, by_whom: str) -> list[Mount]:
        found = []
        for line in (_text("%s/%s/mountinfo" % (self._proc, process)) or "").splitlines():
            mount, _separator, kind_and_source = line.partition(" - ")
            fields = mount.split()
            source = kind_and_source.split()[1:2]
            found.append(Mount(fields[2], source[0] if source else "", fields[4] + by_whom))
        return found

    def _read(self) -> dict[str, list[str]]:
        holders: dict[str, list[str]] = {}
        descriptors = Descriptors(self._proc)
        for pid in _listing(self._proc):
            if not pid.isdigit():
                continue
            opened = descriptors.of(pid)
            if VFIO_DEVICE in opened and any(_VFIO_NODE.match(target) for target in opened):
                opened.discard(VFIO_DEVICE)
            for target in opened:
                holders.setdefault(target, []).append(pid)
            self._elsewhere.setdefault(_link("%s/%s/ns/mnt" % (self._proc, pid)), pid)
        self._is_complete = self._is_complete and descriptors.is_complete
        self._elsewhere.pop("", None)
        return holders

    def _command(self, pid: str) -> str:
        command = _text("%s/%s/comm" % (self._proc, pid)) or "a process"
        return "%s (pid %s)" % (command, pid)


def _ssh_address(environment: str) -> str | None:
    for variable in environment.split("\0"):
        name, _equals, value = variable.partition("=")
        fields = value.split()
        if name == "SSH_CONNECTION" and len(fields) == 4:
            address = fields[2].partition("%")[0]
            is_mapped = address.startswith("::ffff:") and "." in address
            return address[7:] if is_mapped else address
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().rstrip("\n")
    except OSError:
        return None
