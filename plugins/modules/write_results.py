#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of a playbook as files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: write_results
short_description: Write the results of a playbook on the control node
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Writes the results of the hosts of a playbook into files of the control node, as JSON or as
    JUnit XML, and the names of the hosts that failed into a file for C(--limit @FILE).
  - Also writes texts, such as those of P(armfleet.vfio.fleet_report#filter), as O(files).
  - Each file is replaced at once. Files other than O(files) are readable by all users.
  - Unlike M(ansible.builtin.copy) on C(localhost), it does not depend on variables that
    C(ansible-playbook -e) may set for hosts, such as C(ansible_python_interpreter) and
    C(ansible_become).
options:
  paths:
    description: Files to write; JUnit XML if the name ends in C(.xml), otherwise JSON.
    type: list
    elements: str
    default: []
  lines_file:
    description: File for O(hosts), each as a line of JSON.
    type: str
  files:
    description: Texts to write. A file with this content and mode is left unchanged.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: >-
          Path of the file. A relative one starts at O(directory), or else at the directory in which
          C(ansible-playbook) was run.
        type: str
        required: true
      content:
        description: The text.
        type: str
        required: true
      mode:
        description: >-
          Mode of the file, as a string in octal or in the symbols of C(chmod). A number is
          rejected, because YAML makes the number 416 of V(0640), and V(640) is mode 1200.
        type: raw
        default: "0644"
  directory:
    description:
      - Directory of O(files). It is created with mode 0755 if it does not exist.
      - A symbolic link in it that has the name of a file is replaced. Without O(directory), the
        link is followed.
    type: str
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
    description: >-
      It writes the results of hosts in check mode as well, in which the playbook has such, but not
      O(files).
    support: partial
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

- name: Write a list of hosts for another program
  armfleet.vfio.write_results:
    playbook: hosts
    directory: /srv/www/fleet
    files:
      - path: hosts.txt
        content: "{{ ansible_play_hosts_all | join('\n') }}"
        mode: "0644"
  run_once: true
"""

RETURN = r"""
paths:
  description: The files with results that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [drift.json, drift.xml]
written:
  description: The files of O(files) that were changed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [/srv/www/fleet/hosts.txt]
msg:
  description: The same as a sentence.
  returned: in check mode, if files would change
  type: str
  sample: "Check mode: would write /srv/www/fleet/hosts.txt."
"""
