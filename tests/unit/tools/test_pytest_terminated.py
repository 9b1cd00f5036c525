# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pytest tears down its fixtures on SIGTERM, so that no process of a nox session remains."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEST = """\
import time
import pytest

@pytest.fixture
def host():
    yield
    print("the host has ended", flush=True)

def test_host(host):
    print("the host is up", flush=True)
    time.sleep(600)
"""


def test_fixtures_end_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "test_host.py").write_text(TEST)
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-s", "test_host.py"],
        cwd=tmp_path,
        # The suite must not count the results of this session.
        env={**os.environ, "ARMFLEET_TEST_RESULTS": ""},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        while "the host is up" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        output, _errors = process.communicate(timeout=60)
    assert "the host has ended" in output
    assert process.returncode == 2
