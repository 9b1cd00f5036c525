# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modes of files mean what chmod means by them, and no number is one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._file_modes import is_mode, to_bits

SYMBOLS = ["u=rw,g=r,o=", "+r", "a+x", "go-rwx", "u+X", "+X", "u=rwx,go=rx", "o=", "ug+w,o-r"]


@pytest.mark.parametrize("current", [0o600, 0o644, 0o755, 0o666, 0o111])
@pytest.mark.parametrize("mode", ["0640", "644", *SYMBOLS])
def test_a_mode_is_that_of_chmod(tmp_path: Path, mode: str, current: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(current)
    subprocess.run(["sh", "-c", f"umask 0; chmod -- {mode} file"], cwd=tmp_path, check=True)
    assert is_mode(mode)
    assert to_bits(mode, current) == (tmp_path / "file").stat().st_mode & 0o7777


@pytest.mark.parametrize("mode", [640, 0o640, 0o644, 0, True, None, "", "rw", "9", "06", "0644\n"])
def test_a_number_is_no_mode(mode: Any) -> None:
    assert not is_mode(mode)
