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

_SPEC: dict[str, Any] = {
    "paths": {"type": "list", "elements": "str", "default": []},
    "retry_file": {"type": "str"},
    "playbook": {"type": "str", "required": True},
    "outcome_key": {"type": "str", "default": "outcome"},
    "hosts": {"type": "list", "elements": "dict"},
    "failed": {"type": "list", "elements": "str", "default": []},
    "skipped": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """The action of write_results."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, given = self.validate_argument_spec(_SPEC)
        write(given, is_check=bool(self._task.check_mode))
        return {"changed": False, "paths": given["paths"]}


def write(given: Mapping[str, Any], *, is_check: bool) -> None:
    """Write or remove the files of a task with these options; AnsibleError if that fails."""
    try:
        _write(given, is_check=is_check)
    except OSError as error:
        raise AnsibleError(
            "The results cannot be written: %s (%s). Free space or correct the path, and run this "
            "again" % (error.strerror, error.filename)
        ) from error


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
    if given["retry_file"]:
        _result_files.write_retry(given["retry_file"], given["failed"])
