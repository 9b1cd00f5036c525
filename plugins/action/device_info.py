# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs device_info, and the modules that meta/runtime.yml routes here."""

from __future__ import annotations

from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _action_module

# What ansible-core calls the play of the command ansible.
_AD_HOC = "Ansible Ad-Hoc"


class ActionModule(_action_module.ActionModule):
    """The action of device_info, which sums up its answer for a person at a terminal."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        is_read = self._task.action.endswith(".device_info") and result.get("vfio_support")
        if is_read and variables.get("ansible_play_name") == _AD_HOC:
            # Here, because each task of a playbook would load it.
            from ansible_collections.armfleet.vfio.plugins.plugin_utils import (  # noqa: PLC0415
                _candidates,
            )

            boards, unread = _candidates.tables({variables["inventory_hostname"]: result})
            result["summary"] = _candidates.text(boards, unread)
        return result
