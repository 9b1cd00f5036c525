# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that is to be killed; what it shall do is a line of JSON on its input.

It tells its process number, waits for a line, applies the list as many times as is asked for, and
prints for each time whether it changed something, the number of changes to files, and whether it
said that an earlier run was interrupted. ``kill_at`` is the number of the change to a file before
which it kills itself; 0 is never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._call import Host, Request
from ansible_collections.armfleet.vfio.plugins.module_utils._engine import run
from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._kernel_log import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._runs import Runs
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import Usage

CHANGES = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.symlink"}
PLACES = ("/etc/", "/dev/vfio/")


class Watch:
    """Counts the changes to files below /etc and /dev/vfio, and kills at one of them."""

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
        # fchmod has a descriptor, and a link is the second of two.
        place = arguments[1 if event == "os.symlink" else 0]
        return isinstance(place, int) or str(place).startswith(PLACES)


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    watch = Watch(asked["kill_at"])
    sys.addaudithook(watch)
    for _time in range(asked["times"]):
        sysfs = Sysfs()
        host = Host(sysfs, Kmod(), Files(), Usage(sysfs, "/proc"), Runs("host_policy"), KernelLog())
        request = Request(
            parse_entries(asked["entries"]),
            is_whole_list=True,
            persistent=True,
            settings=VfioSettings(asked["reset_required"], asked["unsafe_noiommu"]),
            rollout="crash",
        )
        outcome = run(host, request, check_mode=False)
        told = [outcome.is_changed, watch.seen, bool(outcome.interrupted)]
        print(json.dumps(told), flush=True)
        sysfs.close()


if __name__ == "__main__":
    main()
