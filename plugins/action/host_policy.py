# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of this name; in the role passthrough, its sentences name the role's options."""

from __future__ import annotations

from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _action_module, _passthrough_role


class ActionModule(_action_module.ActionModule):
    """Adds warnings for variables that were meant for the role but are not read."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if task_vars is None or task_vars.get("ansible_role_name") != _passthrough_role.NAME:
            return result
        translated = _passthrough_role.translated(result)
        ignored = _passthrough_role.ignored_variables(task_vars)
        if ignored:
            others = translated.get("warnings")
            translated["warnings"] = [*(others if isinstance(others, list) else []), *ignored]
        return translated
