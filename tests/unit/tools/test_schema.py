# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The schema for editors agrees with the argument specs, and refuses what the role refuses."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from jsonschema import Draft7Validator

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.plugin_utils._passthrough_role import (
    PREFIX,
    ignored_variables,
)
from tests.harness.modules import MODULES, spec
from tests.unit.controller.test_documentation import markdown_files, role_variables
from tools import schema

MADE = schema.variables_schema()
VALIDATOR = Draft7Validator(MADE)
OPTIONS = schema.role_options("passthrough")
GOOD = {"dt_path": "/soc/crypto@1", "policy": "vfio"}
DRIVER = {"name": "1.crypto", "policy": "driver", "driver": "acme"}
TEMPLATE = "{{ something }}"
ABSENT = "absent"


def problems(variables: Any) -> set[tuple[str, str]]:
    """Return the location and the keyword of each error of the schema."""
    return {
        ("/".join(map(str, error.absolute_path)), str(error.validator))
        for error in VALIDATOR.iter_errors(variables)
    }


def is_refused_by_role(variables: dict[str, Any]) -> bool:
    """Return whether the role warns about a name, or its spec or module refuses a value."""
    if ignored_variables(variables):
        return True
    given = {"passthrough_devices": [], **variables}
    known = {name: value for name, value in given.items() if name in OPTIONS}
    if ArgumentSpecValidator(OPTIONS).validate(known).error_messages:
        return True
    options = {name.removeprefix(PREFIX): value for name, value in known.items()}
    result = ArgumentSpecValidator(**spec("host_policy")).validate(options)
    if result.error_messages:
        return True
    if result.validated_parameters["timeout"] < 1:  # refused by module_run
        return True
    try:
        return bool(MODULES["host_policy"].to_request(result.validated_parameters).problems)
    except PolicyError:
        return True


def test_the_file_is_what_the_command_writes() -> None:
    written = json.loads((schema.ROOT / schema.FILE).read_text())
    assert written == MADE, f"{schema.FILE} is old: run tools/setup check python tools/schema.py"


def test_the_schema_is_one_of_draft_07() -> None:
    assert MADE["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(MADE)


def test_each_variable_and_each_key_of_an_entry_has_a_description_without_markup() -> None:
    entry = MADE["properties"]["passthrough_devices"]["items"]["properties"]
    described = {**MADE["properties"], **entry}
    assert {*OPTIONS, *OPTIONS["passthrough_devices"]["options"]} <= set(described)
    for name, option in described.items():
        assert option["description"], name
        assert not re.search(r"\b[A-Z]\(", option["description"]), name


def shown_variables() -> Iterator[Any]:
    """Yield the variables of each page and example, with their location as ID."""
    for page in markdown_files():
        blocks = re.findall(
            r"^```ya?ml(?:\+jinja)?\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        )
        for number, block in enumerate(blocks, start=1):
            for variables in role_variables(yaml.safe_load(block)):
                yield pytest.param(variables, id=f"{page.name}-{number}")
    for path in sorted((schema.ROOT / "docs/examples").rglob("*_vars/*.yml")):
        yield pytest.param(yaml.safe_load(path.read_text()), id=path.name)


@pytest.mark.parametrize("variables", list(shown_variables()))
def test_what_the_documentation_shows_is_accepted(variables: dict[str, Any]) -> None:
    assert problems(variables) == set()


def test_the_readme_and_the_guides_show_variables() -> None:
    names = {str(parameter.id) for parameter in shown_variables()}
    assert {"README.md-1", "select-devices.md-1", "all.yml"} <= names


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"passthrough_devices": []},
        {"passthrough_devices": [GOOD, DRIVER]},
        {"passthrough_devices": [{**GOOD, "expect": "2", "required": "no"}]},
        {"passthrough_devices": [{**GOOD, "when_board": ["a", "b"]}]},
        {"passthrough_devices": [{"acpi_hid": "AC0001", "acpi_uid": "0", "policy": "vfio"}]},
        {"passthrough_devices": [{**GOOD, "acpi_uid": None}]},
        {"passthrough_devices": [{**GOOD, "driver": None, "expect": None, "tag": None}]},
        {"passthrough_allow": "network,storage"},
        {"passthrough_reset_required": None, "passthrough_vfio_mode": None},
        {"passthrough_runtime": "Yes", "passthrough_timeout": "05"},
        {"other": 1, "devices_of_others": {}},
    ],
    ids=str,
)
def test_what_the_role_accepts_is_accepted(variables: dict[str, Any]) -> None:
    assert not is_refused_by_role(variables)
    assert problems(variables) == set()


