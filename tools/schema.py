#!/usr/bin/env python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tools/schema.py

Writes docs/schema/passthrough.json: the JSON schema of a file with variables of the roles, for
editors and check-jsonschema, made from the argument specs of the roles.

It is of draft-07, which every yaml-language-server reads; later drafts need version 1.20. The keys
``errorMessage``, ``patternErrorMessage`` and ``doNotSuggest`` are that server's own; other programs
ignore them.

The schema is stricter than Ansible about conversions that are rarely intended: a number is no
string (0660 is 432), a string is no entry of a list, and 1 is not true.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from plugins.module_utils._model.policy import DEFAULT, DRIVER, VFIO
from plugins.module_utils._model.policy_list import KINDS as POLICIES
from plugins.module_utils._model.selector import CONFIRMED_BY
from plugins.module_utils._model.selector import KINDS as SELECTORS

FILE = "docs/schema/passthrough.json"
ROLES = ("passthrough", "report", "pull")
# A variable of the playbooks, which a file for -e may set.
HOSTS = "passthrough_hosts"
# Ansible renders these before the role sees the value.
_TEMPLATE = r"\{[{%]"
# The booleans of YAML 1.1, which Ansible reads. Editors read YAML 1.2, where most are strings.
_BOOLEANS = [
    form
    for boolean in ("true", "false", "yes", "no", "on", "off")
    for form in (boolean, boolean.capitalize(), boolean.upper())
]
# How descriptions state a minimum, for which an argument spec has no key.
_MINIMUM = "V(1) or more"

Schema = dict[str, Any]


def role_options(role: str) -> dict[str, Any]:
    """Return the options of a role's argument spec."""
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


def variables_schema() -> Schema:
    """Return the schema of a file that sets variables of the roles, among others."""
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    options = {name: option for role in ROLES for name, option in role_options(role).items()}
    own = role_options("passthrough")
    # A template may join lists: passthrough_devices_board has entries of a policy list.
    lists = [name for name, option in own.items() if option["type"] == "list"]
    names = ["^(?!passthrough_)", f"^{_one_of([*own, HOSTS])}$", f"^{_one_of(lists)}_."]
    parts = " or ".join(f"{name}_" for name in lists)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": f"{galaxy['documentation']}/{FILE}",
        "$comment": "Made by tools/schema.py from the argument specs of the roles.",
        "title": f"Variables of the roles of {galaxy['namespace']}.{galaxy['name']}",
        # A file may be empty, or encrypted by ansible-vault.
        "type": ["object", "null", "string"],
        "pattern": r"^\$ANSIBLE_VAULT;",
        "properties": {name: _option_schema(option) for name, option in options.items()},
        "patternProperties": {f"^{name}_.": {"$ref": f"#/properties/{name}"} for name in lists},
        "propertyNames": {
            "pattern": "|".join(names),
            "patternErrorMessage": "The role passthrough has no such variable. Correct the name. "
            f"The name of a part of a list begins with {parts}.",
        },
    }


def _option_schema(option: Mapping[str, Any]) -> Schema:
    """Return the schema of the value of an option, or of a template for it."""
    schema: Schema = {"description": _plain(option["description"])}
    if "default" in option:
        schema["default"] = option["default"]
    schema |= _value_schema(option)
    # Ansible compares null with the choices, and converts it if there is a default.
    if not option.get("required") and not {"default", "choices"} & set(option):
        schema["type"] = [*schema["type"], "null"]
    return schema


def _value_schema(option: Mapping[str, Any]) -> Schema:
    choices = option.get("choices")
    match option["type"]:
        case "bool":
            return _or_string("boolean", _BOOLEANS, "Give true or false")
        case "int" if _MINIMUM in str(option["description"]):
            schema = _or_string("integer", ["0*[1-9][0-9]*"], "Give a number, 1 or more")
            return {**schema, "minimum": 1}
        case "int":
            return _or_string("integer", ["-?[0-9]+"], "Give a number")
        case "list" if option["elements"] == "dict":
            entry = _entry_schema(option["options"])
            return {**_or_string("array", [], "Give a list of entries"), "items": entry}
        case "list" if choices:
            texts = [f"{_one_of(choices)}(?:,{_one_of(choices)})*"]
            schema = _or_string("array", texts, f"Give a list of {', '.join(choices)}")
            return {**schema, "items": _choice_schema(choices)}
        case "list" | "raw":
            return {"type": ["array", "string"], "items": {"type": "string"}}
        case _:
            return _choice_schema(choices) if choices else {"type": ["string"]}


