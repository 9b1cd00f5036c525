# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ansible-playbook beside the test, which looks on and ends it by a signal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What waits longer than this has failed.
_MOST_SECONDS = 120
_BETWEEN_LOOKS = 0.05


class StartedPlaybook:
    """A run of ansible-playbook in a process group of its own."""

    def __init__(
        self, inventory: Path, playbook: str, directory: Path, *arguments: str, **variables: Any
    ) -> None:
        self._output = directory / "output"
        (directory / "vars.json").write_text(json.dumps(variables))
        # Of this run alone, so that its processes are known by it.
        self._own_argument = f"@{directory}/vars.json"
        command = ["ansible-playbook", "-i", inventory, "-e", self._own_argument]
        with self._output.open("wb") as stream:
            self._process = subprocess.Popen(
                [*command, *arguments, playbook],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOST_KEY_CHECKING": "0"},
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for the condition; the run must not end before."""
        while not condition():
            assert self._process.poll() is None, self.output
            select.select([], [], [], _BETWEEN_LOOKS)

    def wait(self) -> int:
        """Return the exit status when the run has ended."""
        return self._process.wait(_MOST_SECONDS)

    def end(self, number: signal.Signals, *, whole_group: bool = True) -> int:
        """Send the signal to the run, as a terminal does, or to its first process; return the code.

        Its workers, each in a session of its own, may run on: see :meth:`close`.
        """
        if whole_group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self.wait()

    def close(self) -> None:
        """End what is left of the run: workers of one that was killed wait for it for ever."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if self._own_argument.encode() in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
