# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of this collection's modules: it runs one, and validates its answer."""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleAction, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.release import __version__

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers

# The output of a command as the host sent it, beside the one that may be shown.
_AS_SENT = "armfleet_vfio_as_sent"


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
        except AnsibleAction:
            # It carries a result, and no text of the host.
            raise
        except AnsibleConnectionFailure as error:
            # As a result it is one line of the output; of the exception, ansible-core from 2.19 on
            # shows the lines of the task as well.
            return {
                "unreachable": True,
                "changed": False,
                "msg": _answers.output(str(error).strip()),
            }
        except AnsibleError as error:
            # It has what the host wrote before a file was not transferred.
            told = str(error)
            clean = _answers.output(told)
            if clean == told:
                raise
            raise AnsibleError(clean) from None
        output = "%s%s" % (result.get("module_stderr", ""), result.get("module_stdout", ""))
        if not result.get("failed") or "SyntaxError: " not in output:
            return result
        return {
            "failed": True,
            "changed": False,
            "msg": "The target's Python is too old for ansible-core %s and cannot parse the "
            "module. Set ansible_python_interpreter to a newer one; %s requires 3.8 or "
            "later" % (__version__, self._task.action),
        }

    def _low_level_execute_command(self, *words: Any, **options: Any) -> dict[str, Any]:
        """Run a command on the host; what it writes is printable.

        ansible-core quotes it: the interpreter that it has discovered and why it has not, the
        directory for its files, what it could not remove.
        """
        done: dict[str, Any] = super()._low_level_execute_command(*words, **options)
        clean = {
            "stdout": _answers.command_output(done["stdout"]),
            "stderr": _answers.output(done["stderr"]),
        }
        return {**done, **_with_lines(clean), _AS_SENT: (done["stdout"], done["stderr"])}

    def _parse_returned_data(self, res: dict[str, Any], *profile: str) -> Any:
        """Let ansible-core parse the validated answer in place of that of the host.

        It shows some keys of what it parses, and acts on some, before an action plugin sees them.
        """
        stdout, stderr = res.pop(_AS_SENT)
        # What ansible-core starts in the background answers for itself.
        if self._task.async_val:
            sent = _with_lines({"stdout": stdout, "stderr": stderr})
            return super()._parse_returned_data({**res, **sent}, *profile)
        answer = self._read(stdout)
        if answer is not None:
            answer["invocation"] = {"module_args": self._task.args}
        clean = {
            "stdout": _answers.output(stdout)
            if answer is None
            else json.dumps(answer, default=str),
            "stderr": _answers.output(stderr),
        }
        return super()._parse_returned_data({**res, **_with_lines(clean)}, *profile)

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
                "msg": "The host's answer is malformed: %s. Check its Python interpreter and who "
                "has access to the host" % error,
                "module_stdout": _answers.output(stdout),
            }


def _with_lines(texts: dict[str, str]) -> dict[str, Any]:
    return {**texts, **{"%s_lines" % name: text.splitlines() for name, text in texts.items()}}