def _or_string(type_name: str, patterns: Iterable[str], advice: str) -> Schema:
    """Return the schema of a type, of strings that Ansible converts to it, and of templates."""
    pattern = "|".join([*(f"^{pattern}$" for pattern in patterns), _TEMPLATE])
    return {
        "type": [type_name, "string"],
        "pattern": pattern,
        "patternErrorMessage": f"{advice}.",
    }


def _choice_schema(choices: Iterable[str]) -> Schema:
    return {"type": ["string"], "anyOf": [{"enum": [*choices]}, {"pattern": _TEMPLATE}]}


def _entry_schema(options: Mapping[str, Any]) -> Schema:
    """Return the schema of an entry of a policy list."""
    properties = {name: _option_schema(option) for name, option in options.items()}
    for selector in SELECTORS:
        properties[selector]["type"] = ["string"]
    names = ", ".join(SELECTORS)
    return {
        "title": "Entry",
        "type": ["object", "string"],
        "pattern": _TEMPLATE,
        "patternErrorMessage": "Give an entry with a selector and a policy.",
        "properties": properties,
        "additionalProperties": False,
        "required": [name for name, option in options.items() if option.get("required")],
        "anyOf": [
            {"required": [selector], "errorMessage": f"Give the entry one of {names}."}
            for selector in SELECTORS
        ],
        "allOf": [*_rules_of_selectors(), *_rules_of_policies()],
        "dependencies": {"bus": ["name"]},
    }


def _rules_of_selectors() -> list[Schema]:
    """Return the schemas that refuse two selectors in an entry."""
    return [
        {
            "if": {"required": [selector]},
            "then": {
                "properties": dict.fromkeys(_excluded_by(selector, position), False),
                "errorMessage": f"The entry already has {selector}. Omit one of the two.",
            },
        }
        for position, selector in enumerate(SELECTORS[:-1], start=1)
    ]


def _rules_of_policies() -> list[Schema]:
    """Return the schemas that refuse options without what they are for."""
    others = [policy for policy in POLICIES if policy != DRIVER]
    return [
        {
            "if": _has_policy([DRIVER]),
            "then": {
                "required": ["driver"],
                "properties": {"driver": {"type": "string"}},
                "errorMessage": "policy: driver requires the name of a driver. Set driver.",
            },
        },
        _without("driver", others, "driver requires policy: driver. Omit driver."),
        *(
            _without(
                option,
                [policy for policy in POLICIES if policy != VFIO],
                f"{option} requires policy: vfio. Omit {option}.",
            )
            for option in ("tag", "vfio_driver")
        ),
        _without(
            "sriov_numvfs",
            [policy for policy in POLICIES if policy not in (DEFAULT, DRIVER)],
            "sriov_numvfs requires policy: default or policy: driver. Omit sriov_numvfs.",
        ),
        {
            "if": {"not": {"required": ["acpi_hid"]}},
            "then": _null("acpi_uid", "acpi_uid requires acpi_hid. Omit acpi_uid."),
        },
    ]


def _excluded_by(selector: str, position: int) -> list[str]:
    """Return the later selectors that an entry with this one cannot have."""
    return [other for other in SELECTORS[position:] if other != CONFIRMED_BY.get(selector)]


def _has_policy(policies: list[str]) -> Schema:
    return {"properties": {"policy": {"enum": policies}}, "required": ["policy"]}


def _without(option: str, policies: list[str], message: str) -> Schema:
    return {"if": _has_policy(policies), "then": _null(option, message)}


def _null(option: str, message: str) -> Schema:
    null = {"type": "null", "errorMessage": message, "doNotSuggest": True}
    return {"properties": {option: null}}


def _one_of(names: Iterable[str]) -> str:
    return f"(?:{'|'.join(names)})"


def _plain(description: str | list[str]) -> str:
    """Return a description without the markup of Ansible."""
    text = description if isinstance(description, str) else "\n".join(description)
    marked = re.sub(r"\b[CMOV]\(((?:\\.|[^\\)])*)\)", r"`\1`", text)
    return re.sub(r"\\(.)", r"\1", marked)


def main() -> None:
    """Write the file."""
    (ROOT / FILE).write_text(json.dumps(variables_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
