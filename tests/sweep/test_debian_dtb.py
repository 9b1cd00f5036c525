# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""debian-dtb gets the device trees of Debian's archive, on a machine of another architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from extensions.simulator.__main__ import main
from extensions.simulator.dtb import read_file
from tests.boards import device_trees


@pytest.mark.nightly
def test_debian_has_all_boards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["debian-dtb"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(device_trees())
    output = tmp_path / "board.dtb"
    assert main(["debian-dtb", "amd-overdrive-rev-b1", "--output", str(output)]) == 0
    assert read_file(output).strings("compatible") == ("amd,seattle-overdrive", "amd,seattle")
