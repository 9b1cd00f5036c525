# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's gateways to a simulated machine in the same process.

For a test with thousands of steps, a mounted /sys is too slow. These gateways read the same tree,
and test_gateways.py compares them with the mounted one.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelRefusedError,
    Listing,
    Sysfs,
)
from extensions.simulator.machine import Machine
from extensions.simulator.tree import Directory, File, Link

_VFIO_NODES = "/dev/vfio"


class SimulatedSysfs(Sysfs):
    """/sys of a machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self._tree = machine.tree
        self.is_on_read_only_mount = False

    def read_bytes(self, path: str) -> bytes | None:
        entry = self._tree.find(path)
        return entry.read() if isinstance(entry, File) and entry.mode & 0o444 else None

    def names(self, path: str) -> list[str]:
        return self._tree.names(path)

    def link(self, path: str) -> str | None:
        return self._tree.link(path)

    def listing(self, path: str) -> Listing:
        entry = self._tree.find(path)
        below = entry.entries.items() if isinstance(entry, Directory) else ()
        directories = sorted(name for name, child in below if isinstance(child, Directory))
        return Listing(directories, dict(below).keys() - set(directories))

    def count_directories(self, path: str) -> int:
        return len(self.listing(path).directories)

    def read_long(self, path: str) -> bytes | None:
        return self.read_bytes(path)

    def is_claimed(self, node: str) -> bool:
        """Return whether there is such a node: no disk of a simulated machine can be opened."""
        return self.has_node(node)

    def exists(self, path: str) -> bool:
        return self._tree.find(path) is not None

    def has_node(self, node: str) -> bool:
        return node == _VFIO_NODES or _node(self._machine, node) is not None

    def is_read_only(self) -> bool:
        return self.is_on_read_only_mount

    def read_locked(self, paths: Sequence[str]) -> list[str | None]:
        return [self.read(path) for path in paths]

    def write(self, path: str, text: str) -> None:
        resolved = self._tree.resolve(path)
        entry = None if resolved is None else self._tree.lookup(resolved)
        if resolved is None or not isinstance(entry, File):
            raise KernelRefusedError(path, text, errno.ENOENT)
        if self.is_on_read_only_mount:
            raise KernelRefusedError(path, text, errno.EROFS)
        try:
            self._machine.watch.around(resolved, text.encode(), entry.write)
        except OSError as error:
            raise KernelRefusedError(path, text, error.errno or errno.EIO) from None

    def close(self) -> None:
        """Do nothing, because no file was opened."""


class SimulatedKmod(Kmod):
    """modprobe of a machine, with the configuration in ``etc``/modprobe.d."""

    def __init__(self, machine: Machine, etc: Path) -> None:
        super().__init__()
        self._machine = machine
        self._etc = etc
        self.calls: list[str] = []

    def is_available(self, module: str) -> bool:
        return self._run(["--dry-run", "--quiet", "--", module])[0] == 0

    def _run(self, arguments: Sequence[str], program: str = "modprobe") -> tuple[int, str]:
        if program != "modprobe":
            return 127, f"{program} does not know the modules of a simulated machine"
        if arguments[0] in ("--", "--remove"):
            self.calls.append(" ".join(arguments))
        files = sorted((self._etc / "modprobe.d").glob("*.conf"))
        configuration = "".join(file.read_text(errors="surrogateescape") for file in files)
        return self._machine.modules.modprobe(arguments, configuration)


class SimulatedFiles(Files):
    """Files below ``root``, and VFIO's nodes of a machine with the links to them."""

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(str(root))
        self._machine = machine

    def names(self, path: str) -> list[str]:
        if not _is_of_vfio(path):
            return super().names(path)
        return self._machine.vfio.nodes.names(_place(path))

    def link(self, path: str) -> str | None:
        return self._machine.vfio.nodes.link(_place(path))

    def set_symlink(self, path: str, target: str | None) -> None:
        nodes = self._machine.vfio.nodes
        directory, _slash, name = _place(path).rpartition("/")
        if self.link(path) is not None:
            nodes.remove(_place(path))
        if target is not None:
            nodes.make_directory(directory).entries[name] = Link(target)
        elif nodes.find(directory) and not nodes.names(directory):
            nodes.remove(directory)

    def node_access(self, path: str) -> NodeAccess | None:
        node = _node(self._machine, path)
        return None if node is None else NodeAccess(str(node.gid), f"{node.mode:04o}")

    def set_node_access(self, path: str, access: NodeAccess) -> None:
        node = _node(self._machine, path)
        if node and access.mode is not None:
            node.mode = int(access.mode, 8)


def _node(machine: Machine, path: str) -> File | None:
    entry = machine.vfio.nodes.find(_place(path))
    return entry if isinstance(entry, File) else None


def _is_of_vfio(path: str) -> bool:
    return path.startswith(_VFIO_NODES + "/")


def _place(path: str) -> str:
    return posixpath.relpath(path, _VFIO_NODES)


def everything(machine: Machine) -> dict[str, str]:
    """Return all visible state of a machine: each file's content and mode, each link's target."""
    shown: dict[str, str] = {}
    waiting: list[tuple[str, Directory]] = [
        ("sys", machine.tree.root),
        ("dev/vfio", machine.vfio.nodes.root),
    ]
    while waiting:
        parent, directory = waiting.pop()
        for name, entry in directory.entries.items():
            path = f"{parent}/{name}"
            if isinstance(entry, Directory):
                waiting.append((path, entry))
                shown[path] = "directory"
            elif isinstance(entry, Link):
                shown[path] = f"-> {entry.target}"
            else:
                shown[path] = f"{entry.mode:04o} {entry.read()!r}"
    return shown
