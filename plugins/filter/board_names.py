# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: board_names
short_description: Return the names of a board in characters that are safe in templates
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the names that C(when_board) is compared with, from C(board) as
    M(armfleet.vfio.device_info) returned it, each once.
  - A character that C(when_board) does not accept becomes V(_). Facts are stored in a cache, and
    the inventory plugins of ansible-core before 2.19 evaluate templates in what they read from
    there.
  - Names are truncated to 128 characters, and only the first 64 names are returned.
options:
  _input:
    description: The board, with C(compatible), C(product_name) and C(board_name).
    type: dict
    required: true
seealso:
  - module: armfleet.vfio.device_info
"""

EXAMPLES = r"""
- name: Read the board's names from the firmware
  armfleet.vfio.device_info:
    devices: []
  register: device_info

- name: Store its names
  ansible.builtin.set_fact:
    armfleet_board_names: "{{ device_info.board | armfleet.vfio.board_names }}"
    cacheable: true
"""

RETURN = r"""
_value:
  description: The names, in the order of the board.
  type: list
  elements: str
  sample: ["marvell,armada8040-mcbin", "marvell,armada8040"]
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector_entry import (
    is_board_name,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers

_LONGEST_NAME = 128
_MOST_NAMES = 64


def board_names(board: Any) -> list[str]:
    """As documented above."""
    try:
        checked = _answers.BOARD.read(board, "board")
    except _answers.MalformedAnswerError as error:
        raise AnsibleFilterError("armfleet.vfio.board_names: %s" % error) from error
    names = [*checked["compatible"], checked["product_name"], checked["board_name"]]
    reduced = ["".join(map(_reduced, name[:_LONGEST_NAME])) for name in names if name]
    return list(dict.fromkeys(reduced))[:_MOST_NAMES]


def _reduced(letter: str) -> str:
    return letter if letter == " " or is_board_name(letter) else "_"


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"board_names": board_names}
