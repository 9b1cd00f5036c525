# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: saved_plan
short_description: Read a plan file of the playbook armfleet.vfio.plan
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Reads a plan file on the control node. The playbook C(armfleet.vfio.rollout) applies it.
  - A file that was edited, is damaged, has another format or no plan for any of the hosts is
    reported as a problem.
positional: hosts
options:
  _input:
    description: Path of the file.
    type: str
    required: true
  hosts:
    description: Names of the hosts that are to be changed.
    type: list
    elements: str
    required: true
seealso:
  - plugin: armfleet.vfio.fleet_plan
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show which hosts have a plan
  ansible.builtin.debug:
    msg: "{{ ('plan.json' | armfleet.vfio.saved_plan(ansible_play_hosts_all)).plans | list }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Content of the file.
  type: dict
  contains:
    problems:
      description: Sentences about what is wrong with the file; then all else is empty.
      returned: always
      type: list
      elements: str
    plans:
      description: >-
        C(plan_digest) of M(armfleet.vfio.host_policy) by host. Hosts that were refused are not in
        it.
      returned: always
      type: dict
    rollout:
      description: Name of the rollout; null if the plan has none.
      returned: always
      type: str
    made_at:
      description: Time of the plan (ISO 8601, UTC).
      returned: always
      type: str
"""

import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _fleet_plan
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import printable
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe

# A plan of 1,000 hosts with 10 devices each has 10 MB.
_LARGEST = 2**28


def saved_plan(path: str, hosts: Sequence[str]) -> Any:
    """As documented above."""
    return make_unsafe(_read(str(path), hosts))


def _read(path: str, hosts: Sequence[str]) -> _fleet_plan.SavedPlan:
    shown = printable(path)
    try:
        # A FIFO without a writer would be waited for.
        descriptor = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return _fleet_plan.decode("", "%s is no file, and" % shown, hosts)
            content = stream.read(_LARGEST)
    except OSError as error:
        return _fleet_plan.unreadable(shown, error)
    return _fleet_plan.decode(content.decode("utf-8", "replace"), shown, hosts)


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"saved_plan": saved_plan}
