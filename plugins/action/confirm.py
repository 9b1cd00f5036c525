# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks a question on the control node."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable

_DISPLAY = Display()
_ANSWERS = {b"y": True, b"yes": True, b"n": False, b"no": False}


class ActionModule(ActionBase):
    """The action of confirm."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _spec, given = self.validate_argument_spec({"question": {"type": "str", "required": True}})
        answer = _ask("%s [yes/no]: " % printable(given["question"]))
        return {"changed": False, "asked": answer is not None, "confirmed": answer is not False}


def _ask(prompt: str) -> bool | None:
    """Return the answer of the person at the terminal, None if there is no such person."""
    while True:
        try:
            answer = _DISPLAY.prompt_until(prompt).strip().lower()
        except AnsiblePromptNoninteractive:
            return None
        except AnsiblePromptInterrupt:
            return False
        if answer in _ANSWERS:
            return _ANSWERS[answer]
