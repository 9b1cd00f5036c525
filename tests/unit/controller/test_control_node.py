# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks on the control node run without root privileges; it is not a host of the fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def is_on_control_node(task: Mapping[str, Any]) -> bool:
    return (
        task.get("delegate_to") in LOCAL
        or task.get("connection") == "local"
        or "local_action" in task
        or task.get("hosts") in LOCAL
    )


def on_control_node(path: Path) -> list[dict[str, Any]]:
    listed = tasks(yaml.safe_load(path.read_text()), {"vars": {}})
    return [task for task in listed if is_on_control_node(task)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_on_the_control_node_never_becomes_root_there(path: Path) -> None:
    for task in on_control_node(path):
        assert task.get("become") is False, task["name"]
        # The variable overrides the keyword, and an inventory may set it for all hosts.
        assert task["vars"].get("ansible_become") is False, task["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_on_the_control_node_has_the_interpreter_of_ansible(path: Path) -> None:
    for task in on_control_node(path):
        interpreter = task["vars"].get("ansible_python_interpreter")
        assert interpreter == "{{ ansible_playbook_python }}", task["name"]


def test_there_are_such_tasks() -> None:
    names = {path.name for path in FILES if on_control_node(path)}
    assert names == {"drift.yml", "main.yml", "plan.yml"}
