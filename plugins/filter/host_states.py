# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: host_states
short_description: Return the states of hosts from their registered results
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Applies P(armfleet.vfio.host_state#filter) to the registered result of
  M(armfleet.vfio.device_info) of each host. A host without a result is V(failed).
positional: hostvars, variable
options:
  variable:
    description: Name of the variable in which the result was registered.
    type: str
    required: true
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - plugin: armfleet.vfio.host_state
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the devices
  armfleet.vfio.device_info:
  register: device_info
  ignore_errors: true
  ignore_unreachable: true

- name: Show the hosts that are not in sync
  ansible.builtin.debug:
    msg: "{{ fleet | rejectattr('state', 'in', ['in_sync', 'unmanaged']) }}"
  vars:
    fleet: "{{ ansible_play_hosts_all | armfleet.vfio.host_states(hostvars, 'device_info') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: State of each host, in their order, as P(armfleet.vfio.host_state#filter) returns it.
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.filter.host_state import host_state
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import recorded


def host_states(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str
) -> list[Any]:
    """As documented above."""
    given = recorded(hostvars)
    results = [given[host].get(variable) for host in hosts]
    return [
        host_state(result if isinstance(result, Mapping) else None, host)
        for host, result in zip(hosts, results, strict=True)
    ]


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_states": host_states}
