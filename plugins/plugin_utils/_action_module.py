# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of this collection's modules: it runs one, and validates its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleAction, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.release import __version__

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers, _request_digest

_LAST_ANSWER = "armfleet.vfio.last_answer"
# The output of a command as the host sent it, beside the one that may be shown.
_AS_SENT = "armfleet_vfio_as_sent"


class ActionModule(NormalAction):
    """Runs the module of the task's name, as ansible-core's own action plugin does.

    The answer of the host is untrusted data: see ``_answers``. A Python that is too old for
    what ansible-core sends is reported in a sentence, where ansible-core 2.19 and later show a
    SyntaxError of their own before any line of a module runs.
    """

    _request_digest: str | None = None
    _asks_for_kept = False
    _is_kept = False

    @property
    def _name(self) -> str:
        """The module's name in this collection."""
        return str(self._task.action.rpartition(".")[2])

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        self._request_digest = _request_digest.request_digest(self._name, self._task.args)
        try:
            result: dict[str, Any] = self._last_answer(task_vars) or super().run(tmp, task_vars)
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
            message = str(error)
            clean = _answers.output(message)
            if clean == message:
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

    def _last_answer(self, task_vars: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the answer that the host keeps of an earlier run; None if it has none."""
        # What ansible-core starts in the background is one module.
        if self._request_digest is None or self._task.async_val:
            return None
        options = {
            "request_digest": self._request_digest,
            "timeout": self._task.args.get("timeout", 30),
        }
        self._asks_for_kept = True
        try:
            result: dict[str, Any] = self._execute_module(
                module_name=_LAST_ANSWER, module_args=options, task_vars=task_vars
            )
        finally:
            self._asks_for_kept = False
        if not self._is_kept:
            return None
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _execute_module(self, *words: Any, **options: Any) -> Any:
        """Run a module; that of the task gets the digest by which the host keeps its answer."""
        if self._request_digest is not None and not self._asks_for_kept:
            digest = {"request_digest": self._request_digest}
            options["module_args"] = {**self._task.args, **digest}
        return super()._execute_module(*words, **options)

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
            if self._asks_for_kept:
                self._is_kept = isinstance(answer, Mapping) and answer.get("is_kept") is True
                if not self._is_kept:
                    return {"changed": False}
            return _answers.read(self._name, answer)
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
