# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_state
short_description: Return the result of a rollout on a host
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Returns one row of the tables of the playbooks C(armfleet.vfio.rollout), C(armfleet.vfio.rollback)
  and C(armfleet.vfio.reboot), from what their tasks registered on a host.
options:
  _input:
    description: Name of the host.
    type: str
    required: true
  wave:
    description: Number of its wave, from V(1).
    type: int
    required: true
  applied:
    description: >-
      Result of M(armfleet.vfio.host_policy) or M(ansible.builtin.reboot), including that of a
      failed task.
    type: dict
  checked:
    description: >-
      Result of M(armfleet.vfio.device_info) after it; none or skipped in check mode. If it has
      another C(policy_digest) than C(applied), the host has failed.
    type: dict
  failure:
    description: C(task) that failed and its C(msg), if one failed.
    type: dict
  unchanged:
    description: Message for a host that was not changed, instead of the state of its devices.
    type: str
seealso:
  - plugin: armfleet.vfio.rollout_summary
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Fail if the list was not applied
  ansible.builtin.assert:
    that: row.outcome in ["changed", "unchanged"]
    fail_msg: "{{ row.message }}"
  vars:
    row: "{{ inventory_hostname | armfleet.vfio.rollout_state(1, applied, checked) }}"
"""

RETURN = r"""
_value:
  description: Row.
  type: dict
  contains:
    host:
      description: Name of the host.
      returned: always
      type: str
      sample: board-7
    wave:
      description: Number of its wave.
      returned: always
      type: int
      sample: 2
    outcome:
      description: >-
        V(changed) or V(unchanged) if the devices of its list are in sync, otherwise V(failed) or
        V(unreachable). In check mode V(would change) instead of V(changed).
      returned: always
      type: str
      sample: failed
    message:
      description: Details on one line.
      returned: always
      type: str
      sample: >-
        /soc/crypto@b000000 (platform device b000000.crypto) has no reset function (acme,crypto-v2),
        and vfio-platform requires one (ENOENT). If the device may be used without a reset, set
        `passthrough_reset_required: false`.
    rollout:
      description: Name of the rollout that can be rolled back on the host; null if there is none.
      returned: always
      type: str
      sample: null
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _rollout_result
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe


def rollout_state(
    host: str,
    wave: int,
    applied: Mapping[str, Any] | None = None,
    checked: Mapping[str, Any] | None = None,
    failure: Mapping[str, Any] | None = None,
    unchanged: str | None = None,
) -> Any:
    """As documented above."""
    return make_unsafe(
        _rollout_result.rollout_state(
            host, wave, applied=applied, checked=checked, failure=failure, unchanged=unchanged
        )
    )


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_state": rollout_state}
