# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that run on this machine, each with a simulated /sys.

A host has its own processes, mounts and files. Its root is an overlay of this machine's: what it
writes is in memory, and lost when the host is stopped. A host that is only served has none of
these; a container mounts its /sys.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import NoReturn

from . import namespace, network
from .acpi import read_file as read_acpi
from .control import listen
from .description import Description
from .description_file import read_file as read_description
from .dtb import read_file as read_device_tree
from .errors import SimulatorError
from .filesystem import serve
from .in_use import parse_lines as parse_uses
from .machine import build

_MODPROBE = Path(__file__).with_name("modprobe")
_MODPROBES = ("usr/sbin/modprobe", "sbin/modprobe", "usr/bin/modprobe", "bin/modprobe")
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_LONGEST_SOCKET_PATH = 107


def run_directory() -> Path:
    """Return the directory of running hosts: ARMFLEET_SIMULATOR_HOSTS, or one in the cache."""
    chosen = os.environ.get("ARMFLEET_SIMULATOR_HOSTS")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "armfleet-vfio" / "simulator"


@dataclass(frozen=True)
class Host:
    """A host by its name, running or not."""

    name: str

    @property
    def directory(self) -> Path:
        return run_directory() / self.name

    @property
    def mount(self) -> Path:
        """Return the mount point, which has ``sys``, ``dev/vfio`` and ``modprobe``."""
        return self.directory / "mount"

    @property
    def control(self) -> Path:
        return self.directory / "control"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int | None:
        """Return the ID of the process that serves the host, or None if it does not run."""
        try:
            with (self.directory / "pid").open() as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int((self.directory / "pid").read_text())
        except OSError:
            return None
        return None

    def stop(self) -> None:
        """Stop the host and all its processes, and delete its files."""
        pid = self.pid
        if pid is not None:
            watched = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            _wait_for_end(watched)
        with suppress(OSError):
            namespace.unmount(self.mount)
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Plan:
    """A host to start: its board, and whether it is only served."""

    name: str
    device_tree: Path | None
    drivers: Path | None = None
    is_only_served: bool = False
    uses: Sequence[str] = ()
    acpi: Path | None = None

    def description(self) -> Description:
        """Read the descriptions of the board; raise SimulatorError."""
        if self.acpi and self.device_tree:
            raise SimulatorError(f"Host {self.name} has a device tree and a list of ACPI devices")
        description = read_description(self.drivers) if self.drivers else Description()
        lines = [(f"line {number}", line) for number, line in enumerate(self.uses, 1)]
        return replace(
            description,
            carries=(*description.carries, *parse_uses(lines)),
            devices=(*description.devices, *(read_acpi(self.acpi) if self.acpi else ())),
        )


def running() -> list[Host]:
    """Return every host that runs, by name."""
    top = run_directory()
    names = sorted(path.name for path in top.iterdir()) if top.is_dir() else []
    return [host for host in map(Host, names) if host.pid is not None]


def start(plans: Sequence[Plan]) -> list[Host]:
    """Start hosts, one per core at a time; if one fails, stop all and raise SimulatorError."""
    _check(plans)
    hosts: list[Host] = []
    abreast = os.cpu_count() or 1
    try:
        for first in range(0, len(plans), abreast):
            begun = [_begin(plan) for plan in plans[first : first + abreast]]
            hosts += [host for host, _pipe in begun]
            for host, pipe in begun:
                _wait_until_ready(host, pipe)
    except SimulatorError:
        for host in hosts:
            host.stop()
        raise
    return hosts


