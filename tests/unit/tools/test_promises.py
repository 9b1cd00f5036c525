# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each promise of the documentation is tested in make test, and the rest is marked as nightly."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[3]
PAGES = ("docs/safety.md", "docs/security-model.md")
# A name of a file or a test, with the remark in parentheses that follows its list.
_NAME = re.compile(r"`((?:tests/[\w/]+/)?test_\w+(?:\.py)?)`")
_GUEST = re.compile(r"\((guest|simulator)([^)]*)\)")


def is_nightly(node: ast.AST) -> bool:
    return "mark.nightly" in ast.unparse(node)


@cache
def run_by_make_test() -> dict[str, bool]:
    """Return by name whether make test runs a test, or at least one test of a file."""
    status: dict[str, bool] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        is_left = any(
            is_nightly(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        )
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        for function in functions:
            marks = [mark for mark in function.decorator_list if not isinstance(mark, ast.Call)]
            runs = not is_left and not any(map(is_nightly, marks))
            for name in (function.name, path.name, str(path.relative_to(ROOT))):
                status[name] = status.get(name, False) or runs
    return status


def rows(page: str) -> list[tuple[str, str]]:
    """Return the promises of a page, with the text of its column of tests."""
    promises: list[tuple[str, str]] = []
    for table in (ROOT / page).read_text().split("| promise | tested by |\n|---|---|\n")[1:]:
        lines = table.partition("\n\n")[0].splitlines()
        promises += [(line.split(" | ")[0], line.rpartition(" | ")[2]) for line in lines]
    return promises


def groups(tested_by: str) -> list[tuple[list[str], str]]:
    """Return the tests before each remark of where they run, and the remark."""
    split = []
    begin = 0
    for remark in _GUEST.finditer(tested_by):
        split.append((_NAME.findall(tested_by, begin, remark.start()), remark.group(2)))
        begin = remark.end()
    return [*split, (_NAME.findall(tested_by, begin), "")]


@pytest.mark.parametrize("page", PAGES)
def test_each_promise_has_a_test_in_make_test(page: str) -> None:
    assert len(rows(page)) >= 10
    for promise, tested_by in rows(page):
        named = _NAME.findall(tested_by)
        assert not [name for name in named if name not in run_by_make_test()], promise
        assert any(run_by_make_test()[name] for name in named), promise


@pytest.mark.parametrize("page", PAGES)
def test_what_is_left_for_the_night_is_marked(page: str) -> None:
    for promise, tested_by in rows(page):
        for named, remark in groups(tested_by):
            for name in named:
                assert run_by_make_test()[name] or "nightly" in remark, (promise, name)
        for named, remark in groups(tested_by):
            if "nightly" in remark:
                assert not run_by_make_test()[named[-1]], (promise, named[-1])


def assigned(path: str, name: str) -> set[str]:
    """Return the set of texts that a file assigns to a name."""
    (texts,) = [
        node.value
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return set(ast.literal_eval(texts))


def strings_of(directories: Sequence[str]) -> str:
    """Return all texts in the tests of these directories."""
    return "\n".join(
        node.value
        for directory in directories
        for path in (ROOT / "tests" / directory).rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_each_row_of_the_errors_is_shown_in_make_test() -> None:
    """By its case on the guest, or by another test with the longest part of its text."""
    errors = "tests/safety/test_errors.py"
    shown_elsewhere = assigned(errors, "LEFT_FOR_THE_NIGHT") | assigned(errors, "ALONE")
    texts = strings_of(("unit", "simulated", "sweep"))
    missing = {row for row in shown_elsewhere if max(row.split("…"), key=len).strip() not in texts}
    assert missing == set()
