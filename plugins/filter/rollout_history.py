# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_history
short_description: Render the last rollouts of hosts
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Renders C(rollouts) in registered results of M(armfleet.vfio.device_info) as a table of at most
    120 columns, newest rollout first. The playbook C(armfleet.vfio.history) prints it.
  - A host counts in each rollout by the last of its records with that name.
  - A host without a result is reported with the reason.
positional: hostvars, variable
options:
  variable:
    description: Name of the variable in which the result was registered.
    type: str
    required: true
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - module: armfleet.vfio.device_info
"""

EXAMPLES = r"""
- name: Read the rollouts
  armfleet.vfio.device_info:
    candidates: false
    devices: []
  register: board
  ignore_errors: true
  ignore_unreachable: true

- name: Print which hosts have which rollout
  armfleet.vfio.print_text:
    lines: "{{ (ansible_play_hosts_all | armfleet.vfio.rollout_history(hostvars, 'board')).lines }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Rollouts of the hosts.
  type: dict
  contains:
    lines:
      description: Table, hosts without a rollout and hosts that could not be read, as text.
      returned: always
      type: list
      elements: str
    rollouts:
      description: >-
        For each rollout, newest first, its C(name), C(time) (the median of those of its hosts), all
        C(users) and C(digests), the number of changed C(devices), and C(hosts), each with the name
        of the C(host) and the values that M(armfleet.vfio.device_info) returned in C(rollouts).
      returned: always
      type: list
      elements: dict
    without:
      description: Names of the hosts without any.
      returned: always
      type: list
      elements: str
    unread:
      description: >-
        C(host) and C(message) of each host that could not be read.
      returned: always
      type: list
      elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _rollout_history
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import recorded
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def rollout_history(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], variable: str
) -> Any:
    """As documented above."""
    given = recorded(hostvars)
    fleet = _rollout_history.history({host: given[host].get(variable) for host in hosts})
    return make_unsafe({"lines": _rollout_history.text(fleet), **_rollout_history.data(fleet)})


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_history": rollout_history}
