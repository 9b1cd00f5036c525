"""Runs ansible-playbook as a user would and reads back what each task reported."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.harness import loaded_ansible

HERE = Path(__file__).parent

_CONFIG = """\
[defaults]
callback_plugins = {callbacks}
callbacks_enabled = results
inject_facts_as_vars = false
interpreter_python = /usr/bin/python3
retry_files_enabled = false
host_key_checking = false
[connection]
pipelining = true
"""

# Actions that run only on the control node: they are no remote executions.
_LOCAL_ACTIONS = {"validate_argument_spec", "set_fact", "include_tasks", "assert"}


class TaskResult(NamedTuple):
    """One task on one host; ``result`` is what the module returned."""

    status: str
    host: str
    task: str
    action: str
    seconds: float
    result: dict[str, Any]

    @property
    def refusal(self) -> str:
        """Return the module's message; assert that the task failed."""
        assert self.status == "failed", self
        message = self.result["msg"]
        assert isinstance(message, str)
        return message


class Run(NamedTuple):
    """One run of ansible-playbook."""

    code: int
    output: str
    tasks: list[TaskResult]

    @property
    def changed(self) -> dict[str, int]:
        """Return the number of changed tasks by host, from the recap."""
        counts = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.MULTILINE)
        return {host: int(count) for host, count in counts}

    def of(self, action: str, host: str | None = None) -> dict[str, Any]:
        """Return what the only task of this module returned."""
        (result,) = [
            task.result
            for task in self.tasks
            if task.action == action and host in (None, task.host)
        ]
        return result

    @property
    def refusal(self) -> str:
        """Return the message of the only task; assert that it failed."""
        assert self.code == 2, self.output
        assert "Traceback" not in self.output
        (task,) = self.tasks
        return task.refusal

    @property
    def remote_executions(self) -> int:
        """Return how many modules were sent to a host and run; each loop item counts."""
        return sum(
            len(task.result.get("results", [None]))
            for task in self.tasks
            if task.status != "skipped" and task.action.split(".")[-1] not in _LOCAL_ACTIONS
        )


class Row(NamedTuple):
    """A host in the table of a rollout."""

    wave: str
    outcome: str
    sentence: str = ""


def play(
    inventory: Path,
    playbook: str | Sequence[Mapping[str, Any]],
    *arguments: str,
    variables: Mapping[str, Any] | None = None,
    by_command: bool = False,
) -> Run:
    """Run a playbook, by its name or as data, against ``inventory``.

    ``by_command`` starts ansible-playbook as users do; else it is forked from a process that has
    loaded it, which saves a second of each run.
    """
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "vars.json").write_text(json.dumps(variables or {}))
        if not isinstance(playbook, str):
            (work / "playbook.yml").write_text(yaml.safe_dump(list(playbook)))
            playbook = str(work / "playbook.yml")
        results, output = work / "results", work / "output"
        results.touch()
        argv = ["-i", str(inventory), "-e", f"@{work / 'vars.json'}", *arguments, playbook]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(_configuration()),
            "ANSIBLE_NOCOLOR": "1",
            "ARMFLEET_RESULTS": str(results),
        }
        if by_command:
            with output.open("wb") as stream:
                code = subprocess.run(
                    ["ansible-playbook", *argv],
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    check=False,
                    env=environment,
                ).returncode
        else:
            code = loaded_ansible.run(argv, environment, output)
        tasks = [TaskResult(**json.loads(line)) for line in results.read_text().splitlines()]
        return Run(code, output.read_text(), tasks)


@functools.cache
def _configuration() -> Path:
    """Write the configuration of all runs of this process; return its path."""
    directory = tempfile.mkdtemp(prefix="armfleet-ansible-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = Path(directory) / "ansible.cfg"
    path.write_text(_CONFIG.format(callbacks=HERE / "callback"))
    return path


def summary(run: Run) -> list[str]:
    """Return the lines that a rollout showed at its end, its table first."""
    (*_earlier, shown) = [
        task.result["lines"]
        for task in run.tasks
        if task.task == "Show the fleet" and task.status == "ok"
    ]
    return [str(line) for line in shown]


def rows(run: Run) -> dict[str, Row]:
    """Return the table that a rollout showed last, by host.

    Hosts that it has in one row have what their tasks recorded; those that did not start are
    missing then.
    """
    header, *lines = summary(run)
    lines = lines[: lines.index("")]
    start = header.index("DETAILS")
    table: dict[str, Row] = {}
    for line in lines:
        cells = re.split(r"  +", line[:start].strip())
        details = line[start:]
        if line.startswith("  "):
            name, row = table.popitem()
            table[name] = row._replace(sentence=f"{row.sentence} {details}")
        else:
            table[cells[0]] = Row(cells[1], cells[2], details)
    alone = {name: row for name, row in table.items() if " more" not in name}
    return {**_recorded_rows(run), **alone}


def _recorded_rows(run: Run) -> dict[str, Row]:
    recorded: dict[str, Row] = {}
    for task in run.tasks:
        facts = task.result.get("ansible_facts") or {}
        if "rollout_texts" in facts:
            # Another playbook begins.
            recorded = {}
        elif facts.get("rollout_row"):
            row = facts["rollout_row"]
            recorded[task.host] = Row(str(row["wave"]), row["outcome"], row["message"])
    return recorded


def task_play(action: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a playbook of one task on all hosts."""
    return _playbook([_task(action, options)])


def refused_tasks_play(asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a playbook of tasks on all hosts, each an action with its options; all may fail."""
    return _playbook([{**_task(*task), "ignore_errors": True} for task in asked])


def _task(action: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": f"Run {action}", action: dict(options)}


def _playbook(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": "Tasks", "hosts": "all", "gather_facts": False, "tasks": list(tasks)}]
