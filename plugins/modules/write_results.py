#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of a playbook as files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_results
short_description: Write the results of a playbook for CI systems and for --limit
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Writes the results of the hosts of a playbook into files of the control node, as JSON or as
    JUnit XML, and the names of the hosts that failed into a file for C(--limit @FILE).
  - Each file is replaced at once, and readable by all users.
options:
  paths:
    description: Files to write; JUnit XML if the name ends in C(.xml), otherwise JSON.
    type: list
    elements: str
    default: []
  retry_file:
    description:
      - File for the names of the hosts that failed. It is removed if none failed, because Ansible
        takes an empty file as no limit.
    type: str
  playbook:
    description: Name of the playbook, the class of the test cases.
    type: str
    required: true
  outcome_key:
    description: Key of O(hosts) with the outcome.
    type: str
    default: outcome
  hosts:
    description:
      - Results of the hosts, with at least C(host), C(message) and O(outcome_key).
      - If omitted, the files of an earlier run are removed, O(retry_file) among them.
    type: list
    elements: dict
  failed:
    description: Names of the hosts that failed.
    type: list
    elements: str
    default: []
  skipped:
    description: Names of the hosts that were not begun.
    type: list
    elements: str
    default: []
attributes:
  action:
    description: It is an action plugin and runs on the control node alone.
    support: full
  check_mode:
    description: It writes the same in check mode, in which the playbook has results as well.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: N/A
"""

EXAMPLES = r"""
- name: Write the states of the hosts for Jenkins or GitLab
  armfleet.vfio.write_results:
    paths: [drift.json, drift.xml]
    playbook: drift
    outcome_key: state
    hosts: "{{ ansible_play_hosts_all | armfleet.vfio.host_states(hostvars, 'device_info') }}"
  run_once: true
"""

RETURN = r"""
paths:
  description: The files with results that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [drift.json, drift.xml]
"""
