# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssh to one guest."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import GuestError

HOST = "127.0.0.1"
USER = "root"
# Every fresh guest is a new machine on an old address, so no key is remembered.
HOST_KEY_OPTIONS = (
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR"),
)
# A machine that reboots takes its end of a shared connection along without a word.
LIVENESS_OPTIONS = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
_OPTIONS = (
    *("-F", "none"),
    *HOST_KEY_OPTIONS,
    *LIVENESS_OPTIONS,
    *("-o", "BatchMode=yes"),
    *("-o", "IdentitiesOnly=yes"),
    *("-o", "ConnectTimeout=20"),
)
# The kernel allows 108 bytes for the path of a socket, and ssh adds a suffix of its own.
_LONGEST_SOCKET = 80
_ASK_SECONDS = 30


@dataclass(frozen=True)
class Connection:
    """Where a guest answers; keep is the socket by which one login serves many commands."""

    port: int
    key: Path
    keep: Path

    def options(self) -> list[str]:
        """For ssh and scp alike."""
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=300"]
        shared += ["-o", "ControlPath=%s" % self.keep]
        own = ["-i", str(self.key), "-o", "Port=%d" % self.port]
        return [*_OPTIONS, *own, *(shared if len(str(self.keep)) <= _LONGEST_SOCKET else [])]

    def argv(self, command: str | Sequence[str] = ()) -> list[str]:
        """The ssh command line; a sequence is quoted for the guest's shell, a text is not."""
        text = command if isinstance(command, str) else shlex.join(command)
        return ["ssh", *self.options(), "%s@%s" % (USER, HOST), *([text] if text else [])]

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002  (subprocess.run calls it so)
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest."""
        done = _run(self.argv(command), feed=input, timeout=timeout)
        if done.returncode and check:
            raise GuestError(
                "In the guest %r ended with status %d:\n%s%s"
                % (command, done.returncode, done.stdout, done.stderr)
            )
        return done

    def ask(self, path: str) -> str:
        """Read a file by a login of its own, which is given up soon if the guest is going down."""
        alone = ["-o", "ControlPath=none"]
        argv = self.argv(["cat", path])
        done = _run([argv[0], *alone, *argv[1:]], timeout=_ASK_SECONDS)
        if done.returncode:
            raise GuestError("Cannot read %s in the guest: %s" % (path, done.stderr.strip()))
        return done.stdout.strip()

    def copy(self, source: str, target: str) -> None:
        """scp; the guest's side is written with the prefix that remote() gives."""
        done = _run(["scp", *self.options(), "-q", "-r", "-p", source, target], timeout=300)
        if done.returncode:
            raise GuestError("Cannot copy %s to %s: %s" % (source, target, done.stderr.strip()))

    def remote(self, path: str) -> str:
        """Return a path of the guest for copy()."""
        return "%s@%s:%s" % (USER, HOST, path)

    def answers(self) -> bool:
        """Return whether sshd greets; QEMU accepts connections long before the guest does."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as greeting:
                return greeting.recv(4) == b"SSH-"
        except OSError:
            return False

    def forget(self) -> None:
        """End the shared login, which a reboot leaves hanging."""
        if self.keep.exists():
            with contextlib.suppress(GuestError):
                _run(["ssh", *self.options(), "-O", "exit", HOST], timeout=20)
            self.keep.unlink(missing_ok=True)


def _run(
    argv: Sequence[str], *, timeout: float, feed: str | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            # Without a text of its own, ssh would read the caller's.
            input=feed or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GuestError("No answer within %d s to: %s" % (timeout, argv[-1])) from None
    except FileNotFoundError:
        raise GuestError(
            "%s is missing on this machine; install the Debian package openssh-client" % argv[0]
        ) from None
