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

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _action_module, _passthrough_role

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
    """Names the user of a rollout, and adds warnings for variables that are not read."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if self._task.args.get("rollout") and not self._task.args.get("rollout_by"):
            self._task.args["rollout_by"] = user_of_run(task_vars or {})
        result = super().run(tmp, task_vars)
        if task_vars is None or task_vars.get("ansible_role_name") != _passthrough_role.NAME:
            return result
        translated = _passthrough_role.translated(result)
        ignored = _passthrough_role.ignored_variables(task_vars)
        if ignored:
            others = translated.get("warnings")
            translated["warnings"] = [*(others if isinstance(others, list) else []), *ignored]
        return translated
