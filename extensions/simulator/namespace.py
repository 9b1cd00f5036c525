# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""System calls for namespaces and mounts; Python 3.11 has none of them."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

# include/uapi/linux/sched.h
_NEW_MOUNTS = 0x00020000
_NEW_NAMES = 0x04000000
_NEW_PIDS = 0x20000000
_NEW_NETWORK = 0x40000000
# include/uapi/linux/mount.h
_BIND = 0x1000
_RECURSIVE = 0x4000
_PRIVATE = 0x40000
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def leave_machine(name: str, *, has_network: bool = False) -> None:
    """Enter new mount and UTS namespaces; children enter a new PID namespace.

    With a network of its own, the host reaches nobody.
    """
    new = _NEW_MOUNTS | _NEW_NAMES | _NEW_PIDS | (_NEW_NETWORK if has_network else 0)
    _check(_libc.unshare(new), "a namespace of its own")
    socket.sethostname(name)
    _mount("none", Path("/"), None, _RECURSIVE | _PRIVATE)


def enter(pid: int) -> None:
    """Enter the namespaces of a process; children enter its PID namespace."""
    # All are opened first: in the namespaces, /proc does not have them under this process ID.
    names = ("pid", "uts", "net", "mnt")
    opened = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in names]
    for descriptor in opened:
        _check(_libc.setns(descriptor, 0), f"the namespaces of process {pid}")
        os.close(descriptor)


def enter_network(namespace: int) -> None:
    """Enter the network namespace of an open file."""
    _check(_libc.setns(namespace, _NEW_NETWORK), "that network namespace")


def mount(kind: str, target: Path, options: str = "") -> None:
    """Mount a file system without a device."""
    target.mkdir(parents=True, exist_ok=True)
    _mount(kind, target, kind, 0, options)


def bind(source: Path, target: Path) -> None:
    """Bind-mount ``source``, a directory or a file, on ``target``."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), target, None, _BIND | _RECURSIVE)


def unmount(target: Path) -> None:
    """Detach a mount, even if it is in use."""
    _check(_libc.umount2(os.fsencode(target), _DETACH), f"{target} unmounted")


def change_root(root: Path) -> None:
    """Make ``root`` the root of this mount namespace, and detach the old one."""
    old = root / ".old-root"
    old.mkdir()
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(number, os.fsencode(root), os.fsencode(old)), f"{root} as its root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old-root", _DETACH), "the old root away")
    Path("/.old-root").rmdir()


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind and kind.encode(),
        flags,
        options.encode(),
    )
    _check(done, f"{kind or source} at {target}")


def _check(done: int, wish: str) -> None:
    if done:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot have {wish}: {os.strerror(code)}")
