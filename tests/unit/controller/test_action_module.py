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
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _action_module, _answers

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


def action_with(args: dict[str, Any], module: str = "host_policy") -> Any:
    """Return the action plugin of a task."""
    action = object.__new__(ActionModule)
    action._task = SimpleNamespace(
        action=f"armfleet.vfio.{module}", args=args, async_val=0, check_mode=False
    )
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/x"))
    return action


@pytest.fixture(autouse=True)
def _no_kept_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NormalAction, "_execute_module", lambda *_words, **_options: {})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    guard = action_with({})

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
    action = action_with(dict(given))
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
    return action_with({})


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


class Host:
    """A host that answers modules; ``kept`` is what last_answer prints there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.removed: list[str] = []
        self._kept = kept
        host = self

        def execute(
            action: Any, module_name: str = "", module_args: Any = None, **_options: Any
        ) -> Any:
            host.sent.append((module_name, module_args))
            if not module_name:
                return {"ran": True}
            streams = (host._kept, "")
            return action._parse_returned_data({_action_module._AS_SENT: streams})

        monkeypatch.setattr(NormalAction, "_execute_module", execute)
        monkeypatch.setattr(NormalAction, "run", lambda action, *_words: action._execute_module())
        monkeypatch.setattr(NormalAction, "_parse_returned_data", parse)
        monkeypatch.setattr(
            NormalAction, "_remove_tmp_path", lambda _action, path: self.removed.append(path)
        )


def parse(_action: Any, res: dict[str, Any]) -> dict[str, Any]:
    """Return what ansible-core makes of an output."""
    try:
        return dict(json.loads(res["stdout"]))
    except ValueError:
        return {"failed": True, "module_stdout": res["stdout"]}


INSPECTION = {"candidates": False, "in_use": False}
KEPT = {
    "changed": False,
    "is_kept": True,
    "tool": "dracut",
    "command": ["dracut"],
    "images": [],
    "ansible_facts": {"a": "b"},
}


def test_an_answer_that_a_host_keeps_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_answers.SHAPES, "device_info", _answers.SHAPES["initramfs"])
    host = Host(monkeypatch, json.dumps(KEPT))
    result = action_with(dict(INSPECTION), "device_info").run()
    ((name, options),) = host.sent
    assert name == "armfleet.vfio.last_answer"
    assert options["timeout"] == 30
    assert result["tool"] == "dracut"
    assert result["invocation"] == {"module_args": INSPECTION}
    # What no module returns is not taken from a host.
    assert not {"ansible_facts", "is_kept"} & set(result)
    assert host.removed == ["/tmp/x"]


@pytest.mark.parametrize(
    "kept",
    [
        json.dumps({"changed": False, "is_kept": False}),
        json.dumps({"changed": True, "ansible_facts": {"a": "b"}}),
        json.dumps({"is_kept": "yes"}),
        json.dumps({"failed": True, "msg": "no Python"}),
        json.dumps(["is_kept"]),
        "{",
        "sudo: a password is required",
        "",
    ],
)
def test_without_such_an_answer_the_module_runs_and_gets_the_digest(
    monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    host = Host(monkeypatch, kept)
    action = action_with(dict(INSPECTION), "device_info")
    assert action.run() == {"ran": True}
    (_first, asked), (_module, options) = host.sent
    assert options == {**INSPECTION, "request_digest": asked["request_digest"]}
    assert action._task.args == INSPECTION


def test_a_device_that_does_not_answer_is_not_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = {"failed": True, "msg": "/sys/x did not answer within 30 s", "is_kept": True}
    host = Host(monkeypatch, json.dumps(failure))
    result = action_with(dict(INSPECTION), "device_info").run()
    assert result["failed"]
    assert result["msg"] == failure["msg"]
    assert len(host.sent) == 1


def test_what_runs_in_the_background_is_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, json.dumps(KEPT))
    action = action_with(dict(INSPECTION), "device_info")
    action._task.async_val = 60
    action.run()
    assert [name for name, _options in host.sent] == [""]


def test_who_uses_devices_is_asked_of_the_module_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, json.dumps(KEPT))
    action_with({"candidates": False}, "device_info").run()
    assert host.sent == [("", None)]
