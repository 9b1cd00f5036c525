# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only door to modprobe."""

from __future__ import annotations

import os
import subprocess
from typing import Mapping, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError

_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


class Kmod:
    """Asks modprobe about kernel modules and has it load and unload them.

    ``timeout`` is in seconds, for one call of modprobe.
    """

    def __init__(self, timeout: float = 30) -> None:
        self._timeout = timeout

    def is_available(self, module: str) -> bool:
        """Whether this kernel has ``module``, as a file or built in.

        PolicyError where there is no modprobe to ask.
        """
        if _program() is None:
            raise PolicyError("modprobe is not installed on this host; install the package kmod")
        return self._run(["--dry-run", "--quiet", "--", module])[0] == 0

    def resolve(self, modalias: str) -> list[str]:
        """The modules that claim ``modalias``, as udev would find them; none if blacklisted."""
        code, output = self._run(["--resolve-alias", "--use-blacklist", "--quiet", "--", modalias])
        return output.split() if code == 0 else []

    def parameter(self, module: str, name: str) -> str | None:
        """The value that ``module`` would be loaded with, by modprobe's configuration or the
        kernel's command line; None where neither sets it.
        """
        _code, output = self._run(["--show-depends", "--", module])
        values = [word.partition("=")[2] for word in output.split() if word.startswith(name + "=")]
        return values[-1] if values else None

    def load(self, module: str, parameters: Mapping[str, str] | None = None) -> None:
        """Load ``module``; PolicyError with modprobe's own words where that fails."""
        settings = ["%s=%s" % item for item in sorted((parameters or {}).items())]
        self._change("load", module, ["--", module, *settings])

    def unload(self, module: str) -> None:
        """Unload ``module``; PolicyError with modprobe's own words where that fails."""
        self._change("unload", module, ["--remove", "--", module])

    def _change(self, verb: str, module: str, arguments: Sequence[str]) -> None:
        code, output = self._run(arguments)
        if code:
            raise PolicyError(
                "Cannot %s the kernel module %s: %s"
                % (verb, module, " ".join(output.split()) or "modprobe ended with %d" % code)
            )

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        program = _program()
        if program is None:
            return 127, "modprobe is not installed"
        process = _start([program, *arguments])
        try:
            output, _unused = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            # Not waited for: a module whose initialisation hangs does not end when killed.
            process.kill()
            raise PolicyError(
                "modprobe %s did not end within %g s; process %d is left waiting for the kernel"
                % (" ".join(arguments), self._timeout, process.pid)
            ) from None
        return process.returncode, output.decode("utf-8", "replace")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": ":".join(_FOLDERS), "LC_ALL": "C"},
        )
    except OSError as error:
        raise PolicyError("Cannot start %s: %s" % (command[0], error.strerror)) from None


def _program() -> str | None:
    candidates = [folder + "/modprobe" for folder in _FOLDERS]
    return next((path for path in candidates if os.access(path, os.X_OK)), None)
