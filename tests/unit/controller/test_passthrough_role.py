"""Messages for users of the role passthrough have its variables, also those it ignores."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _passthrough_role
from ansible_collections.armfleet.vfio.plugins.plugin_utils._passthrough_role import (
    DEFAULTS,
    PREFIX,
    ignored_variables,
    translated,
    with_prefix,
)
from tests.harness.messages import bare_options
from tests.harness.modules import spec

ROOT = Path(__file__).parents[3]
MODULE_UTILS = sorted((ROOT / "plugins/module_utils").glob("*.py"))
GIVEN: dict[str, Any] = {"passthrough_devices": [], "ansible_host": "10.0.0.7", "site": "north"}


def messages(path: Path) -> Iterator[str]:
    """Yield each string of a file that is no docstring."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, documented)
    ]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and node.value not in texts
        ):
            yield node.value


def test_the_options_and_their_defaults_are_those_of_the_module() -> None:
    options = dict(spec("host_policy")["argument_spec"])
    # The rollout of a plan gives the one, the action plugin the other.
    del options["plan"], options["request_digest"]
    assert {name: option.get("default") for name, option in options.items()} == DEFAULTS


@pytest.mark.parametrize("path", MODULE_UTILS, ids=lambda path: path.stem)
def test_every_message_has_its_options_in_backquotes(path: Path) -> None:
    assert {text: bare_options(text) for text in messages(path) if bare_options(text)} == {}


@pytest.mark.parametrize(
    "text",
    [
        "say reset_required: false",
        "vfio_group x does not exist",
        "initramfs is always, but",
        "runtime: false",
        "Say driverctl: take_over to",
        "add 'group' to allow",
        "rollout is given and persistent is false",
        "timeout is in seconds",
    ],
)
def test_an_option_without_backquotes_would_be_found(text: str) -> None:
    assert bare_options(text)


@pytest.mark.parametrize("option", sorted(DEFAULTS))
def test_an_option_is_named_as_the_role_has_it(option: str) -> None:
    assert with_prefix(f"Set `{option}: x` or omit `{option}`.") == (
        f"Set `passthrough_{option}: x` or omit `passthrough_{option}`."
    )


@pytest.mark.parametrize(
    "text",
    [
        "/soc/state@1 (platform device 1.devices) has `driver: x`; it is on the timeout bus",
        "add vfio_platform.reset_required=0 to the kernel's command line",
        "If the device may be missing, set `required: false`",
        "set `required: false` or `expect`",
        "`passthrough_state` is present",
        "`states: x`, `runtime_status`",
    ],
)
def test_nothing_else_is_renamed(text: str) -> None:
    assert with_prefix(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "parameters are mutually exclusive: dt_path|name found in devices",
            "parameters are mutually exclusive: dt_path|name found in passthrough_devices",
        ),
        (
            "driver is required, but missing: driver found in devices",
            "driver is required, but missing: driver found in passthrough_devices",
        ),
        (
            "state is previous but all of the following are missing: rollout",
            "passthrough_state is previous but all of the following are missing: %srollout"
            % PREFIX,
        ),
    ],
)
def test_what_ansible_says_of_arguments_is_told_of_those_of_the_role(
    text: str, expected: str
) -> None:
    assert with_prefix(text) == expected


def test_only_sentences_of_a_result_are_translated() -> None:
    result = {
        "msg": "Set `runtime: false`",
        "failed": True,
        "exception": "Set `runtime: false`",
        "warnings": ["`timeout` is over", 7],
        "diff": [{"before": "`state`"}],
    }
    assert translated(result) == {
        "msg": "Set `passthrough_runtime: false`",
        "failed": True,
        "warnings": ["`passthrough_timeout` is over", 7],
        "diff": [{"before": "`state`"}],
    }


def test_a_traceback_is_kept() -> None:
    result = {"msg": "MODULE FAILURE", "failed": True, "exception": "Traceback ..."}
    assert translated(result) == result


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("reset_required", False, "Set `passthrough_reset_required` instead."),
        ("unsafe_noiommu", "{{ iommu == 'none' }}", "Set `passthrough_unsafe_noiommu` instead."),
        ("unsafe_vfio_mode", True, "Set `passthrough_unsafe_vfio_mode` instead."),
        ("vfio_group", "kvm", "Set `passthrough_vfio_group` instead."),
        ("vfio_mode", "0660", "Set `passthrough_vfio_mode` instead."),
        ("runtime", False, "Set `passthrough_runtime` instead."),
        # A string, as set by -e runtime=no.
        ("runtime", "no", "Set `passthrough_runtime` instead."),
        ("persistent", False, "Set `passthrough_persistent` instead."),
        ("initramfs", "never", "Set `passthrough_initramfs` instead."),
        ("driverctl", "take_over", "Set `passthrough_driverctl` instead."),
        ("allow", ["storage", "network"], "Set `passthrough_allow` instead."),
        ("allow", "storage", "Set `passthrough_allow` instead."),
        ("state", "previous", "Set `passthrough_state` instead."),
        ("passthrough_reset_require", False, "Did you mean `passthrough_reset_required`?"),
        ("passthrough_resetrequired", False, "Did you mean `passthrough_reset_required`?"),
        ("passthrough_device", [], "Did you mean `passthrough_devices`?"),
        ("passthrough_allowed", ["group"], "Did you mean `passthrough_allow`?"),
        ("passthrough_noiommu", True, "Remove or rename it."),
    ],
)
def test_a_variable_that_was_meant_for_the_role_has_a_warning(
    name: str, value: object, instead: str
) -> None:
    (warning,) = ignored_variables({**GIVEN, name: value})
    assert warning == (
        f"Variable {name} is ignored: the role armfleet.vfio.passthrough has no such option. "
        f"{instead}"
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {PREFIX + name: value for name, value in DEFAULTS.items()},
        {"passthrough_hosts": "boards", "passthrough_applied": {}},
        # Variables with these names that other roles may use.
        {"timeout": 30, "state": "absent", "rollout": "blue", "devices": ["eth0"]},
        {"runtime": "containerd", "initramfs": "dracut", "allow": ["192.0.2.0/24"], "allow ": []},
        {"persistent": "volume-3", "driverctl": None, "reset_required": None, "allow": []},
        # Variables from which the role's variables are composed, as in docs/mixed-fleets.md.
        {
            "passthrough_devices": "{{ passthrough_devices_all + passthrough_devices_board }}",
            "passthrough_devices_all": [],
            "passthrough_devices_board": [],
        },
        {"passthrough_vfio_group": "{{ vfio_group }}", "vfio_group": "kvm"},
        {"passthrough_runtime": False, "runtime": True},
        {"passthrough_devices": "{{ devices }}", "devices": [{"name": "x", "policy": "vfio"}]},
    ],
)
def test_no_other_variable_has_a_warning(variables: dict[str, Any]) -> None:
    assert ignored_variables({**GIVEN, **variables}) == []


def test_every_option_is_one_of_which_it_is_decided() -> None:
    undecided = {"devices", "rollout", "rollout_by", "timeout"}
    assert set(_passthrough_role._VALUES) | undecided == set(DEFAULTS)
