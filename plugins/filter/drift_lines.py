# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: drift_lines
short_description: Return the states of hosts as a table for a terminal
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Returns the lines that the playbook C(armfleet.vfio.drift) prints: a table of the hosts, the most
  urgent first, with hosts of the same state and message in one row, and a line with the totals.
options:
  _input:
    description: States of hosts, as P(armfleet.vfio.host_state#filter) returns them.
    type: list
    elements: dict
    required: true
  failed:
    description: Names of the hosts whose state fails the playbook.
    type: list
    elements: str
    default: []
  retry_file:
    description: File with these names, to be printed as an argument of C(--limit).
    type: str
seealso:
  - module: armfleet.vfio.print_text
"""

EXAMPLES = r"""
- name: Show the states of the hosts
  armfleet.vfio.print_text:
    lines: "{{ ansible_play_hosts_all | armfleet.vfio.host_states(hostvars, 'device_info')
               | armfleet.vfio.drift_lines }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
  sample:
    - HOST     STATE    DETAILS
    - board-1  in_sync  2 devices of its list are in sync, now and after the next boot.
    - ""
    - "One host: 1 in sync."
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _drift_result
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def drift_lines(
    states: Sequence[Mapping[str, Any]],
    failed: Sequence[str] = (),
    retry_file: str | None = None,
) -> Any:
    """As documented above."""
    return make_unsafe(_drift_result.lines(states, failed, retry_file))


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"drift_lines": drift_lines}
