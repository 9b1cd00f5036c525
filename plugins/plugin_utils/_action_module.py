# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of this collection's modules: it runs one, and validates its answer."""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.release import __version__

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers


class ActionModule(NormalAction):
    """Runs the module of the task's name, as ansible-core's own action plugin does.

    The answer of the host is untrusted data: see ``_answers``. A Python that is too old for
    what ansible-core sends is reported in a sentence, where ansible-core 2.19 and later show a
    SyntaxError of their own before any line of a module runs.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            result: dict[str, Any] = super().run(tmp, task_vars)
        except AnsibleConnectionFailure as error:
            # It has what the host wrote before the connection ended.
            raise AnsibleConnectionFailure(_answers.output(str(error))) from None
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

    def _parse_returned_data(self, res: dict[str, Any], *profile: str) -> Any:
        """Let ansible-core parse the validated answer in place of that of the host.

        It shows some keys of what it parses, and acts on some, before an action plugin sees them.
        """
        # What ansible-core starts in the background answers for itself.
        if self._task.async_val:
            return super()._parse_returned_data(res, *profile)
        answer = self._read(res["stdout"])
        if answer is not None:
            answer["invocation"] = {"module_args": self._task.args}
        clean = {
            "stdout": _answers.output(res["stdout"])
            if answer is None
            else json.dumps(answer, default=str),
            "stderr": _answers.output(res["stderr"]),
        }
        lines = {"%s_lines" % name: text.splitlines() for name, text in clean.items()}
        return super()._parse_returned_data({**res, **clean, **lines}, *profile)

    def _read(self, stdout: str) -> dict[str, Any] | None:
        """Return the validated answer, or None if there is none, as on a failed start."""
        try:
            answer = _answers.decode(stdout)
            if answer is None:
                return None
            return _answers.read(self._task.action.rpartition(".")[2], answer)
        except _answers.MalformedAnswerError as error:
            return {
                "failed": True,
                "changed": False,
                "msg": "The answer of the host is malformed: %s. Check its Python interpreter and "
                "who has access to the host" % error,
                "module_stdout": _answers.output(stdout),
            }
