# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of the host that a build needs."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import GuestError

# A build that is killed must not leave a compiler behind that writes into its directory.
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
_PACKAGE_LISTS = [
    Path(__file__).with_name(name) for name in ("demo-packages.txt", "debian-packages.txt")
]
_TAIL = 25


def require(*programs: str) -> None:
    """Name every program that is missing at once."""
    missing = [name for name in programs if find(name) is None]
    if missing:
        raise GuestError(
            "%s missing on this machine; install the Debian packages listed in %s"
            % (" and ".join(missing), " and ".join(map(str, _PACKAGE_LISTS)))
        )


def find(program: str) -> str | None:
    """Return where a program is; sbin directories are not in every user's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path)


def pretending_root() -> list[str]:
    """Return what to put before a command that gives files to others; nothing for root."""
    if os.geteuid() == 0:
        return []
    require("fakeroot")
    return ["fakeroot"]


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


def call(
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    feed: Path = Path(os.devnull),
) -> None:
    """Run a step of a build, fed from a file; its output goes to log, and is shown if it fails."""
    words = [str(word) for word in argv]
    with log.open("ab") as output, feed.open("rb") as source:
        output.write(("$ " + shlex.join(words) + "\n").encode())
        output.flush()
        status = _wait(
            subprocess.Popen(
                [*_END_WITH_PARENT, find(words[0]) or words[0], *words[1:]],
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
                stdin=source,
                stdout=output,
                stderr=subprocess.STDOUT,
                # mmdebstrap signals its whole process group when it is ended, which without this
                # is the caller's too.
                start_new_session=True,
            )
        )
    if status:
        raise GuestError(
            "%s failed with status %d; the end of its output:\n%s"
            % (shlex.join(words), status, tail(log))
        )


def tail(path: Path, lines: int = _TAIL) -> str:
    """Return the last lines of a log, or a word on why there are none."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return "  (%s)" % error
    written = [line for line in text.splitlines() if line.strip()]
    return "\n".join("  " + line for line in written[-lines:]) or "  (empty)"
