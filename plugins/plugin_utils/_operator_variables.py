# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables as the operator gave them: without facts, which hosts choose.

Facts are variables too, precede those of the inventory and defaults of roles, and may come from a
cache. A host that answers any module of any play with `ansible_facts` can set each of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.playbook.task import Task
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
        raise AnsibleError(
            "This ansible-core stores facts in a format that armfleet.vfio does not support"
        )
    manager._fact_cache = _NoFacts()
    return HostVars(hostvars._inventory, manager, hostvars._loader)


class _Recorded(Mapping[str, Any]):
    """The variables of a host; templates are evaluated in texts alone."""

    def __init__(self, hostvars: HostVars, host: str) -> None:
        self._raw = hostvars.raw_get(host)
        self._hostvars, self._host = hostvars, host

    def __getitem__(self, name: str) -> Any:
        value = self._raw[name]
        return self._hostvars[self._host][name] if isinstance(value, str) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class _RecordedOfAll(Mapping[str, Mapping[str, Any]]):
    def __init__(self, hostvars: HostVars) -> None:
        self._hostvars = hostvars

    def __getitem__(self, host: str) -> Mapping[str, Any]:
        return _Recorded(self._hostvars, host)

    def __iter__(self) -> Iterator[str]:
        return iter(self._hostvars)

    def __len__(self) -> int:
        return len(self._hostvars)


def recorded(hostvars: HostVariables) -> HostVariables:
    """Return the same as ``without_facts``, for what tasks registered or set in this run.

    Such lists and mappings have no templates, and those of a host can be large: ansible-core copies
    them item by item each time that it evaluates them, which takes 30 ms for 16 devices.
    """
    given = without_facts(hostvars)
    return _RecordedOfAll(given) if isinstance(given, HostVars) else given


def context_without_facts(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a task without the facts of its host, templates as they are given.

    They are what ansible-core's own variable manager has for that task if the host has no facts:
    values are not distinguished by what they are, as a fact can have that of a variable which
    precedes it. Outside of a task the variables of the play are not known to come from it; one
    with the very value of a fact counts as that fact there.
    """
    hostvars = variables["hostvars"]
    host = hostvars._inventory.get_host(variables["inventory_hostname"])
    task = _current_task()
    of_task = {"host": host, "include_hostvars": False}
    if task is not None:
        of_task.update(play=task.get_play(), task=task)
    with_facts = hostvars._variable_manager.get_vars(**of_task)
    others = _without_facts(hostvars)._variable_manager.get_vars(**of_task)
    context = dict(variables)
    # It has all others once more.
    with_facts.pop("vars", None)
    if "vars" in context:
        context["vars"] = others.get("vars", {})
    for name, value in with_facts.items():
        if name in others and _is_same(others[name], value):
            continue
        # Else it is a variable of a loop, which precedes all of them.
        if name in context and _is_same(context[name], value):
            del context[name]
            if name in others:
                context[name] = others[name]
    return context


def variables_of_play(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the variables by which the hosts of the play of a task were selected.

    Those are of no host. ``variables`` are those of the task, or of the play outside of a task.
    """
    task = _current_task()
    if task is None:
        return variables
    manager = variables["hostvars"]._variable_manager
    return dict(manager.get_vars(play=task.get_play()))


def _is_same(value: Any, other: Any) -> bool:
    try:
        return value is other or bool(value == other)
    except AnsibleError:
        # It is vaulted, with a password that is not there. No fact is.
        return True


def _current_task() -> Task | None:
    """Return the task that this process carries out; null in the process of ansible-playbook.

    Lookups are not informed. Each task has a worker process of its own, which keeps it.
    """
    task = getattr(multiprocessing.current_process(), "_task", None)
    return task if isinstance(task, Task) else None
