# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts a play has: pattern, canaries and limit, evaluated by Ansible's own inventory."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.parsing.dataloader import DataLoader

from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import shown

_HOSTS = "passthrough_hosts"
_CANARIES = "rollout_canaries"
_WILDCARDS = frozenset("*?[")
_SEPARATORS = re.compile(r"[\s,:]")
_MOST_NAMES = 5
_LISTINGS = ("syntax", "listtasks", "listtags")
_COLLECTION = "armfleet.vfio."
# What a variable of the name of a keyword was meant for.
_KEYWORDS = {
    "any_errors_fatal": "rollout_max_failures",
    "max_fail_percentage": "rollout_max_failures",
    "serial": "rollout_waves",
    "strategy": "rollout_waves",
}


class Choice(NamedTuple):
    """The hosts of a play in their order, and a sentence for each reason to refuse it.

    The first ``canaries`` of the hosts are the canaries.
    """

    hosts: list[str]
    problems: list[str]
    canaries: int = 0


class Wave(NamedTuple):
    """One part of the hosts of a rollout, which begins when the parts before it have ended."""

    size: int
    are_canaries: bool


def is_listing(arguments: Mapping[str, Any]) -> bool:
    """Return whether ansible-playbook with these arguments reads playbooks but runs nothing."""
    return any(arguments.get(option) for option in _LISTINGS)


def read_inventory(loader: DataLoader, variables: Mapping[str, Any]) -> Inventory:
    """Return the inventory as it is now, hosts that were added by tasks included."""
    manager = InventoryManager(loader, parse=False)
    for group, hosts in variables["groups"].items():
        manager.add_group(group)
        for host in hosts:
            manager.add_host(host, group=group)
    return Inventory(manager, variables.get("ansible_limit"))


def problems_of_parts(arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each way in which only a part of a playbook would run.

    ``arguments`` are those of ansible-playbook, ``variables`` those of the play.
    """
    problems = []
    if arguments.get("start_at_task"):
        problems.append(
            "`--start-at-task` skips tasks that this playbook requires. Omit it; hosts that are in "
            "sync stay unchanged when the playbook is run again."
        )
    playbooks = [str(playbook) for playbook in arguments.get("args") or ()]
    tags = set(arguments.get("tags") or ()) - {"all", "untagged"}
    # A playbook that imports this one may give it tags.
    if tags and all(playbook.startswith(_COLLECTION) for playbook in playbooks):
        problems.append(
            "`--tags %s` selects no task of this playbook, so nothing would be done. Omit it."
            % ",".join(sorted(tags))
        )
    problems += [
        "Variable %s has no effect, because it is a keyword of plays. Omit it, and set `%s`."
        % (name, meant)
        for name, meant in _KEYWORDS.items()
        if name in variables
    ]
    return problems


def plan_waves(choice: Choice, waves: Sequence[int | str]) -> list[Wave]:
    """Return the waves: all canaries, then the other hosts in waves of these sizes.

    A size is a number or a percentage of the other hosts, at least one of them. The last one is
    repeated, as by Ansible's ``serial``.
    """
    others = left = len(choice.hosts) - choice.canaries
    planned = [Wave(choice.canaries, are_canaries=True)] if choice.canaries else []
    sizes = list(waves)
    while left:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        if isinstance(size, str):
            size = max(1, others * int(size.rstrip("%")) // 100)
        planned.append(Wave(min(size, left), are_canaries=False))
        left -= planned[-1].size
    return planned


class Inventory:
    """An inventory with the limit of this run."""

    def __init__(self, manager: InventoryManager, limit: str | None) -> None:
        manager.subset(limit and _limit_patterns(limit))
        self._manager = manager
        self.limit = limit

    def is_empty(self) -> bool:
        return not self._manager.hosts

    def has(self, name: str) -> bool:
        """Return whether a group, a host or the implicit localhost has this name."""
        names = (self._manager.groups, self._manager.hosts, constants.LOCALHOST)
        return any(name in known for known in names)

    def match(self, patterns: Sequence[str], *, is_limited: bool = False) -> list[str]:
        """Return the names of the hosts that match; AnsibleError if a pattern is invalid."""
        hosts = self._manager.get_hosts(list(patterns), ignore_limits=not is_limited)
        return [host.name for host in hosts]


@functools.cache
def _limit_patterns(limit: str) -> str:
    """Return the limit with what is in its files, as Ansible read them when it began.

    A playbook may write the file of its own limit.
    """
    patterns = [
        line
        for part in _parts(limit)
        for line in (_lines(part) if part.startswith("@") else [part])
    ]
    # With the last comma a name is never split at its colons.
    return "".join("%s," % pattern for pattern in patterns)


def _lines(part: str) -> list[str]:
    try:
        with open(part[1:], encoding="utf-8") as stream:
            return [line.strip() for line in stream]
    except (OSError, ValueError):
        # Ansible has a message for it.
        return [part]


def choose(inventory: Inventory, pattern: Any, canaries: Any) -> Choice:
    """Return the hosts that match ``pattern`` within the limit, those of ``canaries`` first."""
    pattern, canaries = _meant(pattern), _meant(canaries)
    if canaries is None or (isinstance(canaries, str) and not canaries.strip()):
        canaries = []
    problems = [] if _is_pattern(pattern) else [_malformed(_HOSTS, pattern)]
    if canaries != [] and not _is_pattern(canaries):
        problems.append(_malformed(_CANARIES, canaries))
    if problems:
        return Choice([], problems)
    try:
        return _choose(inventory, _parts(pattern), _parts(canaries))
    except AnsibleError as error:
        return Choice([], ["%s is %s: %s." % (_HOSTS, shown(pattern), str(error).rstrip("."))])


def _choose(inventory: Inventory, pattern: list[str], canaries: list[str]) -> Choice:
    if inventory.is_empty() and not set(pattern) & set(constants.LOCALHOST):
        return Choice([], ["The inventory has no host. Give an inventory with `-i`."])
    problems = [
        *_unknown(inventory, _HOSTS, pattern),
        *_unknown(inventory, _CANARIES, canaries),
        *_exclusions(canaries),
    ]
    if problems:
        return Choice([], problems)
    members = inventory.match(pattern)
    if not members:
        return Choice([], [_no_member(pattern)])
    outside = [host for host in inventory.match(canaries) if host not in set(members)]
    if outside:
        return Choice([], [_not_members(outside)])
    members = inventory.match(pattern, is_limited=True)
    first = inventory.match(canaries, is_limited=True)
    if not members:
        problems.append(_no_member_left(pattern, inventory.limit))
    elif canaries and not first:
        problems.append(_no_canary_left(canaries, inventory.limit))
    return Choice(list(dict.fromkeys([*first, *members])), problems, len(first))


def _meant(value: Any) -> Any:
    """Return the list if the value is one that was given as a text, in JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _is_pattern(value: Any) -> bool:
    if isinstance(value, str):
        parts = _parts(value)
        # Ansible drops a bracket that has no partner: '~[' is '~', which matches every host.
        return bool(parts) and _SEPARATORS.sub("", value) == _SEPARATORS.sub("", "".join(parts))
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, str) and _is_pattern(part) for part in value)
    )


