# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each kind of use is registered once and documented, and loads when a device is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from board import Board
from loaded import loaded_by

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use import kinds

ROOT = Path(__file__).parents[3]


def test_each_kind_is_registered_by_the_name_of_its_checks() -> None:
    registered = kinds.load_kinds()
    assert set(kinds.ACCEPTABLE) | {kinds.OPEN_NODE} == set(registered)
    assert len({kind.__module__ for kind in registered.values()}) == len(registered)


def test_each_kind_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", (ROOT / "docs/safety.md").read_text(), re.MULTILINE)
    assert set(kinds.ACCEPTABLE) <= set(rows)
    option = (ROOT / "plugins/doc_fragments/safety.py").read_text()
    assert f"choices: [{', '.join(kinds.ACCEPTABLE)}]" in option


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
