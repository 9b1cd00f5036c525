# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of this name; in the role passthrough, its sentences name the role's options."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import (
    _action_module,
    _earlier_lists,
    _passthrough_role,
)

# AWX gives them to each job, with `-e`; its process belongs to nobody in particular.
_USERS_OF_AWX = ("awx_user_name", "tower_user_name")


def user_of_run(variables: Mapping[str, Any]) -> str:
    """Return who runs this, of whom the host keeps the name: a user of AWX or of this machine."""
    for name in _USERS_OF_AWX:
        if isinstance(variables.get(name), str) and variables[name]:
            return str(variables[name])
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may have no name for its user.
        user = str(os.getuid())
    return "%s@%s" % (user, socket.gethostname())


class ActionModule(_action_module.ActionModule):
    """Names the user of a rollout; in the role, refuses a second list for a host in a play."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if self._task.args.get("rollout") and not self._task.args.get("rollout_by"):
            self._task.args["rollout_by"] = user_of_run(task_vars or {})
        if task_vars is None or task_vars.get("ansible_role_name") != _passthrough_role.NAME:
            return super().run(tmp, task_vars)
        before = _earlier_lists.earlier(task_vars.get(_passthrough_role.REGISTERED))
        host = self._task.delegate_to or task_vars["inventory_hostname"]
        play = self._task.get_play()._uuid
        now = _earlier_lists.application(self._task.args, play, host)
        refusal = _earlier_lists.refusal(now, before)
        if refusal:
            kept = _earlier_lists.to_result(before)
            return _passthrough_role.translated(
                {"failed": True, "changed": False, "msg": refusal, **kept}
            )
        result = _passthrough_role.translated(super().run(tmp, task_vars))
        warnings = _passthrough_role.ignored_variables(task_vars)
        replaced = _earlier_lists.warning(now, before)
        if replaced:
            warnings.append(_passthrough_role.with_prefix(replaced))
        if warnings:
            others = result.get("warnings")
            result["warnings"] = [*(others if isinstance(others, list) else []), *warnings]
        if not result.get("failed") and not result.get("unreachable"):
            result.update(_earlier_lists.to_result(now))
        return result
