# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: play_waves
short_description: Divide the hosts of a play into waves
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Returns the waves in which the playbooks C(armfleet.vfio.rollout) and C(armfleet.vfio.reboot)
    run, for the keyword C(serial) of a play whose hosts P(armfleet.vfio.play_hosts#lookup) selects
    with the same variables.
  - All canaries are the first wave. The other hosts are divided by C(rollout_waves), whose
    percentages are shares of these hosts.
  - The variables C(passthrough_hosts), C(rollout_canaries) and C(rollout_waves) are those of the
    play and of C(-e), also in a task, because variables of hosts do not select the hosts of a play.
options: {}
seealso:
  - plugin: armfleet.vfio.play_hosts
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Restart a service on the canaries, and then on the other hosts
  hosts: >-
    {{ lookup('armfleet.vfio.play_hosts', passthrough_hosts, canaries=rollout_canaries) }}
  serial: "{{ query('armfleet.vfio.play_waves') | map(attribute='size') | list }}"
  gather_facts: false
  tasks:
    - name: Restart the service
      ansible.builtin.service:
        name: acme
        state: restarted
"""

RETURN = r"""
_list:
  description: Waves.
  type: list
  elements: dict
  contains:
    size:
      description: Number of its hosts.
      type: int
      returned: always
      sample: 2
    canaries:
      description: Whether its hosts are the canaries.
      type: bool
      returned: always
      sample: true
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.armfleet.vfio.plugins.plugin_utils._operator_variables import (
    variables_of_play,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._play_hosts import (
    choose,
    is_listing,
    plan_waves,
    read_inventory,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import (
    REQUIREMENTS,
    meaning_of,
)

_DEFAULTS = {
    "passthrough_hosts": "all",
    "rollout_canaries": [],
    "rollout_waves": REQUIREMENTS["rollout_waves"].default,
}


class LookupModule(LookupBase):
    """The lookup, for ansible-core."""

    def run(
        self, terms: Sequence[Any], variables: Mapping[str, Any] | None = None, **_kwargs: Any
    ) -> list[Any]:
        """As documented above."""
        if terms:
            raise AnsibleError("play_waves takes no terms")
        if is_listing(context.CLIARGS):
            return [{"size": 1, "canaries": False}]
        given = variables_of_play(variables or {})
        templar = self._templar.copy_with_new_env(available_variables=given)
        pattern, canaries, waves = (
            templar.template(given.get(name, default)) for name, default in _DEFAULTS.items()
        )
        choice = choose(read_inventory(self._loader, given), pattern, canaries)
        sizes = meaning_of("rollout_waves", waves)
        return [
            {"size": wave.size, "canaries": wave.are_canaries} for wave in plan_waves(choice, sizes)
        ]
