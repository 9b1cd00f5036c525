# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_summary
short_description: Summarize a rollout over all of its hosts
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns which hosts of a rollout failed, whether it stops, and lines to print.
  - The row of a host, from P(armfleet.vfio.rollout_state#filter), is in its variable
    C(rollout_row), and the number of its wave in C(rollout_wave). A host whose wave has begun has
    failed as long as it has no row.
positional: hostvars, texts
options:
  texts:
    description: >-
      C(title) of the rollout, its number of C(waves), how many hosts may fail (C(limit)), and lines
      that end the summary, C(advice), or C(way_back) if all hosts are in sync. It may have
      C(nothing), a message for a rollout that changed no host, which then fails.
    type: dict
    required: true
  is_over:
    description: Whether no wave is left.
    type: bool
    default: false
  is_declined:
    description: Whether the operator chose not to go on.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.hosts
seealso:
  - plugin: armfleet.vfio.rollout_state
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Print the summary
  armfleet.vfio.print_text:
    lines: "{{ summary.lines }}"
  vars:
    texts: {title: Rollout crypto-v3, waves: 3, limit: 0, advice: [], way_back: []}
    summary: >-
      {{ ansible_play_hosts_all | armfleet.vfio.rollout_summary(hostvars, texts, is_over=true) }}
  run_once: true
"""

RETURN = r"""
_value:
  description: Summary.
  type: dict
  contains:
    states:
      description: The rows of all hosts, from P(armfleet.vfio.rollout_state#filter).
      returned: always
      type: list
      elements: dict
    failed:
      description: Names of the hosts that failed or cannot be reached.
      returned: always
      type: list
      elements: str
      sample: [board-7]
    problem:
      description: Why the rollout fails although no host failed; null if it does not.
      returned: always
      type: str
      sample: null
    stops:
      description: Whether no further wave may begin.
      returned: always
      type: bool
      sample: true
    lines:
      description: >-
        A table of the hosts, those that stop a rollout first, and what to do; empty if it goes on.
      returned: always
      type: list
      elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _rollout_result
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import recorded
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def rollout_summary(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, Any],
    is_over: bool = False,
    is_declined: bool = False,
) -> Any:
    """As documented above."""
    states = _rollout_result.states(hosts, recorded(hostvars))
    return make_unsafe(
        _rollout_result.summary(states, texts, is_over=is_over, is_declined=is_declined)
    )


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_summary": rollout_summary}
