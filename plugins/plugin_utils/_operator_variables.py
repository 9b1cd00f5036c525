# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables as the operator gave them: without facts, which hosts choose.

Facts are variables too, precede those of the inventory and defaults of roles, and may come from a
cache. A host that answers any module of any play with `ansible_facts` can set each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.vars.hostvars import HostVars

HostVariables = Mapping[str, Mapping[str, Any]]


class _NoFacts(dict[str, Any]):
    """A cache that has no fact of any host."""

    def get(self, _host: str, _default: Any = None) -> dict[str, Any]:
        return {}

    def __getitem__(self, _host: str) -> dict[str, Any]:
        return {}


def without_facts(hostvars: HostVariables) -> HostVariables:
    """Return the variables of all hosts, with all that is in ``hostvars`` but their facts.

    What tasks registered or set in this run is in them. A mapping that is not ansible-core's own
    has no facts apart and is returned as it is. AnsibleError if this ansible-core keeps facts in
    another way than the versions that were tested.
    """
    return _without_facts(hostvars) if isinstance(hostvars, HostVars) else hostvars


def _without_facts(hostvars: HostVars) -> HostVars:
    manager = object.__new__(type(hostvars._variable_manager))
    # copy.copy leaves out what must not be pickled, the loader among it.
    vars(manager).update(vars(hostvars._variable_manager))
    if not hasattr(manager, "_fact_cache"):
        raise AnsibleError("This ansible-core keeps facts in a way that armfleet.vfio cannot read")
    manager._fact_cache = _NoFacts()
    return HostVars(hostvars._inventory, manager, hostvars._loader)


def context_without_facts(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a task without the facts of its host, templates as they are given.

    A variable that precedes a fact of the same name, as one of the play or of an included role,
    stays, but for one with the very value of that fact, which cannot be told from it. One that a
    fact precedes has its value of the inventory again. A role's default that a fact precedes is not
    in them.
    """
    hostvars = variables["hostvars"]
    host = variables["inventory_hostname"]
    with_facts = hostvars.raw_get(host)
    others = _without_facts(hostvars).raw_get(host)
    context = dict(variables)
    for name, value in with_facts.items():
        # The same object is not compared: a vaulted one would be decrypted for that.
        if name in others and (others[name] is value or others[name] == value):
            continue
        if name in context and context[name] == value:
            del context[name]
            if name in others:
                context[name] = others[name]
    return context
