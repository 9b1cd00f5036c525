# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each candidate of some boards (of all in make nightly) is bound, and each refusal is right."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._report.candidates import ADVICE
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import inspect
from extensions.simulator.dtb import read_file
from extensions.simulator.machine import build
from tests.boards import device_trees
from tests.harness.simulated_gateways import everything
from tests.simulated.counts import Counts
from tests.simulated.lab import Lab, bindings
from tests.sweep.test_sweep import some

REFUSED = 4


def test_each_candidate_of_each_board_is_bound_and_each_refusal_is_true(
    depth: str, counts: Counts
) -> None:
    boards = device_trees() if depth == "nightly" else some(device_trees())[::2]
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        for board in workers.map(try_candidates, boards, chunksize=4):
            counts.update(board)
    assert counts["boards"] == len(boards)
    # Few boards have an IOMMU that VFIO accepts.
    assert counts["candidates bound to VFIO"] > 10
    assert counts["refusals provoked"] > 2 * counts["boards"]


def try_candidates(path: Path) -> Counter[str]:
    """Bind all candidates of a board by one list, and try some of the other devices."""
    root = read_file(path)
    counts = Counter({"boards": 1})
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        lab = Lab(lambda: build(root), Path(directory))
        usage = Usage(lab.host.sysfs, str(lab.root / "proc"))
        devices = device_info.inspections(inspect(lab.host, lambda _host: usage, None))["devices"]
        able = [device for device in devices if device["candidate"]]
        others = [device for device in devices if not device["candidate"]]
        tried = [device for device in others if not kinds(device) <= ADVICE]
        counts += refuse(lab, random.Random(path.name).sample(tried, min(REFUSED, len(tried))))
        counts += bind(lab, able)
    counts.update(f"not a candidate: {kind}" for device in others for kind in kinds(device))
    return counts


def kinds(device: Mapping[str, Any]) -> set[str]:
    return {reason["kind"] for reason in device["why_not"]}


def bind(lab: Lab, devices: Sequence[Mapping[str, Any]]) -> Counter[str]:
    settings: dict[str, Any] = {}
    for device in devices:
        settings.update(device["settings"])
    if devices:
        lab.apply([device["entry"] for device in devices], **settings)
    bound = bindings(lab.machine)
    for device in devices:
        assert "vfio" in str(bound[device["name"]][0]), device
    return Counter({"candidates bound to VFIO": len(devices)})


def refuse(lab: Lab, devices: Sequence[Mapping[str, Any]]) -> Counter[str]:
    before = everything(lab.machine)
    for device in devices:
        with pytest.raises(PolicyError):
            lab.apply([device["entry"]], **device["settings"])
        assert everything(lab.machine) == before, device
    return Counter({"refusals provoked": len(devices)})
