#!/usr/bin/env python
"""What judging the answers of a fleet costs the control node, without any connection or task."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.armfleet.vfio.plugins.filter.drift_lines import drift_lines
from ansible_collections.armfleet.vfio.plugins.filter.fleet_plan import fleet_plan
from ansible_collections.armfleet.vfio.plugins.filter.fleet_report import fleet_report
from ansible_collections.armfleet.vfio.plugins.filter.host_states import host_states
from ansible_collections.armfleet.vfio.plugins.filter.rollout_history import rollout_history
from ansible_collections.armfleet.vfio.plugins.filter.rollout_state import rollout_state
from ansible_collections.armfleet.vfio.plugins.filter.rollout_summary import rollout_summary
from ansible_collections.armfleet.vfio.plugins.filter.saved_plan import saved_plan
from ansible_collections.armfleet.vfio.plugins.filter.variable_problems import variable_problems
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers, _result_files
from ansible_collections.armfleet.vfio.plugins.plugin_utils._play_hosts import Choice, plan_waves
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import REQUIREMENTS

DEVICES = 16
# Items of each other list in an answer.
ITEMS = 2
BINDING = {"driver": "vfio-platform", "driver_override": "vfio-platform"}
NATIVE = {"driver": "acme-crypto", "driver_override": None}
DIGEST = ".".join(["0123456789abcdef" * 2] * 3)


def sample(shape: Any, name: str) -> Any:
    """Return a value of this shape, with texts as long as those of real hosts."""
    if isinstance(shape, _answers.Nullable):
        return sample(shape.shape, name)
    if isinstance(shape, _answers.Record):
        keys = {**shape.keys, **shape.optional}
        return {key: sample(value, key) for key, value in keys.items()}
    if isinstance(shape, _answers.ListOf):
        return [sample(shape.shape, name)] * ITEMS
    if isinstance(shape, _answers.Flag):
        return False
    if isinstance(shape, _answers.Count):
        return 1
    if isinstance(shape, (_answers.Entry, _answers.Flags)):
        return {}
    return ("%s of a device of acme, inc. " % name * 2)[: min(48, shape.longest)]


def device(number: int, shape: Any) -> dict[str, Any]:
    path = "/soc/crypto@%x" % (0xB000000 + 0x1000 * number)
    return {
        **sample(shape, "device"),
        **BINDING,
        "dt_path": path,
        "before": NATIVE,
        "after": BINDING,
        "changed": True,
        "desired": BINDING,
        "next_boot": {**BINDING, "known": True, "reason": "the list"},
        "drift": [],
        "lost_at_boot": [],
    }


def info(number: int) -> dict[str, Any]:
    """Return the answer of device_info of a host; every tenth has drift of its own."""
    shapes = _answers.SHAPES["device_info"]
    shape = shapes["devices"].shape  # type: ignore[attr-defined]
    devices = [device(position, shape) for position in range(DEVICES)]
    if number % 10 == 0:
        devices[0]["drift"] = ["host %d has its own reason why this device has drift" % number]
    return {
        **sample(_answers.Record(shapes), "info"),
        "devices": devices,
        "boot_files": [{"path": "/etc/udev/rules.d/x", "state": "present", "drift": []}] * 4,
        "lost_entries": [],
        "kernels": [],
        "rollouts": [rollout(position) for position in range(10)],
        "policy_digest": "d" * 64,
    }


def rollout(number: int) -> dict[str, Any]:
    return {
        **sample(_answers.ROLLOUT, "rollout"),
        "name": "crypto-v%d" % number,
        "state": "overtaken" if number else "applied",
        "changed_devices": [{"device": "/soc/x", "before": None, "after": "y"}] * DEVICES,
    }


def applied(number: int) -> dict[str, Any]:
    """Return the answer of host_policy of a host; every tenth changes another thing."""
    shapes = _answers.SHAPES["host_policy"]
    shape = shapes["devices"].shape  # type: ignore[attr-defined]
    rules = "/etc/udev/rules.d/70-armfleet-vfio.rules"
    text = "".join("# line %d of a file of rules\n" % line for line in range(100))
    return {
        **sample(_answers.Record(shapes), "applied"),
        "changed": True,
        "interrupted": [],
        "devices": [device(position, shape) for position in range(DEVICES)],
        "host_steps": ["load module %d" % (number if number % 10 == 0 else 0)],
        "boot_files": [{"path": rules, "changed": True, "state": "present"}],
        "diff": [{"before": "", "after": text, "before_header": rules, "after_header": rules}],
        "plan_digest": DIGEST,
        "policy_digest": "d" * 64,
        "rollout": {"name": "crypto-v0", "ended": False},
        "rolled_back": [],
        "inspection": None,
    }


class Control:
    """The control node of so many hosts, with what their tasks registered."""

    def __init__(self, number: int) -> None:
        loader = DataLoader()
        inventory = InventoryManager(loader, parse=False)
        self.hosts = ["board-%04d" % position for position in range(number)]
        for host in self.hosts:
            inventory.add_host(host, group="all")
        self._variables = VariableManager(loader, inventory)
        self.hostvars = HostVars(inventory, self._variables, loader)

    def record(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        for host, facts in values.items():
            self._variables.set_nonpersistent_facts(host, dict(facts))


def judge(number: int, directory: Path) -> dict[str, float]:
    """Return the seconds of processor time of each part of the work, and of all of it."""
    control = Control(number)
    hosts, hostvars = control.hosts, control.hostvars
    infos = [json.dumps(info(position)) for position in range(number)]
    changes = [json.dumps(applied(position)) for position in range(number)]
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        seconds[name] = time.process_time() - began
        return result

    def read() -> list[tuple[str, Any, Any]]:
        return [
            (
                host,
                _answers.read("host_policy", _answers.decode(change)),
                _answers.read("device_info", _answers.decode(text)),
            )
            for host, change, text in zip(hosts, changes, infos, strict=True)
        ]

    answers = timed("read the answers", read)
    control.record(
        {
            host: {"passthrough_applied": change, "drift_found": text}
            for host, change, text in answers
        }
    )
    timed("check the variables", lambda: variable_problems(hosts, hostvars, list(REQUIREMENTS)[:6]))
    timed("rollout", lambda: judge_rollout(control, answers))
    timed("drift", lambda: judge_drift(control, directory))
    timed("plan", lambda: judge_plan(control, directory))
    timed("report", lambda: fleet_report(host_states(hosts, hostvars, "drift_found"), "title"))
    timed(
        "history",
        lambda: rollout_history(hosts, hostvars, "drift_found"),
    )
    return {**seconds, "all": sum(seconds.values())}


def judge_rollout(control: Control, answers: Sequence[tuple[str, Any, Any]]) -> None:
    """Judge a rollout after each wave and at its end."""
    waves = plan_waves(Choice(control.hosts, []), REQUIREMENTS["rollout_waves"].default)
    texts = {
        "title": "Rollout crypto-v0",
        "waves": len(waves),
        "limit": 0,
        "advice": [],
        "way_back": [],
    }
    begun = 0
    for number, wave in enumerate(waves, 1):
        batch = answers[begun : begun + wave.size]
        begun += wave.size
        control.record(
            {
                host: {
                    "rollout_wave": number,
                    "rollout_row": rollout_state(host, number, change, text),
                }
                for host, change, text in batch
            }
        )
        # One task judges, another prints.
        for _task in range(2):
            rollout_summary(control.hosts, control.hostvars, texts)
    verdict = rollout_summary(control.hosts, control.hostvars, texts, is_over=True)
    assert len(verdict["states"]) == len(control.hosts)


def judge_drift(control: Control, directory: Path) -> None:
    """Judge each host, and print and write what was recorded of them."""
    judged = host_states(control.hosts, control.hostvars, "drift_found")
    control.record(
        {
            state["host"]: {
                "drift_state": {
                    **state,
                    "devices": [device for device in state["devices"] if device["drift"]],
                }
            }
            for state in judged
        }
    )
    for name in ("results.json", "results.xml"):
        states = [control.hostvars[host]["drift_state"] for host in control.hosts]
        failed = [state["host"] for state in states if state["state"] == "drift"]
        assert len(failed) == -(-len(control.hosts) // 10)
        drift_lines(states, failed)
        results = _result_files.Results("drift", "state", states, failed)
        _result_files.write(str(directory / name), results)


def judge_plan(control: Control, directory: Path) -> None:
    made = fleet_plan(control.hosts, control.hostvars, boot_files=True)
    assert not made["failed"]
    (directory / "plan.json").write_text(made["content"])
    assert not saved_plan(str(directory / "plan.json"), control.hosts)["problems"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        # What is loaded late is loaded by that.
        judge(1, Path(directory))
        seconds = judge(arguments.hosts, Path(directory))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if arguments.json:
        print(json.dumps({"seconds": seconds, "memory_kib": memory}))
        return 0
    print(
        f"{arguments.hosts} hosts with {DEVICES} devices each, one process of the control node:\n"
    )
    for name, taken in seconds.items():
        print(f"{name:20}{taken:8.2f} s")
    print(f"{'memory':20}{memory // 1024:8} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
