"""The error for an unsupported Python on the target is clear with each ansible-core."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action.normal import ActionModule as NormalAction

from ansible_collections.armfleet.vfio.plugins.action.host_policy import (
    ActionModule,
    user_of_run,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _action_module

ROOT = Path(__file__).parents[3]
# The modules that run on hosts.
MODULES = sorted(
    path.stem
    for path in (ROOT / "plugins/modules").glob("[a-z]*.py")
    if path.stem not in ("confirm", "print_text", "write_results")
)
# The result of host_policy on Python 3.7, run by ansible-core 2.19.14.
TOO_OLD = {
    "failed": True,
    "rc": 1,
    "module_stdout": "",
    "module_stderr": "    def import_controller_module(_module_name: str, /) -> t.Any:\n"
    "                                                    ^\nSyntaxError: invalid syntax\n",
    "msg": "Module result deserialization failed: No start of json char found",
    "exception": "Traceback ...",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    guard = object.__new__(ActionModule)
    guard._task = SimpleNamespace(action="armfleet.vfio.host_policy", args={})

    def run_with(result: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setattr(NormalAction, "run", lambda *_arguments: dict(result))
        return guard.run()

    return run_with


def test_a_python_that_cannot_read_the_payload_is_said_to_be_too_old(run: Any) -> None:
    result = run(TOO_OLD)
    assert result["failed"]
    assert "ansible_python_interpreter" in result["msg"]
    assert "3.8" in result["msg"]
    assert "Traceback" not in str(result)


@pytest.mark.parametrize(
    "result",
    [
        {"changed": True, "devices": []},
        {"failed": True, "msg": "Root privileges are required on the target. Set `become: true`"},
        {"failed": True, "module_stderr": "sudo: a password is required\n", "rc": 1},
    ],
)
def test_every_other_result_is_passed_on(run: Any, result: dict[str, Any]) -> None:
    assert run(result) == result


@pytest.mark.parametrize(
    ("given", "variables", "user"),
    [
        ({}, {}, None),
        ({"rollout": None}, {}, None),
        ({"rollout": "r1"}, {}, "alice@control"),
        ({"rollout": "r1", "rollout_by": ""}, {"awx_user_name": ""}, "alice@control"),
        ({"rollout": "r1"}, {"awx_user_name": "bob"}, "bob"),
        ({"rollout": "r1"}, {"tower_user_name": "bob", "awx_user_name": ["x"]}, "bob"),
        ({"rollout": "r1", "rollout_by": "carol"}, {"awx_user_name": "bob"}, "carol"),
    ],
)
def test_a_rollout_has_a_user(
    monkeypatch: pytest.MonkeyPatch, given: Any, variables: Any, user: str | None
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "control")
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr(NormalAction, "run", lambda *_arguments: {})
    action = object.__new__(ActionModule)
    action._task = SimpleNamespace(action="armfleet.vfio.host_policy", args=dict(given))
    action.run(task_vars=variables)
    assert action._task.args.get("rollout_by") == user


def test_a_container_without_users_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", fail)
    monkeypatch.setattr("socket.gethostname", lambda: "pod")
    assert user_of_run({}) == f"{os.getuid()}@pod"


@pytest.mark.parametrize("module", MODULES)
def test_the_answer_of_each_module_is_validated(module: str) -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    routed = runtime["plugin_routing"]["modules"].get(module, {})
    collection, _dot, action = routed.get("action_plugin", f"armfleet.vfio.{module}").rpartition(
        "."
    )
    assert collection == "armfleet.vfio"
    plugin = import_module(f"ansible_collections.{collection}.plugins.action.{action}")
    assert issubclass(plugin.ActionModule, _action_module.ActionModule)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("/opt/\x1b[31m/python\n", "/opt/\\x1b[31m/python\n"),
        ("x" * 2**15, "x" * 2**14),
        ('{"platform_dist_result": ["a", "\\u001b[31m", ""], "other": "b"}', None),
        ('{"platform_dist_result": [["a"]]}', ""),
        ('{"platform_dist_result": ' + "[" * 10_000, ""),
        ("", ""),
    ],
)
def test_what_a_command_of_ansible_core_writes_is_printable(
    monkeypatch: pytest.MonkeyPatch, sent: str, shown: str | None
) -> None:
    if shown is None:
        shown = json.dumps({"platform_dist_result": ["a", "\\x1b[31m", ""]})
    done = {"rc": 1, "stdout": sent, "stderr": "\x9b", "stdout_lines": [], "stderr_lines": []}
    monkeypatch.setattr(NormalAction, "_low_level_execute_command", lambda *_words: dict(done))
    action = object.__new__(ActionModule)
    answer = action._low_level_execute_command("true")
    assert (answer["rc"], answer["stdout"], answer["stderr"]) == (1, shown, "\\x9b")
    assert answer["stdout_lines"] == shown.splitlines()


def failing(monkeypatch: pytest.MonkeyPatch, error: AnsibleError) -> Any:
    def fail(*_words: Any) -> None:
        raise error

    monkeypatch.setattr(NormalAction, "run", fail)
    action = object.__new__(ActionModule)
    action._task = SimpleNamespace(action="armfleet.vfio.host_policy", args={})
    return action


def test_what_a_host_wrote_before_an_error_is_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    action = failing(monkeypatch, AnsibleError("failed to transfer file: \x1b[31m"))
    with pytest.raises(AnsibleError) as raised:
        action.run()
    assert str(raised.value) == "failed to transfer file: \\x1b[31m"


def test_a_host_that_cannot_be_reached_is_a_result_and_no_error_with_the_lines_of_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    action = failing(monkeypatch, AnsibleConnectionFailure("no route to host: \x1b[31m"))
    assert action.run() == {
        "unreachable": True,
        "changed": False,
        "msg": "no route to host: \\x1b[31m",
    }
