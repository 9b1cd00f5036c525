# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each kind of use is registered once and documented, and loads when a device is checked."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterable

import pytest
from board import Board
from loaded import loaded_by

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use import kinds
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.configured import NodeUse

ROOT = Path(__file__).parents[3]


def test_each_kind_is_registered_by_the_name_of_its_checks() -> None:
    registered = kinds.load_kinds()
    assert set(kinds.ACCEPTABLE) | {kinds.OPEN_NODE} == set(registered)
    assert len({kind.__module__ for kind in registered.values()}) == len(registered)


def quoted_kinds(source: str) -> list[str]:
    """Return the kinds that a Python file quotes: in a use, a comparison or a list of them.

    By itself, such a word can be a class of /sys, a kernel parameter or a key of a record.
    """
    return [kind for node in ast.walk(ast.parse(source)) for kind in _quoted_at(node)]


def _quoted_at(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        is_of_kind = node.func.id in (kinds.Hazard.__name__, NodeUse.__name__)
        return _names_of_kinds(node.args[:1]) if is_of_kind else []
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        is_of_kind = {"kind", "allow"} & {getattr(side, "attr", None) for side in sides}
        return _names_of_kinds(sides) if is_of_kind else []
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        names = _names_of_kinds(node.elts)
        return names if len(names) > 1 else []
    return []


def _names_of_kinds(nodes: Iterable[ast.AST]) -> list[str]:
    known = {*kinds.load_kinds(), kinds.BLOCKED}
    inner = [
        element
        for node in nodes
        for element in (node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node])
    ]
    constants = [node.value for node in inner if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str) and value in known]


def test_no_file_quotes_a_kind() -> None:
    files = (ROOT / "plugins").rglob("*.py")
    quoting = {path.name: quoted_kinds(path.read_text()) for path in files}
    assert {name: quoted for name, quoted in quoting.items() if quoted} == {}


@pytest.mark.parametrize(
    "line",
    [
        "any(hazard.kind == 'group' for hazard in known)",
        "hazard.kind not in (OPEN_NODE, 'group')",
        "'group' in request.allow",
        "Hazard('group', entry.name, sentence)",
        "NodeUse('group', path, sentence)",
        "LOST = ('group', 'clock')",
    ],
)
def test_a_kind_is_found_in_code(line: str) -> None:
    assert "group" in quoted_kinds(line)


@pytest.mark.parametrize("line", ["CLASSES = ('net', 'watchdog')", "if key == 'console': pass"])
def test_another_meaning_of_the_word_is_no_kind(line: str) -> None:
    assert quoted_kinds(line) == []


# Where documentation lists the kinds: what is before the list and after it, and how each is marked.
LISTS = {
    "docs/safety.md": ("## What counts as in use", "\n\n##", r"^\| `(\w+)` \| "),
    "plugins/doc_fragments/safety.py": ("  allow:", "choices:", r"V\((\w+)\)"),
    "roles/passthrough/README.md": ("| kinds of use to accept", "([Safety]", r"`(\w+)`"),
    "roles/passthrough/meta/argument_specs.yml": ("passthrough_allow:", "choices:", r"V\((\w+)\)"),
}


@pytest.mark.parametrize("path", LISTS)
def test_documentation_lists_each_kind(path: str) -> None:
    start, end, mark = LISTS[path]
    text = (ROOT / path).read_text().partition(start)[2].partition(end)[0]
    assert set(re.findall(mark, text, re.MULTILINE)) == set(kinds.ACCEPTABLE)


def test_the_option_has_each_kind_in_the_order_of_the_registry() -> None:
    option = (ROOT / "plugins/doc_fragments/safety.py").read_text()
    assert f"choices: [{', '.join(kinds.ACCEPTABLE)}]" in option


def test_the_result_of_device_info_lists_each_kind() -> None:
    returned = (ROOT / "plugins/modules/device_info.py").read_text().partition("in_use_by:")[2]
    kind = returned.partition("contains:")[2].partition("returned:")[0]
    assert set(re.findall(r"V\((\w+)\)", kind)) == {*kinds.load_kinds(), kinds.BLOCKED}


@pytest.mark.parametrize("kind", kinds.load_kinds())
def test_a_refusal_tells_the_remedy(kind: str) -> None:
    hazard = kinds.Hazard(kind, "eth9", "it is used", is_fatal=kind == kinds.OPEN_NODE)
    refusal = kinds.refusal("/soc/x", hazard)
    assert refusal.startswith("/soc/x ")
    assert ": it is used. " in refusal
    assert ("`allow`" in refusal) == (kind in kinds.ACCEPTABLE)
    assert hazard.is_accepted([kind]) == (kind in kinds.ACCEPTABLE)


def test_no_class_is_judged_by_two_kinds(board: Board) -> None:
    usage = board.usage
    checked = [name for kind in usage.kinds for name in kind.classes]
    assert len(checked) == len(set(checked))


def test_the_checks_do_not_load_with_the_names() -> None:
    """A run without changes checks no device."""
    loaded = {name for name in loaded_by("_in_use.checker") if name.startswith("_in_use.")}
    assert loaded == {"_in_use.checker", "_in_use.kinds"}