ENTRY = "passthrough_devices/0"


@pytest.mark.parametrize(
    ("variables", "path", "keyword"),
    [
        ({"passthrough_device": [GOOD]}, "", "pattern"),
        ({"passthrough_reset_require": False}, "", "pattern"),
        ({"passthrough_devices": None}, "passthrough_devices", "type"),
        ({"passthrough_devices": GOOD}, "passthrough_devices", "type"),
        ({"passthrough_devices": "all"}, "passthrough_devices", "pattern"),
        ({"passthrough_devices": [None]}, ENTRY, "type"),
        ({"passthrough_devices": ["/soc/crypto@1"]}, ENTRY, "pattern"),
        ({"passthrough_devices": [{**GOOD, "policies": "vfio"}]}, ENTRY, "additionalProperties"),
        ({"passthrough_devices": [{"name": "1.crypto"}]}, ENTRY, "required"),
        ({"passthrough_devices": [{"policy": "vfio"}]}, ENTRY, "anyOf"),
        ({"passthrough_devices": [{**DRIVER, "driver": None}]}, ENTRY + "/driver", "type"),
        ({"passthrough_devices": [{"name": "1", "policy": "driver"}]}, ENTRY, "required"),
        ({"passthrough_devices": [{**GOOD, "driver": "acme"}]}, ENTRY + "/driver", "type"),
        ({"passthrough_devices": [{**DRIVER, "tag": "uplink"}]}, ENTRY + "/tag", "type"),
        ({"passthrough_devices": [{**GOOD, "policy": "vfoi"}]}, ENTRY + "/policy", "anyOf"),
        ({"passthrough_devices": [{**GOOD, "bus": "amba"}]}, ENTRY, "dependencies"),
        ({"passthrough_devices": [{**GOOD, "acpi_uid": "0"}]}, ENTRY + "/acpi_uid", "type"),
        ({"passthrough_devices": [{**DRIVER, "bus": None}]}, ENTRY + "/bus", "type"),
        ({"passthrough_devices": [{**DRIVER, "bus": "isa"}]}, ENTRY + "/bus", "anyOf"),
        ({"passthrough_devices": [{**GOOD, "expect": 0}]}, ENTRY + "/expect", "minimum"),
        ({"passthrough_devices": [{**GOOD, "expect": "0"}]}, ENTRY + "/expect", "pattern"),
        ({"passthrough_devices": [{**GOOD, "expect": "two"}]}, ENTRY + "/expect", "pattern"),
        ({"passthrough_devices": [{**GOOD, "expect": 1.5}]}, ENTRY + "/expect", "type"),
        ({"passthrough_devices": [{**GOOD, "required": "maybe"}]}, ENTRY + "/required", "pattern"),
        ({"passthrough_devices": [{**GOOD, "required": None}]}, ENTRY + "/required", "type"),
        ({"passthrough_devices": [{**GOOD, "when_board": [1]}]}, ENTRY + "/when_board/0", "type"),
        ({"passthrough_devices": [{**GOOD, "when_board": 1}]}, ENTRY + "/when_board", "type"),
        ({"passthrough_initramfs": "sometimes"}, "passthrough_initramfs", "anyOf"),
        ({"passthrough_state": ["absent"]}, "passthrough_state", "type"),
        ({"passthrough_runtime": None}, "passthrough_runtime", "type"),
        ({"passthrough_runtime": []}, "passthrough_runtime", "type"),
        ({"passthrough_timeout": 0}, "passthrough_timeout", "minimum"),
        ({"passthrough_timeout": "soon"}, "passthrough_timeout", "pattern"),
        ({"passthrough_allow": ["network", "disk"]}, "passthrough_allow/1", "anyOf"),
        ({"passthrough_allow": "network, disk"}, "passthrough_allow", "pattern"),
        ({"passthrough_vfio_mode": 0o660}, "passthrough_vfio_mode", "type"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_where_it_is_and_by_the_role_as_well(
    variables: dict[str, Any], path: str, keyword: str
) -> None:
    assert (path, keyword) in problems(variables)
    assert {known for known, _keyword in problems(variables)} == {path}
    assert is_refused_by_role(variables)


VALUES = {
    "policy": ("vfio", "no_autobind", "driver", "default", "other", None, ABSENT),
    "driver": ("acme", None, ABSENT),
    "tag": ("uplink", None, ABSENT),
    "bus": ("pci", None, ABSENT),
    "vfio_driver": ("vfio-pci", None, ABSENT),
    "sriov_numvfs": (2, ABSENT),
}
SELECTED = {
    **dict.fromkeys(schema.SELECTORS, "ACME0001"),
    "acpi_path": r"\_SB_.VR00",
    "pci_address": "0000:01:00.0",
    "pci_id": "8086:10d3",
}
PAIRS = [("dt_path", "name"), ("pci_address", "pci_id"), ("pci_id", "name")]


def entries() -> Iterator[dict[str, Any]]:
    """Yield every combination of the keys that depend on each other."""
    for kinds in [(), *((kind,) for kind in SELECTED), *PAIRS]:
        for values in itertools.product(*VALUES.values()):
            given = dict(zip(VALUES, values, strict=True))
            selectors = {kind: SELECTED[kind] for kind in kinds}
            yield selectors | {key: value for key, value in given.items() if value != ABSENT}


def test_an_entry_is_refused_if_the_role_refuses_it_and_only_then() -> None:
    refused = 0
    for entry in entries():
        variables = {"passthrough_devices": [entry]}
        is_refused = is_refused_by_role(variables)
        assert (problems(variables) != set()) is is_refused, entry
        refused += is_refused
    assert 0 < refused < len(list(entries()))


@pytest.mark.parametrize("name", sorted(MADE["properties"]))
def test_a_variable_may_be_a_template(name: str) -> None:
    assert problems({name: TEMPLATE}) == set()


def test_an_entry_and_each_value_of_it_may_be_a_template() -> None:
    keys = set(OPTIONS["passthrough_devices"]["options"]) - set(schema.SELECTORS)
    entry = {"name": TEMPLATE, **dict.fromkeys(keys - {"acpi_uid"}, TEMPLATE)}
    by_uid = {"acpi_hid": TEMPLATE, **dict.fromkeys(keys - {"bus"}, TEMPLATE)}
    assert problems({"passthrough_devices": [TEMPLATE, entry, by_uid]}) == set()


def test_a_list_that_a_template_joins_has_the_entries_of_the_whole() -> None:
    bad = [{**GOOD, "policies": "vfio"}]
    joined = {"passthrough_devices": "{{ passthrough_devices_board }}"}
    assert ignored_variables({**joined, "passthrough_devices_board": [GOOD]}) == []
    assert problems({**joined, "passthrough_devices_board": [GOOD]}) == set()
    assert problems({**joined, "passthrough_devices_board": bad}) == {
        ("passthrough_devices_board/0", "additionalProperties")
    }


@pytest.mark.parametrize("content", [None, "$ANSIBLE_VAULT;1.1;AES256 6162"])
def test_an_empty_and_an_encrypted_file_are_accepted(content: str | None) -> None:
    assert problems(content) == set()


@pytest.mark.parametrize(
    "variables",
    [
        {"passthrough_devices": [{**GOOD, "tag": 5}]},
        {"passthrough_devices": ["name=1.crypto policy=vfio"]},
        {"passthrough_runtime": 1},
    ],
    ids=str,
)
def test_a_conversion_that_is_hardly_meant_is_refused(variables: dict[str, Any]) -> None:
    assert not is_refused_by_role(variables)
    assert problems(variables) != set()
