# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes files with the results of a playbook on the control node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _result_files
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable
from ansible_collections.armfleet.vfio.plugins.plugin_utils._file_modes import is_mode
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import shown

_FILE: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str", "required": True},
    # Of a number, "str" would make a text.
    "mode": {"type": "raw", "default": "0644"},
}
_SPEC: dict[str, Any] = {
    "paths": {"type": "list", "elements": "str", "default": []},
    "lines_file": {"type": "str"},
    "retry_file": {"type": "str"},
    "files": {"type": "list", "elements": "dict", "options": _FILE, "default": []},
    "directory": {"type": "str"},
    "playbook": {"type": "str", "required": True},
    "outcome_key": {"type": "str", "default": "outcome"},
    "hosts": {"type": "list", "elements": "dict"},
    "failed": {"type": "list", "elements": "str", "default": []},
    "skipped": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """The action of write_results, which needs no Python interpreter but Ansible's own."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, given = self.validate_argument_spec(_SPEC)
        written = write(given, is_check=bool(self._task.check_mode))
        result = {"changed": bool(written), "paths": given["paths"], "written": written}
        if written and self._task.check_mode:
            result["msg"] = "Check mode: would write %s." % ", ".join(written)
        return result


def write(given: Mapping[str, Any], *, is_check: bool) -> list[str]:
    """Write or remove the files of a task with these options; AnsibleError if that fails.

    Return the paths of those among ``files`` that changed, or would change if it ``is_check``.
    """
    for file in given["files"]:
        if not is_mode(file["mode"]):
            raise AnsibleError(
                "The mode of %s is %s. Give it as a string, such as '0644'"
                % (printable(file["path"]), shown(file["mode"]))
            )
    try:
        _write(given, is_check=is_check)
        files = [
            _result_files.File(path=file["path"], content=file["content"], mode=file["mode"])
            for file in given["files"]
        ]
        return _result_files.write_texts(files, given["directory"], is_check=is_check)
    except OSError as error:
        raise AnsibleError(
            "The results cannot be written: %s (%s). Free space or correct the path, and run this "
            "again" % (error.strerror, printable(str(error.filename)))
        ) from None


def _write(given: Mapping[str, Any], *, is_check: bool) -> None:
    if given["hosts"] is None:
        for path in filter(None, [*given["paths"], given["retry_file"]]):
            _result_files.remove(path)
        return
    results = _result_files.Results(
        given["playbook"],
        given["outcome_key"],
        given["hosts"],
        given["failed"],
        given["skipped"],
        is_check=is_check,
    )
    for path in given["paths"]:
        _result_files.write(path, results)
    if given["lines_file"]:
        _result_files.write_lines(given["lines_file"], given["hosts"])
    if given["retry_file"]:
        _result_files.write_retry(given["retry_file"], given["failed"])
