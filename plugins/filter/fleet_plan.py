# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_plan
short_description: Render what the policy lists of hosts would change
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Renders what the role P(armfleet.vfio.passthrough#role) registered in check mode as lines of at
    most 120 columns, and as the content of a plan file. The playbook C(armfleet.vfio.plan) prints
    and writes them.
  - Hosts with an equal change or an equal reason for a refusal share a paragraph.
positional: hostvars, boot_files, rollout, made_at
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of the hosts.
    type: dict
    required: true
  boot_files:
    description: Whether to show the differences of boot files instead of their names.
    type: bool
    default: false
  rollout:
    description: Name of the rollout that is to apply the plan, for the file.
    type: str
  made_at:
    description: Time of the plan, for the file.
    type: str
    default: ""
seealso:
  - plugin: armfleet.vfio.saved_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Print what the lists would change
  armfleet.vfio.print_text:
    lines: "{{ (ansible_play_hosts_all | armfleet.vfio.fleet_plan(hostvars)).lines }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Plan of the hosts.
  type: dict
  contains:
    lines:
      description: The plan as text; the last line has the totals.
      returned: always
      type: list
      elements: str
    content:
      description: Content of the plan file, JSON.
      returned: always
      type: str
    failed:
      description: Hosts without a plan, because they were refused or cannot be reached.
      returned: always
      type: list
      elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _fleet_plan
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import recorded
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def fleet_plan(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    boot_files: bool = False,
    rollout: str | None = None,
    made_at: str = "",
) -> Any:
    """As documented above."""
    given = recorded(hostvars)
    plans = {}
    for host in hosts:
        variables = given[host]
        plans[str(host)] = _fleet_plan.host_plan(
            variables.get("passthrough_applied"), variables.get("plan_failure")
        )
    return make_unsafe(
        {
            "lines": _fleet_plan.lines(plans, shows_boot_files=boot_files),
            "content": _fleet_plan.encode(plans, rollout, made_at),
            "failed": [host for host, plan in plans.items() if plan["plan"] is None],
        }
    )


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_plan": fleet_plan}
