# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints text on the control node."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable

_DISPLAY = Display()


class ActionModule(ActionBase):
    """The action of print_text."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, given = self.validate_argument_spec(
            {"lines": {"type": "list", "elements": "str", "required": True}}
        )
        lines = list(map(printable, given["lines"]))
        _DISPLAY.display("\n".join(lines))
        return {"changed": False, "lines": lines}
