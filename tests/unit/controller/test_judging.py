# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answers of 300 hosts are judged in time that grows with their number, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
FEW, MANY = 30, 300
# Noise is less than that; in quadratic time it would be 100.
MOST = 25
# A part that takes less of the whole is not measured well.
LEAST_SHARE = 0.05
GIB_IN_KIB = 1 << 20


def measured(hosts: int) -> Any:
    """Return what a process of its own measured over so many hosts."""
    command = [sys.executable, ROOT / "tests/bench/judging.py", "--hosts", str(hosts), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def test_the_work_of_the_control_node_grows_with_the_hosts_and_no_faster() -> None:
    few, many = measured(FEW), measured(MANY)
    least = few["seconds"]["all"] * LEAST_SHARE
    growth = {
        part: seconds / max(least, few["seconds"][part])
        for part, seconds in many["seconds"].items()
    }
    assert not {part: ratio for part, ratio in growth.items() if ratio > MOST}
    assert many["memory_kib"] < GIB_IN_KIB
