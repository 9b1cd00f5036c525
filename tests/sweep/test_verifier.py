# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verifier of rules files that the tests use reports bad rules, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.verifier import complaints


@pytest.mark.parametrize("line", ['KERNEL=="x", GOTO="nowhere"', 'KERNEL=="x", RUN="a', "nonsense"])
def test_a_bad_rule_is_complained_of(tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.rules").write_text(line + "\n")
    assert "bad.rules" in complaints([tmp_path / "bad.rules"])


def test_a_good_rule_is_not(tmp_path: Path) -> None:
    (tmp_path / "good.rules").write_text('KERNEL=="x", ENV{A}="1"\n')
    assert not complaints([tmp_path / "good.rules"])
