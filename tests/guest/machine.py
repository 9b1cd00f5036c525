# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The QEMU process of one guest and the directory that remembers it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import commands
from .artefacts import cache_folder
from .board import QEMU, Board, firmware
from .build import Parts
from .connection import HOST
from .errors import GuestError
from .packages import DEFAULT_SERIES

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_PORT_ATTEMPTS = 5
_END_SECONDS = 20
_SPARE_BYTES = 32 << 20
_KERNEL_COMMAND_LINE = (
    "root=/dev/vda",
    "rw",
    "console=ttyAMA0",
    "net.ifnames=0",
    # Nobody attacks the guest, and emulation is slow enough.
    "mitigations=off",
    # Debian's kernel has random addresses, and would separate its page tables in spite of the line
    # above; QEMU then empties its TLB at each system call.
    "kpti=off",
    # QEMU translates code again at each address where it finds it: at random ones, the libraries of
    # each process, which is most of what a short process costs.
    "norandmaps",
    # Nor has udev to look at 512 terminals of another age at each boot.
    "pty.legacy_count=0",
)


@dataclass(frozen=True)
class Running:
    """What is known of a started machine."""

    board: str
    port: int
    login_key: str
    kernel: str = DEFAULT_SERIES


@dataclass(frozen=True)
class Boot:
    """What a boot has beside kernel and disk: an initramfs, and more parameters for the kernel.

    ``restored`` is the name of a state in the disk's file that is restored instead of a boot;
    ``monitor`` is a socket that QEMU is controlled by.
    """

    initramfs: Path | str | None = None
    words: Sequence[str] = ()
    restored: str | None = None
    monitor: socket.socket | None = None


class Machine:
    """One guest's directory under the cache, and the process that its pidfile names."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise GuestError(
                "A guest's name is lower-case letters, digits and '-', 31 at most, not %r" % name
            )
        self.name = name
        self.folder = cache_folder() / "run" / name
        self.overlay = self.folder / "overlay.qcow2"
        self.serial = self.folder / "serial.log"
        self._pidfile = self.folder / "pid"
        self._memory = self.folder / "machine.json"

    def pid(self) -> int | None:
        """Return the living process; a pidfile alone may name foreign."""
        try:
            pid = int(self._pidfile.read_text())
            command = Path("/proc/%d/cmdline" % pid).read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.overlay).encode() in command else None

    def running(self) -> Running | None:
        """Return what was started and still runs."""
        if self.pid() is None:
            return None
        return Running(**json.loads(self._memory.read_text()))

    def start(self, board: Board, parts: Parts, boot: Boot, saved: Path | None = None) -> Running:
        """Boot from a fresh overlay, or go on from a copy of a saved one."""
        commands.require(QEMU, "qemu-img")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if saved:
            shutil.copyfile(saved, self.overlay)
        else:
            self._make_overlay(parts.disk)
        for spare in self._spare_disks(board):
            spare.touch()
            os.truncate(spare, _SPARE_BYTES)
        return self.start_again(board, parts, boot)

    def start_again(self, board: Board, parts: Parts, boot: Boot) -> Running:
        """Boot from the disk as it was left, on the same port if that is still free."""
        ports = [self._last_port(), *(_free_port() for _attempt in range(_PORT_ATTEMPTS))]
        problem = None
        for port in filter(None, ports):
            running = Running(board.name, port, str(parts.login_key), parts.kernel)
            # Written first: whoever finds the process finds its port too.
            self._memory.write_text(json.dumps(asdict(running)))
            problem = self._spawn(board, parts, boot, running.port)
            if problem is None:
                return running
            # Between choosing a port and QEMU's taking it, somebody else may.
            if "host forwarding" not in problem:
                break
        raise GuestError("QEMU does not start guest %s: %s" % (self.name, problem))

    def _last_port(self) -> int | None:
        if not self._memory.exists():
            return None
        return Running(**json.loads(self._memory.read_text())).port

    def ends(self, seconds: float) -> bool:
        """Return whether the process ends by itself within that time."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.pid() is None:
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """End the process, and only that one."""
        pid = self.pid()
        if pid is None:
            return
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, ending)
            if self.ends(_END_SECONDS):
                return
        raise GuestError("Process %d of guest %s does not end" % (pid, self.name))

    def forget(self) -> None:
        """Remove what is left of a machine that ended."""
        shutil.rmtree(self.folder)

    def _make_overlay(self, disk: Path) -> None:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk)]
        made = subprocess.run(
            [*argv, str(self.overlay)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise GuestError("Cannot make a disk for guest %s: %s" % (self.name, made.stderr))

    def _spare_disks(self, board: Board) -> list[Path]:
        numbers = range(board.hardware.spare_disks)
        return [self.folder / ("spare%d.raw" % number) for number in numbers]

    def _spawn(self, board: Board, parts: Parts, boot: Boot, port: int) -> str | None:
        """Returns what QEMU complains of; it puts itself into the background when all is well."""
        started = subprocess.run(
            [str(word) for word in self._argv(board, parts, boot, port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[boot.monitor.fileno()] if boot.monitor else [],
            text=True,
            check=False,
        )
        return started.stderr.strip() or "no reason given" if started.returncode else None

    def _argv(self, board: Board, parts: Parts, boot: Boot, port: int) -> list[str | Path]:
        told = [
            *_KERNEL_COMMAND_LINE,
            *board.parameters,
            "systemd.hostname=" + self.name,
            *boot.words,
        ]
        if board.device_tree:
            described: list[str | Path] = ["-dtb", parts.device_trees / (board.name + ".dtb")]
        else:
            described = ["-bios", firmware()]
            told.append("acpi=force")
        network = "user,id=net,restrict=on,hostfwd=tcp:%s:%d-:22" % (HOST, port)
        initramfs = boot.initramfs or parts.initramfs
        early = ["-initrd", initramfs] if initramfs else []
        return [
            *(QEMU, "-name", self.name, *board.hardware.machine, *described),
            *("-kernel", parts.image, "-append", " ".join(told), *early),
            # The overlay is thrown away at the next start, so nothing waits for the host's disk.
            *("-drive", "if=none,id=disk,format=qcow2,cache=unsafe,file=%s" % self.overlay),
            *("-netdev", network),
            *self._hardware(board),
            *("-object", "rng-random,filename=/dev/urandom,id=rng"),
            *("-device", "virtio-rng-device,rng=rng,bus=virtio-mmio-bus.0"),
            *("-display", "none", "-monitor", "none", "-serial", "file:%s" % self.serial),
            *("-daemonize", "-pidfile", self._pidfile),
            *_control(boot),
        ]

    def _hardware(self, board: Board) -> list[str]:
        argv = []
        for spare in self._spare_disks(board):
            drive = "if=none,id=%s,format=raw,cache=unsafe,file=%s" % (spare.stem, spare)
            argv += ["-drive", drive]
        for number in range(board.hardware.spare_networks):
            argv += ["-netdev", "user,id=spare%d,restrict=on" % number]
        for device in board.hardware.devices:
            argv += ["-device", device]
        return argv


def _control(boot: Boot) -> list[str]:
    argv = ["-loadvm", boot.restored] if boot.restored else []
    if boot.monitor:
        argv += ["-chardev", "socket,id=monitor,fd=%d" % boot.monitor.fileno()]
        argv += ["-mon", "chardev=monitor,mode=control"]
    return argv


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def started_names() -> list[str]:
    """Guests that were started at some time, running or not."""
    return sorted(path.parent.name for path in (cache_folder() / "run").glob("*/machine.json"))
