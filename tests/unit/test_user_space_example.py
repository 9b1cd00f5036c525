"""The example of docs/user-space.md runs on each Python that hosts have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("/dev/vfio/by-tag/none", "/dev/vfio/by-tag/none does not exist. "),
        ("/dev/null", "/dev/null is no node of a VFIO device. "),
    ],
)
def test_a_wrong_link_is_reported_in_one_line(link: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), link],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
