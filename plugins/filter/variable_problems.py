# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: variable_problems
short_description: Validate the variables of a playbook of this collection
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Returns a message for each variable of the playbooks C(armfleet.vfio.rollout),
  C(armfleet.vfio.rollback), C(armfleet.vfio.reboot), C(armfleet.vfio.drift) and
  C(armfleet.vfio.report) that has an invalid value on a host, or several values if all hosts need
  the same. An unset variable is valid.
positional: hostvars, variables
options:
  variables:
    description: Names of the variables.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - plugin: armfleet.vfio.play_hosts
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Check how many hosts may fail
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join(' ') }}"
  vars:
    names: [rollout_max_failures]
    problems: "{{ ansible_play_hosts_all | armfleet.vfio.variable_problems(hostvars, names) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Messages.
  type: list
  elements: str
  sample:
    - >-
      rollout_max_failures is -1. It must be the number of hosts that may fail, 0 or more, or a
      percentage from "0%" to "100%".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import problems_of
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def variable_problems(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], variables: Sequence[str]
) -> Any:
    """As documented above."""
    return make_unsafe(problems_of(hosts, hostvars, variables))


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"variable_problems": variable_problems}
