# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: play_hosts
short_description: Select the hosts of a play and reject a play without hosts
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the names of the hosts on which a play runs, for its keyword C(hosts). The playbooks of
    this collection use it.
  - Ends C(ansible-playbook) with exit code 1 and a message for each problem before the play starts.
    Problems are a pattern that matches no host, also after C(--limit), a name in the pattern that
    is neither a group nor a host of the inventory, and an invalid value of a variable of the play.
    Ansible itself skips a play without hosts and ends with exit code 0.
  - With C(--syntax-check), C(--list-tasks) and C(--list-tags) nothing is rejected.
options:
  _terms:
    description: Pattern of the hosts, as a string or a list of strings.
    type: raw
    required: true
  canaries:
    description: >-
      Hosts and groups that come first, as a string or a list of strings. Each must match a host,
      and the pattern must match all of these hosts as well.
    type: raw
    default: []
  checked:
    description: >-
      Variables of the play and their values, which are validated as
      P(armfleet.vfio.variable_problems#filter) does.
    type: dict
    default: {}
  filters:
    description: >-
      Whether tasks of the playbook use filters of this collection. These are then loaded once,
      before the processes of its tasks start.
    type: bool
    default: true
  whole:
    description: >-
      Whether a run of a part of the playbook is rejected: C(--start-at-task), C(--tags) that select
      no task, and variables that have the name of a keyword of plays.
    type: bool
    default: false
  interrupted:
    description: >-
      Whether to print how to continue a rollout if C(ansible-playbook) ends before it has reported
      its result, as it does on Ctrl-C.
    type: bool
    default: false
  results:
    description: >-
      Files with the results of an earlier run. They are removed if the play is rejected, so that
      they are not mistaken for results of this run. So are those that C(rollout_results) and
      C(drift_results) of O(checked) name.
    type: list
    elements: str
    default: []
notes:
  - Use it only in the keyword C(hosts). It ends C(ansible-playbook), so it cannot be used in tasks.
seealso:
  - plugin: armfleet.vfio.play_waves
    plugin_type: lookup
  - plugin: armfleet.vfio.variable_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the devices of the selected hosts
  hosts: "{{ lookup('armfleet.vfio.play_hosts', passthrough_hosts | default('all')) }}"
  gather_facts: false
  tasks:
    - name: Read the devices
      armfleet.vfio.device_info:
"""

RETURN = r"""
_list:
  description: One string with the names of the hosts, separated by commas, the canaries first.
  type: list
  elements: str
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.loader import filter_loader
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _interrupted_rollout
from ansible_collections.armfleet.vfio.plugins.plugin_utils._play_hosts import (
    choose,
    is_listing,
    problems_of_parts,
    read_inventory,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    problem_of,
    result_files,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._request_digest import code_digest


class LookupModule(LookupBase):
    """The lookup, for ansible-core."""

    def run(
        self, terms: Sequence[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """As documented above."""
        self.set_options(var_options=variables, direct=kwargs)
        (pattern,) = terms
        variables = variables or {}
        if is_listing(context.CLIARGS):
            return ["all"]
        given = self.get_option("checked")
        inventory = read_inventory(self._loader, variables)
        choice = choose(inventory, pattern, self.get_option("canaries"))
        problems = [*choice.problems, *filter(None, map(problem_of, given, given.values()))]
        if self.get_option("whole"):
            problems += problems_of_parts(context.CLIARGS, variables)
        if problems:
            _remove([*self.get_option("results"), *result_files(given)])
            _refuse(problems)
        # The first play of a run has none yet, and nothing to report.
        if self.get_option("interrupted") and "hostvars" in variables:
            _interrupted_rollout.watch(choice.hosts, variables["hostvars"])
        # Each task has a process of its own, which would read all modules, or load all filters.
        code_digest()
        if self.get_option("filters"):
            filter_loader.get("armfleet.vfio.host_state")
        # With the last comma a name is never split at its colons.
        return ["".join("%s," % host for host in choice.hosts)]


def _remove(files: Sequence[str]) -> None:
    for path in map(Path, map(os.path.realpath, files)):
        # What cannot be removed must not hide the refusal.
        with suppress(OSError):
            if path.is_file():
                path.unlink()


def _refuse(problems: Sequence[str]) -> None:
    """End ansible-playbook.

    Whatever error the template of a keyword raises, ansible-core from 2.19 on ends with exit code
    4, as if the playbook could not be parsed.
    """
    Display().error(" ".join(problems), wrap_text=False)
    raise SystemExit(1)
