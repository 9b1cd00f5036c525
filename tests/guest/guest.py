# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest as tests and the demo see it."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import commands
from .artefacts import say
from .board import board_named
from .build import Parts, build
from .connection import HOST, HOST_KEY_OPTIONS, LIVENESS_OPTIONS, USER, Connection
from .errors import GuestError
from .machine import Boot, Machine, Running
from .packages import DEFAULT_SERIES, SERIES
from .real_board import ModelMachine, build_for_model
from .snapshot import DISK, NAME, Monitor, snapshot
from .userlands import DEFAULT_SUITE, userland_named

# Many times what it takes on two idle cores; a busy machine is slow, not broken.
BOOT_SECONDS = 300
_SETTLE_SECONDS = 120
_SERIAL_LINES = 40
_PYTHON = "/usr/bin/python3"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Guest:
    """One arm64 machine with a real kernel; its disk is as new at every start.

    ``kernel`` is the name of a series in packages.SERIES, ``userland`` a suite of userlands.
    """

    def __init__(
        self,
        name: str,
        board: str = "a",
        kernel: str = DEFAULT_SERIES,
        userland: str = DEFAULT_SUITE,
    ) -> None:
        self.name = name
        self.board = board_named(board)
        self._series = SERIES[kernel]
        self.userland = userland_named(userland)
        self._machine = (ModelMachine if self.board.hardware.model else Machine)(name)

    @classmethod
    def running(cls, name: str) -> Guest:
        """Return the guest of that name, with the board, kernel and userland of its start."""
        running = Machine(name).running()
        if running is None:
            raise GuestError("Guest %s is not running; start it first" % name)
        # As build() names them.
        userland, _dash, kernel = running.kernel.rpartition("-")
        return cls(name, running.board, kernel, userland or DEFAULT_SUITE)

    def start(self, fresh: bool = False) -> Guest:
        """Bring it up and wait for it; one that runs is left as it is, unless fresh."""
        running = self._machine.running()
        if running and not fresh:
            self._check_running(running)
            # Somebody may have started it a moment ago.
            self._await_boot(lambda _boot_id: True)
            return self
        parts, saved = self.prepare()
        self.stop()
        if saved:
            self._restore(parts, saved)
        else:
            say("guest: booting %s, board %s (about 20 s) ..." % (self.name, self.board.name))
            self._machine.start(self.board, parts, Boot())
            self._await_start()
        return self

    def prepare(self) -> tuple[Parts, Path | None]:
        """Make and return what start() needs: the parts, and the saved guest if it can be saved."""
        parts = self._parts()
        if not self.board.hardware.can_be_saved:
            return parts, None
        return parts, snapshot(self.board, parts, self._boot_and_save).ensure() / DISK

    @property
    def _linux(self) -> str:
        """Return the names of userland and kernel as Parts and Running have them."""
        return self.userland.named(self._series.name)

    def _parts(self) -> Parts:
        if self.board.hardware.model:
            return build_for_model(self.board, self._series, self.userland)
        return build(self._series, self.userland)

    def _restore(self, parts: Parts, saved: Path) -> None:
        """Go on from where a guest of this board was saved right after its boot."""
        self._machine.start(self.board, parts, Boot(restored=NAME), saved)
        self._await(Connection.answers)
        # Its clock stands where it was saved, and its name is that of the saved one.
        clock = ["date", "--set=@%.3f" % time.time()]
        self.run("%s >/dev/null && %s" % (shlex.join(clock), shlex.join(["hostname", self.name])))

    def _boot_and_save(self, folder: Path) -> None:
        kernel, suite = self._series.name, self.userland.suite
        name = "saving-%s-%s" % (self.board.name, self._linux.replace(".", "-"))
        Guest(name, self.board.name, kernel, suite).boot_and_save(folder / DISK)

    def boot_and_save(self, disk: Path) -> None:
        """Boot and, when all is up, save disk and machine; it runs no more then."""
        self.stop()
        ours, qemus = socket.socketpair()
        try:
            with ours, qemus:
                self._machine.start(self.board, self._parts(), Boot(monitor=qemus))
                self._await_start()
                # What the first call would wait for is in memory then.
                self.run("python3 -c 'import json, socket, subprocess, zipfile'; sync")
                self._connection().forget()
                Monitor(ours).save()
                self._machine.ends(BOOT_SECONDS)
            self._machine.overlay.rename(disk)
            self._machine.forget()
        finally:
            self.stop()

    def start_again(
        self,
        initramfs: Path | str | None = None,
        words: Sequence[str] = (),
        image: Path | None = None,
        board: str | None = None,
    ) -> None:
        """Power off from the inside, and boot from the same disk as told.

        ``initramfs`` and ``image``, another kernel, are files of this machine, ``words`` are added
        to the kernel's command line. The guest is of that ``board`` from now on.
        """
        self.run("setsid sh -c 'sleep 0.5; systemctl poweroff' </dev/null >/dev/null 2>&1 &")
        self._connection().forget()
        if not self._machine.ends(BOOT_SECONDS):
            raise GuestError(
                "Guest %s does not power off within %d s%s"
                % (self.name, BOOT_SECONDS, self._serial_end())
            )
        if board:
            self.board = board_named(board)
        parts = self._parts()
        if image:
            parts = replace(parts, image=image)
        self._machine.start_again(self.board, parts, Boot(initramfs, words))
        self._await_start()

    def stop(self) -> None:
        """End it at once, without asking the system inside."""
        if self._machine.running():
            self._connection().forget()
        self._machine.stop()

    def reboot(self) -> None:
        """Reboot from the inside and wait for the next boot; a model's QEMU is started again."""
        if self.board.hardware.model:
            self.start_again()
            return
        before = self.boot_id()
        # Detached and a little later: ssh waits long for an answer from a machine that went away.
        self.run("setsid sh -c 'sleep 0.5; systemctl reboot' </dev/null >/dev/null 2>&1 &")
        self._connection().forget()
        self._await_silence()
        self._await_boot(lambda boot_id: boot_id != before)

    def run(
        self,
        command: str | Sequence[str],
        check: bool = True,
        input: str | None = None,  # noqa: A002  (subprocess.run calls it so)
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root; a text goes to the guest's shell, a sequence is quoted for it."""
        return self._connection().run(command, check=check, input=input, timeout=timeout)

    def put(self, local: Path | str, remote: str) -> None:
        """Copy a file or directory into the guest."""
        connection = self._connection()
        connection.copy(str(local), connection.remote(remote))

    def get(self, remote: str, local: Path | str) -> None:
        """Copy a file or directory out of the guest."""
        connection = self._connection()
        connection.copy(connection.remote(remote), str(local))

    def ssh_argv(self, command: str | Sequence[str] = ()) -> list[str]:
        """Return the command line that logs in."""
        return self._connection().argv(command)

    def boot_id(self) -> str:
        """Different after each boot."""
        return self.run(["cat", _BOOT_ID]).stdout.strip()

    def console(self) -> str:
        """Return all that the guest has written to its serial line."""
        try:
            return self._machine.serial.read_text(errors="replace")
        except OSError:
            raise GuestError("Guest %s has never been started" % self.name) from None

    @property
    def port(self) -> int:
        """Where its sshd is on 127.0.0.1."""
        return self._running().port

    def inventory_entry(self) -> dict[str, Any]:
        """Host variables for Ansible; ssh's ControlPersist stays Ansible's own choice."""
        running = self._running()
        return {
            "ansible_host": HOST,
            "ansible_port": running.port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": running.login_key,
            "ansible_ssh_common_args": shlex.join(
                ["-F", "none", *HOST_KEY_OPTIONS, *LIVENESS_OPTIONS, "-o", "IdentitiesOnly=yes"]
            ),
            "ansible_python_interpreter": _PYTHON,
        }

    def _running(self) -> Running:
        running = self._machine.running()
        if running is None:
            raise GuestError("Guest %s is not running%s" % (self.name, self._serial_end()))
        return running

    def _connection(self) -> Connection:
        running = self._running()
        keep = self._machine.folder / "ssh"
        return Connection(running.port, Path(running.login_key), keep)

    def _check_running(self, running: Running) -> None:
        if (running.board, running.kernel) != (self.board.name, self._linux):
            raise GuestError(
                "Guest %s already runs as board %s with Linux %s; stop it first, or start it fresh"
                % (self.name, running.board, running.kernel)
            )

    def _await_silence(self) -> None:
        """Whoever logs in to a system that goes down waits long for an answer."""
        limit = time.monotonic() + BOOT_SECONDS
        while self._connection().answers():
            if time.monotonic() > limit:
                raise GuestError(
                    "Guest %s does not go down within %d s%s"
                    % (self.name, BOOT_SECONDS, self._serial_end())
                )
            time.sleep(0.2)

    def _await_start(self) -> None:
        try:
            self._await_boot(lambda _boot_id: True)
        except GuestError:
            # Left alive, it would be taken for a guest that needs no start.
            self.stop()
            raise

    def _await_boot(self, accept: Callable[[str], bool]) -> None:
        self._await(lambda connection: connection.answers() and self._is_up(connection, accept))

    def _await(self, is_up: Callable[[Connection], bool]) -> None:
        limit = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < limit:
            # Also notices a machine that has ended.
            if is_up(self._connection()):
                return
            time.sleep(0.2)
        raise GuestError(
            "Guest %s does not answer by ssh within %d s%s"
            % (self.name, BOOT_SECONDS, self._serial_end())
        )

    def _is_up(self, connection: Connection, accept: Callable[[str], bool]) -> bool:
        try:
            if not accept(connection.ask(_BOOT_ID)):
                return False
            # A failed unit is the caller's matter. No unit waits for the modules that udev loads.
            waiting = "systemctl is-system-running --wait; udevadm settle"
            connection.run(waiting, check=False, timeout=_SETTLE_SECONDS)
            return True
        except GuestError:
            return False

    def _serial_end(self) -> str:
        if not self._machine.serial.exists():
            return ""
        log = self._machine.serial
        return "; the end of %s:\n%s" % (log, commands.tail(log, _SERIAL_LINES))
