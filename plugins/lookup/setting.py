# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: setting
short_description: Return a setting of a playbook without the facts of hosts
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the value of a variable of the playbooks C(armfleet.vfio.rollout),
    C(armfleet.vfio.rollback), C(armfleet.vfio.reboot), C(armfleet.vfio.drift) and
    C(armfleet.vfio.report), or of the role P(armfleet.vfio.report#role), or its default.
  - Some variables may be texts, as in C(-e) or in the answer to a survey. The value is what such a
    text means, and the default if it is empty.
  - Facts are ignored, including cached facts, because a host chooses its own facts and Ansible
    gives them precedence over the variables of the inventory.
  - The value may come from the inventory, C(-e), a variable of a play, of a role or of
    C(import_playbook), or a task of this run. Its templates are evaluated without facts as well.
options:
  _terms:
    description: Names of variables.
    type: list
    elements: str
    required: true
seealso:
  - plugin: armfleet.vfio.variable_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show how many hosts may fail
  ansible.builtin.debug:
    msg: "{{ lookup('armfleet.vfio.setting', 'rollout_max_failures') }}"
"""

RETURN = r"""
_list:
  description: The value of each variable.
  type: list
  elements: raw
  sample: [0]
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import (
    context_without_facts,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    REQUIREMENTS,
    meaning_of,
)


class LookupModule(LookupBase):
    """The lookup, for ansible-core."""

    def run(
        self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **_kwargs: Any
    ) -> list[Any]:
        """As documented above."""
        context = context_without_facts(variables or {})
        templar = self._templar.copy_with_new_env(available_variables=context)
        return [
            meaning_of(name, templar.template(context[name]))
            if name in context
            else REQUIREMENTS[name].default
            for name in terms
        ]
