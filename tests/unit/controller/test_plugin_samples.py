"""What RETURN shows of a plugin, whichever it is, is what the plugin returns."""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import yaml
from test_documentation import calls
from test_operator_variables import HOST, Fleet
from test_samples import (
    CRYPTO,
    ROOT,
    SERIAL,
    call,
    claim_crypto,
    documented,
    drifting,
    information,
    results_of,
    sample_board,
)

from ansible_collections.armfleet.vfio.plugins.filter import fleet_report
from ansible_collections.armfleet.vfio.plugins.filter.board_names import board_names
from ansible_collections.armfleet.vfio.plugins.filter.drift_lines import drift_lines
from ansible_collections.armfleet.vfio.plugins.filter.host_state import host_state
from ansible_collections.armfleet.vfio.plugins.filter.rollout_state import rollout_state
from ansible_collections.armfleet.vfio.plugins.filter.rollout_summary import rollout_summary
from ansible_collections.armfleet.vfio.plugins.filter.variable_problems import variable_problems
from ansible_collections.armfleet.vfio.plugins.lookup import compared_list, play_waves
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.plugin_utils._passthrough_role import with_prefix
from tests.harness.modules import NAMES

WHOLE = ("_value", "_list")
PLUGINS = "ansible_collections.armfleet.vfio.plugins"
UNREACHABLE = {
    "unreachable": True,
    "msg": "Failed to connect to the host via ssh: "
    "ssh: connect to host 192.0.2.7 port 22: Connection refused",
}


def plugins_with_samples() -> list[str]:
    """Return the plugins of all types with a sample in RETURN, each as ``type.name``."""
    names = sorted(
        f"{path.parent.name}.{path.stem}"
        for path in ROOT.glob("plugins/*/*.py")
        if "\nRETURN" in path.read_text()
    )
    return [name for name in names if has_sample(documented(name))]


def has_sample(fields: Mapping[str, Any]) -> bool:
    return any(
        "sample" in field or has_sample(field.get("contains", {})) for field in fields.values()
    )


WITH_SAMPLES = plugins_with_samples()


def examples(plugin: str) -> Any:
    """Return the tasks in the documentation of a plugin."""
    return yaml.safe_load(importlib.import_module(f"{PLUGINS}.{plugin}").EXAMPLES)


def example(module: str, number: int = 0) -> dict[str, Any]:
    """Return the options of a task in the documentation of a module."""
    return dict(calls(examples(f"modules.{module}"))[number][1])


def run_action(module: str, options: Mapping[str, Any], *, check_mode: bool = False) -> Any:
    """Return the result of a task whose module is an action of the control node."""
    task = SimpleNamespace(args=dict(options), check_mode=check_mode, async_val=0, action=module)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nonexistent"))
    action = importlib.import_module(f"{PLUGINS}.action.{module}").ActionModule
    return action(task, connection, None, None, None, None).run(None, {})


def confirmed(_root: Path) -> Iterator[dict[str, Any]]:
    with mock.patch("ansible.utils.display.Display.prompt_until", return_value=b"yes\n"):
        yield run_action("confirm", example("confirm"))


def printed(_root: Path) -> Iterator[dict[str, Any]]:
    yield run_action("print_text", example("print_text"))


