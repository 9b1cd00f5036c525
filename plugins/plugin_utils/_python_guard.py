# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says in a sentence that the target's Python is too old, where ansible-core shows a traceback.

The modules check the Python version themselves, but ansible-core 2.19 and later fail on an old one
with a SyntaxError of their own before any line of a module runs.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.release import __version__


class ActionModule(NormalAction):
    """Runs the module of the task's name, as ansible-core's own action plugin does."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        output = "%s%s" % (result.get("module_stderr", ""), result.get("module_stdout", ""))
        if not result.get("failed") or "SyntaxError: " not in output:
            return result
        return {
            "failed": True,
            "changed": False,
            "msg": "The target's Python is too old for ansible-core %s, and cannot even read what "
            "is sent to it. Point ansible_python_interpreter to a newer one; %s needs 3.8 or later"
            % (__version__, self._task.action),
        }