def _parts(pattern: str | list[str]) -> list[str]:
    parts: list[str] = split_host_pattern(pattern)
    return parts


def _malformed(variable: str, value: Any) -> str:
    return (
        "%s is %s. It must be a pattern of hosts, such as the name of a group, or a list of "
        "patterns." % (variable, shown(value))
    )


def _unknown(inventory: Inventory, variable: str, pattern: Sequence[str]) -> list[str]:
    """Return messages for unknown names, and for patterns that match no host."""
    problems = []
    for part in pattern:
        name = part.lstrip("!&")
        if not name.startswith("~") and not set(name) & _WILDCARDS:
            if not inventory.has(name):
                problems.append(
                    "%s has %s, but the inventory has no such group or host. Correct `%s`, or "
                    "give another inventory with `-i`." % (variable, shown(name), variable)
                )
                continue
            if variable == _HOSTS:
                # A group may be empty as long as the pattern as a whole is not.
                continue
        if not part.startswith("!") and not inventory.match([name]):
            problems.append(
                "%s has %s, which matches no host of the inventory. Correct `%s`."
                % (variable, shown(name), variable)
            )
    return problems


def _exclusions(canaries: Sequence[str]) -> list[str]:
    return [
        "rollout_canaries has %s, but canaries must be hosts and groups without `!` and `&`. "
        "Move it to `passthrough_hosts`." % shown(part)
        for part in canaries
        if part.startswith(("!", "&"))
    ]


def _no_member(pattern: Sequence[str]) -> str:
    return "passthrough_hosts is %s, which matches no host of the inventory. Correct `%s`." % (
        shown(",".join(pattern)),
        _HOSTS,
    )


def _not_members(hosts: Sequence[str]) -> str:
    more = len(hosts) - _MOST_NAMES
    names = ", ".join(hosts[:_MOST_NAMES]) + (" and %d more" % more if more > 0 else "")
    return (
        "rollout_canaries has hosts that passthrough_hosts does not match: %s. Add them to "
        "`passthrough_hosts`, or remove them from `rollout_canaries`." % names
    )


def _no_member_left(pattern: Sequence[str], limit: str | None) -> str:
    return (
        "passthrough_hosts is %s, but `--limit %s` excludes all of its hosts. Correct one of the "
        "two." % (shown(",".join(pattern)), limit)
    )


def _no_canary_left(canaries: Sequence[str], limit: str | None) -> str:
    return (
        "rollout_canaries is %s, but `--limit %s` excludes all of these hosts. Add one of them "
        "to the limit, or omit `rollout_canaries`." % (shown(",".join(canaries)), limit)
    )