def written(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of both examples; their templates are evaluated for one host."""
    state = {"host": "board-1", "state": "in_sync", "message": "In sync."}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield run_action("write_results", {**example("write_results"), "hosts": [state]})
        assert {path.name for path in root.iterdir()} == {"drift.json", "drift.xml"}
    options = example("write_results", 1)
    options["files"] = [{**file, "content": "board-1"} for file in options["files"]]
    yield run_action("write_results", options, check_mode=True)


def names_of_board(root: Path) -> Iterator[dict[str, Any]]:
    armada = ("marvell,armada8040-mcbin", "marvell,armada8040")
    yield {"_value": board_names(information(sample_board(root, armada))["board"])}


def lines_of_drift(root: Path) -> Iterator[dict[str, Any]]:
    board = sample_board(root)
    listed = [{"dt_path": CRYPTO, "policy": "vfio"}, {"dt_path": SERIAL, "policy": "no_autobind"}]
    call(board, "host_policy", listed, reset_required=False)
    yield {"_value": drift_lines([host_state(information(board), "board-1")])}


def states_of_hosts(root: Path) -> Iterator[dict[str, Any]]:
    damaged = sample_board(root / "damaged")
    claim_crypto(damaged)
    damaged.write_file(last_applied.MODULES_LOAD, "")
    for result in (UNREACHABLE, drifting(root), information(damaged)):
        yield {"_value": host_state(result, "board-7")}


def refused_row(root: Path) -> dict[str, Any]:
    """Return the row of a host that a rollout failed on."""
    with pytest.raises(PolicyError) as refusal:
        call(sample_board(root), "host_policy", [{"dt_path": CRYPTO, "policy": "vfio"}])
    applied = {"failed": True, "msg": with_prefix(str(refusal.value))}
    return dict(rollout_state("board-7", 2, applied))


def states_of_rollout(root: Path) -> Iterator[dict[str, Any]]:
    yield {"_value": refused_row(root)}


def summaries(root: Path) -> Iterator[dict[str, Any]]:
    (task,) = examples("filter.rollout_summary")
    hostvars = {"board-7": {"rollout_row": refused_row(root)}}
    yield {"_value": rollout_summary(list(hostvars), hostvars, task["vars"]["texts"])}


def problems_of_variables(_root: Path) -> Iterator[dict[str, Any]]:
    (task,) = examples("filter.variable_problems")
    hostvars = {"board-1": {"rollout_max_failures": -1}}
    yield {"_value": variable_problems(list(hostvars), hostvars, task["vars"]["names"])}


def reports(root: Path) -> Iterator[dict[str, Any]]:
    class Clock(datetime):
        @classmethod
        def now(cls, _zone: tzinfo | None = None) -> datetime:
            return cls(2026, 1, 31, 12, tzinfo=timezone.utc)

    board = sample_board(root / "board")
    claim_crypto(board)
    in_sync, drifted = information(board), drifting(root / "drifting")
    answers = [in_sync] * 196 + [drifted] * 3 + [UNREACHABLE]
    hosts = [host_state(result, f"board-{n}") for n, result in enumerate(answers)]
    with mock.patch.object(fleet_report, "datetime", Clock):
        yield {"_value": fleet_report.fleet_report(hosts, "Boards", {"script": ""})}


def compared(root: Path) -> Iterator[dict[str, Any]]:
    board = sample_board(root / "board")
    claim_crypto(board)
    answer = information(board)
    other = [{"dt_path": SERIAL, "policy": "no_autobind"}]
    fleet = Fleet(root, passthrough_devices=other)
    terms = [host_state(answer, HOST), answer]
    yield {"_list": fleet.look_up(compared_list.LookupModule, terms)}


def waves(root: Path) -> Iterator[dict[str, Any]]:
    groups = {"all": [f"board-{number}" for number in range(6)]}
    canaries = ["board-2", "board-5"]
    given = {"groups": groups, "rollout_canaries": canaries}
    yield {"_list": Fleet(root).look_up(play_waves.LookupModule, [], **given)}


def settings(root: Path) -> Iterator[dict[str, Any]]:
    yield {"_list": [Fleet(root).setting("rollout_max_failures")]}


# What yields results of a plugin, by its name.
PRODUCERS: dict[str, Callable[[Path], Iterable[Mapping[str, Any]]]] = {
    **{f"modules.{name}": functools.partial(results_of, name) for name in NAMES},
    "modules.confirm": confirmed,
    "modules.print_text": printed,
    "modules.write_results": written,
    "filter.board_names": names_of_board,
    "filter.drift_lines": lines_of_drift,
    "filter.fleet_report": reports,
    "filter.host_state": states_of_hosts,
    "filter.rollout_state": states_of_rollout,
    "filter.rollout_summary": summaries,
    "filter.variable_problems": problems_of_variables,
    "lookup.compared_list": compared,
    "lookup.play_waves": waves,
    "lookup.setting": settings,
}


def untrue(fields: Mapping[str, Any], returned: list[Any], prefix: str = "") -> dict[str, Any]:
    """Return the samples that no mapping of ``returned`` has, with the values it has."""
    differing: dict[str, Any] = {}
    for key, field in fields.items():
        # A sample may show a value of a single situation and a part of it, but that of a filter or
        # a lookup is all that it returns.
        is_same = operator.eq if key in WHOLE else is_sample
        values = [mapping[key] for mapping in returned if key in mapping]
        if "sample" in field and not any(is_same(field["sample"], value) for value in values):
            differing[prefix + key] = (field["sample"], values)
        if "contains" in field:
            inner = [
                item
                for value in values
                for item in (value if isinstance(value, list) else [value])
                if item is not None
            ]
            differing.update(untrue(field["contains"], inner, f"{prefix}{key}."))
    return differing


def is_sample(sample: Any, value: Any) -> bool:
    """Return whether a value is the sample, or contains all of its items in their order."""
    if isinstance(sample, list) and isinstance(value, list) and sample:
        rest = iter(value)
        return all(item in rest for item in sample)
    if isinstance(sample, dict) and isinstance(value, dict) and sample:
        return all(value.get(key) == item for key, item in sample.items())
    return bool(sample == value)


@pytest.mark.parametrize("plugin", WITH_SAMPLES)
def test_each_sample_is_what_the_plugin_returns(tmp_path: Path, plugin: str) -> None:
    assert plugin in PRODUCERS, "a producer must return what RETURN shows"
    assert untrue(documented(plugin), list(PRODUCERS[plugin](tmp_path))) == {}


def test_each_producer_is_of_a_plugin_with_samples() -> None:
    assert sorted(PRODUCERS) == WITH_SAMPLES


def test_a_sample_that_is_not_returned_is_found() -> None:
    fields = {"a": {"contains": {"b": {"sample": [1, 2]}, "c": {"sample": "x"}}}}
    assert untrue(fields, [{"a": [{"b": [1], "c": "x"}, {"b": [2], "c": "y"}]}, {"a": None}]) == {
        "a.b": ([1, 2], [[1], [2]])
    }
    lines = {"sample": ["a", "b"]}
    assert untrue({"lines": lines, "_value": lines}, [{"lines": ["b", "a"]}]) == {
        "lines": (["a", "b"], [["b", "a"]]),
        "_value": (["a", "b"], []),
    }
    longer = [{"lines": ["a", "x", "b"], "_value": ["a", "x", "b"]}]
    assert list(untrue({"lines": lines, "_value": lines}, longer)) == ["_value"]
