# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes each task's result as one line of JSON, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: notification
short_description: Task results as lines of JSON
description:
  - Appends one JSON object for each task and host to the file named by the environment variable
    C(ARMFLEET_RESULTS).
requirements: []
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started = 0.0

    def v2_playbook_on_task_start(self, *_arguments, **_options) -> None:
        self._started = time.monotonic()

    def v2_runner_on_ok(self, result) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result, **_options) -> None:
        self._write("failed", result)

    def v2_runner_on_unreachable(self, result) -> None:
        self._write("unreachable", result)

    def v2_runner_on_skipped(self, result) -> None:
        self._write("skipped", result)

    def _write(self, status, result) -> None:
        # _dump_results returns plain data, but without the diff, which Ansible displays separately.
        plain = json.loads(self._dump_results(result._result, keep_invocation=False))
        if "diff" in result._result:
            plain["diff"] = result._result["diff"]
        line = {
            "status": status,
            "host": result._host.get_name(),
            "task": result._task.get_name(),
            "action": result._task.action,
            "seconds": time.monotonic() - self._started,
            "result": plain,
        }
        with open(os.environ["ARMFLEET_RESULTS"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
