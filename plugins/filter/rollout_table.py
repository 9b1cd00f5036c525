# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_table
short_description: Render the hosts of a rollout as a table
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Renders the rows of P(armfleet.vfio.rollout_state#filter) as a table. A host without a row was not
  started.
positional: hostvars, variable
options:
  variable:
    description: Name of the variable that has the row of a host.
    type: str
    required: true
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - plugin: armfleet.vfio.rollout_state
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the fleet
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | armfleet.vfio.rollout_table(hostvars, 'rollout_row') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: >-
    Lines: a header, the hosts that stop a rollout, and the others.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts
from ansible_collections.armfleet.vfio.plugins.plugin_utils._rollout_result import (
    not_started,
    table,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def rollout_table(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str
) -> Any:
    """As documented above."""
    given = without_facts(hostvars)
    return make_unsafe(table([given[host].get(variable) or not_started(host) for host in hosts]))


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_table": rollout_table}
