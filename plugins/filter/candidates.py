# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: candidates
short_description: Render which devices of hosts can be bound to VFIO, and a policy list with them
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Renders registered results of M(armfleet.vfio.device_info) as tables of at most 120 columns, and
    as a policy list to be pasted into the inventory. The playbook C(armfleet.vfio.candidates)
    prints them.
  - Hosts with the same board, devices and last-applied configuration share a table. A device is a
    candidate there if it is one on each of these hosts.
  - A host without a result is reported with the reason.
positional: hostvars, variable, only, unsafe_noiommu
options:
  variable:
    description: Name of the variable in which the result was registered.
    type: str
    required: true
  only:
    description:
      - Patterns, each as in a shell. A device is shown if one of them occurs in its name, path,
        compatible strings, ACPI id, alias or driver. Upper and lower case are the same.
      - One string is split at commas.
      - If empty, all devices are shown.
    type: list
    elements: str
    default: []
  unsafe_noiommu:
    description: >-
      Whether devices without an IOMMU count as candidates, where the kernel allows it. User space
      that has such a device can read and write all memory of the host.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - module: armfleet.vfio.device_info
"""

EXAMPLES = r"""
- name: Read the devices
  armfleet.vfio.device_info:
  register: board
  ignore_errors: true
  ignore_unreachable: true

- name: Print which AES engines can be bound to VFIO
  armfleet.vfio.print_text:
    lines: "{{ engines.lines }}"
  vars:
    engines: "{{ ansible_play_hosts_all | armfleet.vfio.candidates(hostvars, 'board', ['aes']) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Candidates of the hosts.
  type: dict
  contains:
    lines:
      description: Tables and policy lists, as text.
      returned: always
      type: list
      elements: str
    boards:
      description: >-
        For each table the C(hosts), the names of the C(board) and its C(devices). A device has
        C(entry), C(settings), C(candidate), C(why_not) and other values of
        M(armfleet.vfio.device_info), whether it is C(listed) in the last-applied configuration, and
        its C(drivers) on these hosts.
      returned: always
      type: list
      elements: dict
    unread:
      description: >-
        C(host) and C(message) of each host that could not be read.
      returned: always
      type: list
      elements: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _candidates
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import without_facts
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def candidates(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    variable: str,
    only: Sequence[str] = (),
    unsafe_noiommu: bool = False,
) -> Any:
    """As documented above."""
    patterns = only.split(",") if isinstance(only, str) else list(only)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise AnsibleFilterError("armfleet.vfio.candidates takes patterns, each a string")
    patterns = [pattern.strip() for pattern in patterns if pattern.strip()]
    given = without_facts(hostvars)
    results = {host: given[host].get(variable) for host in hosts}
    boards, unread = _candidates.tables(results, patterns, accepts_noiommu=unsafe_noiommu)
    return make_unsafe(
        {
            "lines": _candidates.text(boards, unread),
            **_candidates.data(boards, unread),
        }
    )


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"candidates": candidates}
