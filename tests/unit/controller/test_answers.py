# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Only documented keys of a host's answer are kept, with their types and printable text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.armfleet.vfio.plugins.filter.board_names import FilterModule
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    parse_selectors,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._answers import (
    Flag,
    ListOf,
    MalformedAnswerError,
    Nullable,
    Record,
    Text,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._playbook_variables import REQUIREMENTS
from tests.harness.modules import NAMES
from tests.unit.controller.test_samples import ROOT, documented, results_of

MODULES = NAMES
BOARD = {"compatible": ["acme,one"], "product_name": None, "board_name": None}


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_returns_is_kept_as_it_is(tmp_path: Path, module: str) -> None:
    for result in results_of(module, tmp_path):
        assert _answers.read(module, {"changed": True, **result}) == {"changed": True, **result}


def keys(shape: Any) -> Any:
    """Return the keys of a shape, at each level that the documentation describes."""
    if isinstance(shape, (Nullable, ListOf)):
        return keys(shape.shape)
    if isinstance(shape, Record):
        return {key: keys(inner) for key, inner in {**shape.keys, **shape.optional}.items()}
    return None


def documented_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: documented_keys(field["contains"]) if "contains" in field else None
        for key, field in fields.items()
    }


def without_unnamed(described: Any, read: Any) -> Any:
    """Return the keys that are read, without those that only a description mentions."""
    if described is None or read is None:
        return None
    return {key: without_unnamed(described.get(key), inner) for key, inner in read.items()}


@pytest.mark.parametrize("module", MODULES)
def test_what_is_kept_is_what_is_documented(module: str) -> None:
    described = documented_keys(documented(f"modules.{module}"))
    # The control node adds the summary; it does not come from the host.
    described.pop("summary", None)
    read = {key: keys(shape) for key, shape in _answers.SHAPES[module].items()}
    assert without_unnamed(described, read) == described


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([], "it is no mapping"),
        ({}, "devices is missing"),
        ({"devices": [{}]}, "devices[0].name is missing"),
        ({"devices": {}}, "devices is not a list"),
        ({"devices": "x"}, "devices is not a list"),
        ({"devices": [], "policy_list": [5]}, "policy_list[0] is no mapping"),
        ({"devices": [], "policy_list": [{"a": [1]}]}, "policy_list[0].a[0] is not a string"),
        ({"devices": [], "policy_list": [{"a": {}}]}, "policy_list[0].a is not a string"),
        ({"devices": [], "policy_list": [{"a": 1.5}]}, "policy_list[0].a is not a string"),
        ({"devices": [None] * 30_000}, "devices has more than 20000 items"),
        ({"changed": "no"}, "changed is neither true nor false"),
        ({"failed": 1}, "failed is neither true nor false"),
        ({"msg": ["x"]}, "msg is not a string"),
        ({"warnings": "x"}, "warnings is not a list"),
        ({"warnings": [{"event": 5}]}, "warnings[0] is not a string"),
        ({"failed": True, "msg": "x" * 5_000_000}, "msg has more than 262144 characters"),
    ],
)
def test_a_malformed_answer_has_a_problem(answer: Any, problem: str) -> None:
    with pytest.raises(MalformedAnswerError) as error:
        _answers.read("device_info", answer)
    assert str(error.value) == problem


def test_nothing_else_of_an_answer_is_kept() -> None:
    failed = {"failed": True, "msg": "no", "unreachable": True, "ansible_facts": 5, "devices": 5}
    assert _answers.read("device_info", failed) == {"failed": True, "changed": False, "msg": "no"}
    images: list[Any] = []
    kept = {"failed": True, "changed": True, "msg": "no", "images": images}
    assert _answers.read("initramfs", {**kept, "tool": 5}) == kept


def test_many_warnings_are_counted() -> None:
    read = _answers.read("initramfs", {"failed": True, "warnings": ["careful"] * 300})
    assert read["warnings"] == [*["careful"] * 100, "and 200 more warnings"]


def test_warnings_and_tracebacks_are_texts_in_every_version() -> None:
    typed = {"__ansible_type": "WarningSummary", "event": {"msg": "careful\x1b"}}
    traceback = {"__ansible_type": "ErrorSummary", "formatted_traceback": "Traceback\n\x07"}
    read = _answers.read(
        "initramfs", {"failed": True, "warnings": ["a", typed], "exception": traceback}
    )
    assert read["warnings"] == ["a", "careful\\x1b"]
    assert read["exception"] == "Traceback\n\\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä", "plain ä"),
        ("\x1b]0;x\x07\x9b\x00", "\\x1b]0;x\\x07\\x9b\\x00"),
        ("\u202e\u2028\u00a0\u200b", "\\u202e\\u2028\\xa0\\u200b"),
        ("\udc80", "\\udc80"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
    ],
)
def test_a_text_is_printable(text: str, shown: str) -> None:
    assert Text().read(text, "") == shown
    assert Text(9, has_lines=True).read("a\n\tb\r", "") == "a\n\tb\\r"


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Welcome\r\n {"a": 1}\r\nBye {"b": 2}\n', {"a": 1}),
        ("", None),
        ("Traceback: x {", None),
    ],
)
def test_the_answer_is_the_first_object_of_the_output(output: str, answer: Any) -> None:
    assert _answers.decode(output) == answer


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ('{"a": ' + "[" * 200_000, "nested too deeply"),
        ('{"a": ', "it is not JSON"),
        ('{"a": ' + "1" * 5_000 + "}", "it is not JSON"),
        ("{" + " " * _answers.LARGEST_ANSWER, "it has more than"),
    ],
)
def test_an_output_that_cannot_be_read_is_malformed(output: str, problem: str) -> None:
    with pytest.raises(MalformedAnswerError, match=problem):
        _answers.decode(output)


def test_an_output_for_people_has_its_end() -> None:
    assert _answers.output("x" * 10**6 + "\r\nend\x1b") == "x" * (2**14 - 6) + "\nend\\x1b"
    assert Flag().read(value=True, path="") is True


def test_the_names_of_a_board_are_those_that_when_board_takes() -> None:
    (names,) = FilterModule().filters().values()
    assert names(BOARD) == ["acme,one"]
    reported = {**BOARD, "product_name": "{{ x }}\x1b*", "board_name": "Mt. Jade™ (P1) ['\"]"}
    assert names(reported) == ["acme,one", "__ x __\\x1b_", "Mt. Jade™ (P1) ['\"]"]
    assert len(names({**BOARD, "compatible": [str(number) for number in range(500)]})) == 64
    assert names({**BOARD, "compatible": ["a" * 500]}) == ["a" * 128]
    assert names({**BOARD, "compatible": ["a", "a", ""]}) == ["a"]
    for name in names(reported):
        (selector,) = parse_selectors([{"dt_path": "/x", "when_board": name.strip()}])
        assert selector.when_board == (name.strip(),)
    with pytest.raises(AnsibleFilterError, match=r"board\.compatible is not a list"):
        names({**BOARD, "compatible": "x"})


def test_the_settings_of_the_report_have_the_defaults_of_its_role() -> None:
    defaults = yaml.safe_load((ROOT / "roles/report/defaults/main.yml").read_text())
    assert {name: REQUIREMENTS[name].default for name in defaults} == defaults
