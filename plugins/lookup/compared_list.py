# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: compared_list
short_description: Compare the applied list of a host with the one of its variables
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the state and the message of a host, as P(armfleet.vfio.host_state#filter) does, or the
    state V(outdated) if the host is in sync with another list than the variables of the role
    C(armfleet.vfio.passthrough) have for it.
  - Facts are ignored. Without C(passthrough_devices), nothing is compared. Variables that cannot be
    evaluated do not change the state, but the message contains the reason.
options:
  _terms:
    description: >-
      State of the host, from P(armfleet.vfio.host_state#filter), and the registered result of
      M(armfleet.vfio.device_info) that it was made of.
    type: list
    elements: dict
    required: true
seealso:
  - plugin: armfleet.vfio.host_state
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the devices
  armfleet.vfio.device_info:
  register: device_info

- name: Show whether the host has the list of the inventory
  ansible.builtin.debug:
    msg: "{{ lookup('armfleet.vfio.compared_list', state, device_info).message }}"
  vars:
    state: "{{ device_info | armfleet.vfio.host_state(inventory_hostname) }}"
"""

RETURN = r"""
_list:
  description: The C(state) and the C(message).
  type: list
  elements: dict
  sample:
    - state: outdated
      message: >-
        It is in sync with another list, but the inventory has one for it. Roll out the list of the
        inventory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _inventory_list
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import MalformedAnswerError
from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import (
    context_without_facts,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._passthrough_role import (
    DEFAULTS,
    PREFIX,
)


class LookupModule(LookupBase):
    """The lookup, for ansible-core."""

    def run(
        self,
        terms: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        **_kwargs: Any,
    ) -> list[dict[str, str]]:
        """As documented above."""
        state, answer = terms
        unchanged = {"state": state["state"], "message": state["message"]}
        context = context_without_facts(variables or {})
        if "policy_digest" not in answer or PREFIX + "devices" not in context:
            return [unchanged]
        try:
            options = self._role_options(context)
            if not _inventory_list.is_compared(options) or _inventory_list.is_applied(
                options, answer
            ):
                return [unchanged]
        except (AnsibleError, PolicyError, MalformedAnswerError) as error:
            return [_inventory_list.not_compared(state, str(error))]
        return [_inventory_list.outdated(state)]

    def _role_options(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of host_policy by the variables and the defaults of the role."""
        templar = self._templar.copy_with_new_env(available_variables=context)
        return {
            name: templar.template(context[PREFIX + name]) if PREFIX + name in context else default
            for name, default in DEFAULTS.items()
        }
