# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boards of Debian's arm64 kernel: some of each maker, and all of them in make nightly."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import resolve
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    parse_selectors,
)
from extensions.simulator.device import Device
from extensions.simulator.dtb import read_file
from extensions.simulator.machine import Machine, build
from tests.boards import device_trees
from tests.harness.simulated_gateways import everything
from tests.simulated.counts import Counts
from tests.simulated.lab import Lab, bindings

CHOSEN = 6
POLICIES = ("vfio", "vfio", "no_autobind")
ASKED: dict[str, Any] = {
    "reset_required": False,
    "unsafe_noiommu": True,
    "allow": list(ACCEPTABLE),
}


def test_every_device_of_every_board_is_found_and_can_be_claimed(
    depth: str, counts: Counts
) -> None:
    boards = device_trees() if depth == "nightly" else some(device_trees())
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        for swept in workers.map(sweep, boards, chunksize=4):
            counts.update(swept)
    assert counts["boards"] == len(boards) > (500 if depth == "nightly" else 60)
    assert counts["devices claimed"] > 2 * counts["boards"]


def some(boards: Sequence[Path]) -> list[Path]:
    """Return every 24th board, and the smallest and the largest device tree of each maker."""
    by_maker: dict[Path, list[Path]] = {}
    for board in sorted(boards, key=lambda board: board.stat().st_size):
        by_maker.setdefault(board.parent, []).append(board)
    ends = {board for of_maker in by_maker.values() for board in (of_maker[0], of_maker[-1])}
    return sorted({*boards[::24], *ends})


def sweep(path: Path) -> Counter[str]:
    """Look up all devices of a board, claim some and release them; return counts."""
    root = read_file(path)
    counts = Counter({"boards": 1})
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        lab = Lab(lambda: build(root), Path(directory))
        counts += look_up(lab)
        counts += claim(lab, random.Random(path.name))
    return counts


def look_up(lab: Lab) -> Counter[str]:
    """Assert that each path and each compatible finds its devices; return counts."""
    expected = list(identities(lab.machine))
    selectors = parse_selectors([selector for selector, _names in expected])
    resolved = resolve(lab.host.sysfs, selectors)
    for (selector, names), devices in zip(expected, resolved, strict=True):
        assert {device.name for device in devices} == names, selector
    kinds = [next(iter(selector)) for selector, _names in expected]
    return Counter(
        {
            "devices found by their paths": kinds.count("dt_path"),
            "compatibles found": kinds.count("compatible"),
        }
    )


def identities(machine: Machine) -> Iterator[tuple[dict[str, str], set[str]]]:
    """Yield selectors with the names of the devices that they must find."""
    by_compatible: dict[str, set[str]] = {}
    for device in machine.kernel.devices.values():
        assert device.of_path
        yield {"dt_path": device.of_path}, {device.name}
        for compatible in device.compatible:
            by_compatible.setdefault(compatible, set()).add(device.name)
    for compatible, names in by_compatible.items():
        yield {"compatible": compatible}, names


def claim(lab: Lab, dice: random.Random) -> Counter[str]:
    """Apply a list of some devices, apply it again, and release all of them; return counts."""
    before = bindings(lab.machine)
    chosen = dice.sample(free(lab.machine), min(CHOSEN, len(free(lab.machine))))
    entries = [
        {"dt_path": device.of_path, "policy": dice.choice(POLICIES), "expect": 1}
        for device in chosen
    ]
    state = everything(lab.machine)
    try:
        lab.apply(entries, **ASKED)
    except PolicyError as error:
        assert everything(lab.machine) == state
        return Counter({f"lists refused: {str(error).partition(': ')[2][:60]}": 1})
    lab.machine.watch.take()
    assert not lab.apply(entries, **ASKED).is_changed
    assert not lab.machine.watch.take()
    after = bindings(lab.machine)
    for device, entry in zip(chosen, entries, strict=True):
        vfio = "vfio-amba" if device.bus == "amba" else "vfio-platform"
        wanted = {"vfio": (vfio, vfio), "no_autobind": (None, "none")}[str(entry["policy"])]
        assert after[device.name] == wanted, device.of_path
    lab.apply([], **ASKED)
    assert bindings(lab.machine) == before
    return Counter({"devices claimed": len(chosen), "lists applied": 1})


def free(machine: Machine) -> list[Device]:
    """Return devices that can be claimed: their driver has an unbind, and no consumer is bound."""
    return [
        device
        for device in machine.kernel.devices.values()
        if not any(link.status == "active" for link in device.consumers)
        and not (device.driver and device.driver.suppress_bind_attrs)
    ]
