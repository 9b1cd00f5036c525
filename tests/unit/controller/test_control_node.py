# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks write on the control node in their own process; it is not a host of the fleet."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.action.normal import ActionModule as NormalAction

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path
    for pattern in ("playbooks/**/*.yml", "roles/*/tasks/*.yml", "roles/*/handlers/*.yml")
    for path in ROOT.glob(pattern)
)
LISTS = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
INHERITED = ("delegate_to", "connection", "become", "hosts", "local_action")
LOCAL = ("localhost", "127.0.0.1")


def tasks(items: Any, above: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each task with what it inherits from its blocks and its play."""
    for item in items or []:
        of_all = {
            **above,
            **{key: item[key] for key in INHERITED if key in item},
            "vars": {**above["vars"], **(item.get("vars") or {})},
        }
        lists = [item[key] for key in LISTS if key in item]
        for within in lists:
            yield from tasks(within, of_all)
        if not lists:
            yield {**item, **of_all}


def uses_control_node(task: Mapping[str, Any]) -> bool:
    return (
        task.get("delegate_to") in LOCAL
        or task.get("connection") == "local"
        or "local_action" in task
        or task.get("hosts") in LOCAL
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_task_uses_the_control_node_as_a_host(path: Path) -> None:
    """What the user sets for hosts with ``-e`` would precede all that the task has."""
    listed = list(tasks(yaml.safe_load(path.read_text()), {"vars": {}}))
    assert listed
    assert [task["name"] for task in listed if uses_control_node(task)] == []


@pytest.mark.parametrize("action", ["write_results", "print_text", "confirm"])
def test_an_action_of_the_control_node_needs_no_connection(action: str) -> None:
    plugin = importlib.import_module(f"ansible_collections.armfleet.vfio.plugins.action.{action}")
    assert not plugin.ActionModule._requires_connection
    assert not issubclass(plugin.ActionModule, NormalAction)