def _check(plans: Sequence[Plan]) -> None:
    if os.geteuid():
        raise SimulatorError("Simulated hosts require root privileges to mount their /sys")
    if not os.access("/dev/fuse", os.W_OK):
        raise SimulatorError("Simulated hosts require /dev/fuse, which does not exist here")
    for plan in plans:
        host = Host(plan.name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", plan.name):
            raise SimulatorError(f"{plan.name!r} is not a valid host name")
        if len(str(host.control)) > _LONGEST_SOCKET_PATH:
            raise SimulatorError(f"{host.control} is too long for the path of a socket")
        if host.pid is not None:
            raise SimulatorError(f"Host {plan.name} is already running. Stop it first")


def _begin(plan: Plan) -> tuple[Host, int]:
    host = Host(plan.name)
    host.stop()
    host.mount.mkdir(parents=True)
    ready, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        _live(lambda: _launch(plan, host, report), report)
    os.close(report)
    # The child exits at once; its own child is the host.
    os.waitpid(pid, 0)
    return host, ready


def _wait_until_ready(host: Host, pipe: int) -> None:
    with os.fdopen(pipe) as stream:
        report = stream.read()
    if report != "ready":
        raise SimulatorError(report or f"Host {host.name} died; {_last_words(host)}")


def _last_words(host: Host) -> str:
    lines = host.log.read_text(errors="replace").split("\n") if host.log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _live(life: Callable[[], None], report: int) -> NoReturn:
    """Run a child process, and exit in any case, so that it runs no more code of the parent."""
    # The garbage collector writes to each object that it inspects, which copies its page.
    gc.freeze()
    try:
        life()
    except SimulatorError as error:
        os.write(report, str(error).encode())
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(0)


def _launch(plan: Plan, host: Host, report: int) -> None:
    os.setsid()
    _report_to(host.log)
    description = plan.description()
    if not plan.is_only_served:
        has_network = any(use.needs_interface for use in description.carries)
        namespace.leave_machine(plan.name, has_network=has_network)
    if os.fork() == 0:
        _live(lambda: _serve(plan, description, report), report)


def _report_to(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)


def _serve(plan: Plan, description: Description, report: int) -> None:
    host = Host(plan.name)
    # As the first process of the host, this one is the parent of its orphans: reap them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    alive = (host.directory / "pid").open("w")
    # The process ID in this machine's PID namespace, whose /proc is still mounted. No other process
    # can write it, because the root of all that share these mounts is about to change.
    print(Path("/proc/self").readlink(), file=alive, flush=True)
    fcntl.flock(alive, fcntl.LOCK_EX)
    machine = build(
        read_device_tree(plan.device_tree) if plan.device_tree else None,
        description,
    )
    if not plan.is_only_served:
        network.create(machine.interfaces())
    listen(machine, host.control)
    _write_connection(host, machine.interfaces())

    def furnish() -> None:
        try:
            if not plan.is_only_served:
                _furnish(host)
                _mount_disks(machine.mount_points())
            os.write(report, b"ready")
        except OSError as error:
            os.write(report, f"Host {plan.name}: {error}".encode())
        os.close(report)

    serve(machine, host.mount, Thread(target=furnish, daemon=True).start)


def _write_connection(host: Host, interfaces: Sequence[network.Interface]) -> None:
    """Write SSH_CONNECTION of logins: through the interface that has the default route."""
    for interface in interfaces:
        if interface.has_default_route and interface.addresses:
            address = interface.addresses[0].partition("/")[0]
            (host.directory / "connection").write_text(f"{address} 50022 {address} 22\n")
            return


def _furnish(host: Host) -> None:
    """Set up the host's root: an overlay of this machine's, with its own /sys, /proc and /dev."""
    memory = host.directory / "memory"
    namespace.mount("tmpfs", memory, "mode=755")
    for name in ("upper", "work", "root"):
        (memory / name).mkdir()
    root = memory / "root"
    layers = f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work"
    namespace.mount("overlay", root, layers)
    namespace.bind(host.mount / "sys", root / "sys")
    namespace.mount("proc", root / "proc")
    namespace.mount("tmpfs", root / "run", "mode=755")
    namespace.bind(host.mount / "modprobe", root / "run/armfleet-simulator/modprobe")
    _furnish_dev(root / "dev")
    namespace.bind(host.mount / "dev/vfio", root / "dev/vfio")
    _install_modprobe(root)
    modules = root / "lib/modules" / os.uname().release
    modules.mkdir(parents=True, exist_ok=True)
    (modules / "modules.dep").touch()
    namespace.change_root(root)


def _mount_disks(mount_points: Sequence[str]) -> None:
    """Mount a file system on each path, which begins with what is there; writes are in memory."""
    disks = Path("/run/armfleet-simulator/disks")
    for number, mount_point in enumerate(sorted(mount_points)):
        home = disks / str(number)
        namespace.mount("tmpfs", home, "mode=755")
        for name in ("upper", "work"):
            (home / name).mkdir()
        target = Path(mount_point)
        target.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={target},upperdir={home}/upper,workdir={home}/work"
        namespace.mount("overlay", target, layers)


def _furnish_dev(dev: Path) -> None:
    namespace.mount("tmpfs", dev, "mode=755")
    for name in _NODES:
        namespace.bind(Path("/dev") / name, dev / name)
    namespace.mount("tmpfs", dev / "shm", "mode=1777")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(f"/proc/self/{target}")


def _install_modprobe(root: Path) -> None:
    for name in _MODPROBES:
        (root / name).unlink(missing_ok=True)
    shutil.copy(_MODPROBE, root / _MODPROBES[0])


def _wait_for_end(watched: int) -> None:
    """Wait until the process of a pidfd has ended."""
    select.select([watched], [], [])
    os.close(watched)
