# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start runs on a simulated host that are killed before they end.

A run is a fork of this process, which has imported all modules: a new Python interpreter would
take longer to start than the run takes. It writes its process ID and waits for a start signal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import reconcile
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs
from extensions.simulator import namespace

CHANGES = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.symlink"}
PLACES = ("/etc/", "/dev/vfio/")
LONGEST_SECONDS = 120


class Watch:
    """Counts the changes to files below /etc and /dev/vfio, and kills the process at one."""

    def __init__(self, kill_at: int) -> None:
        self.seen = 0
        self._kill_at = kill_at

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not self._is_change(event, arguments):
            return
        self.seen += 1
        if self.seen == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            is_written = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            return is_written and str(arguments[0]).startswith(PLACES)
        # os.chmod may get a descriptor (fchmod); the second argument of os.symlink is the link.
        target = arguments[1 if event == "os.symlink" else 0]
        return isinstance(target, int) or str(target).startswith(PLACES)


class Wish(NamedTuple):
    """The parameters of a run.

    It applies ``entries`` ``times`` times, and kills itself before change number ``kill_at`` to a
    file; 0 means never.
    """

    entries: Sequence[Mapping[str, Any]]
    settings: Mapping[str, bool]
    times: int = 1
    kill_at: int = 0


class Outcome(NamedTuple):
    """The result of applying a list; ``files`` counts the run's changes to files so far."""

    is_changed: bool
    files: int
    is_interruption_reported: bool


class Child(NamedTuple):
    """A run that waits for its start signal; ``pid`` is its process ID on the host."""

    process: int
    pid: int
    go: int
    output: int

    def finish(self) -> list[Outcome]:
        """Start the run, wait for its end, and return the result of each list it applied."""
        os.close(self.go)
        text = b""
        while part := _read(self.output):
            text += part
        os.close(self.output)
        os.waitpid(self.process, 0)
        return [Outcome(*json.loads(line)) for line in text.splitlines()]


def begin(host: int, wish: Wish) -> Child:
    """Fork a run that enters the host whose process ID is ``host``."""
    awaited, go = os.pipe()
    output, written = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(go)
        os.close(output)
        _enter_and_run(host, wish, awaited, written)
    os.close(awaited)
    os.close(written)
    return Child(process, int(_read(output)), go, output)


def _enter_and_run(host: int, wish: Wish, awaited: int, written: int) -> NoReturn:
    """Run in the forked process, and exit without returning to the tests."""
    try:
        namespace.enter(host)
        # Only children of this process are in the PID namespace of the host.
        run_on_host = os.fork()
        if run_on_host == 0:
            os.write(written, b"%d\n" % os.getpid())
            # End of file is the start signal.
            os.read(awaited, 1)
            _run(wish, written)
        else:
            os.close(written)
            os.waitpid(run_on_host, 0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


def _run(wish: Wish, written: int) -> None:
    watch = Watch(wish.kill_at)
    sys.addaudithook(watch)
    for _time in range(wish.times):
        sysfs = Sysfs()
        host = Host(sysfs, Kmod(), Files(), KernelLog())
        request = Request(
            parse_entries(wish.entries),
            is_whole_list=True,
            persistent=True,
            settings=VfioSettings(**wish.settings),
            rollout="crash",
        )
        outcome = reconcile(
            host, Usage(sysfs, "/proc"), RunLock("host_policy"), request, check_mode=False
        )
        reported = Outcome(outcome.is_changed, watch.seen, bool(outcome.interrupted))
        os.write(written, json.dumps(reported).encode() + b"\n")
        sysfs.close()


def _read(descriptor: int) -> bytes:
    """Return the next bytes from a pipe, none at the end of file."""
    ready, _writable, _special = select.select([descriptor], [], [], LONGEST_SECONDS)
    assert ready, f"a run takes more than {LONGEST_SECONDS} s"
    return os.read(descriptor, 1 << 16)
