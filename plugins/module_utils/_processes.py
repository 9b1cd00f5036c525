# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processes of this machine hold open, mount and come in by. Reads only."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

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
        self._holders: dict[str, list[str]] | None = None
        self._is_complete = os.geteuid() == 0
        self.unanswered = 0
        # One process of each mount namespace, by what the kernel calls the namespace.
        self._elsewhere: dict[str, str] = {}

    def holders(self, node: str) -> list[str]:
        """Who has a device node open, or a VFIO device that no open node tells."""
        if self._holders is None:
            self._holders = self._read()
        found = self._holders.get(node, [])
        if not (found or self._is_complete):
            self.unanswered += 1
        return found

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
        for pid in _listing(self._proc):
            if not pid.isdigit():
                continue
            opened = "%s/%s/fd" % (self._proc, pid)
            targets = {_link("%s/%s" % (opened, one)) for one in self._descriptors(opened)}
            nodes = {target for target in targets if target.startswith("/dev/")}
            if VFIO_DEVICE in targets and not any(_VFIO_NODE.match(node) for node in nodes):
                nodes.add(VFIO_DEVICE)
            for node in nodes:
                holders.setdefault(node, []).append(self._command(pid))
            self._elsewhere.setdefault(_link("%s/%s/ns/mnt" % (self._proc, pid)), pid)
        self._elsewhere.pop("", None)
        return holders

    def _descriptors(self, path: str) -> list[str]:
        try:
            return os.listdir(path)
        except PermissionError:
            self._is_complete = False
            return []
        except OSError:
            # The process has ended.
            return []

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
