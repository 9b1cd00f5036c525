#!/usr/bin/env python
"""Prints the cost of resolving a policy list for device trees of different sizes.

Run it with PYTHONPATH such that ansible_collections.armfleet.vfio is found.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "unit"), str(HERE.parents[2])]

from simulated_kernel import BoardKernel

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import resolve
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs
from extensions.simulator.tree import Folder, Link

ROUNDS = 5
POLICIES = 64
SIZES = (1_000, 10_000)


class Row(NamedTuple):
    """One list of selectors on the trees of all sizes; medians in seconds."""

    title: str
    seconds: list[float]

    @property
    def ratio(self) -> float:
        """Return the cost per device in the largest tree, divided by that in the smallest."""
        return (self.seconds[-1] / SIZES[-1]) / (self.seconds[0] / SIZES[0])


def grow(root: Path, size: int) -> Sysfs:
    """Create a tree with ``size`` devices, each with a node and one of 200 compatibles."""
    kernel = BoardKernel(root / "dev")
    kernel.add_node("/", ("acme,board",))
    kernel.add_node("/soc", ("simple-bus",))
    for number in range(size):
        address = f"{0xB000000 + number * 0x1000:x}"
        compatible = (f"acme,ring-v{number % 200}", "acme,ring")
        kernel.add_device(f"{address}.ring", f"/soc/ring@{address}", compatible)
    for number in range(POLICIES):
        kernel.add_alias(f"ring{number}", f"/soc/ring@{0xB000000 + number * 0x1000:x}")
    write_out(kernel.tree.root, root / "sys")
    return Sysfs(str(root / "sys"))


def write_out(folder: Folder, directory: Path) -> None:
    """Write a simulated tree to disk, so that reading it takes system calls as for /sys."""
    directory.mkdir()
    for name, entry in folder.entries.items():
        path = directory / name
        if isinstance(entry, Folder):
            write_out(entry, path)
        elif isinstance(entry, Link):
            path.symlink_to(entry.target)
        else:
            path.write_bytes(entry.read() if entry.mode & 0o444 else b"")


def lists() -> dict[str, list[Selector]]:
    """Return lists of 64 selectors, by title."""
    addresses = [f"{0xB000000 + number * 0x1000:x}" for number in range(POLICIES)]
    by_kind = {
        "dt_path": [Selector("dt_path", f"/soc/ring@{address}") for address in addresses],
        "dt_path, aliases": [Selector("dt_path", f"ring{number}") for number in range(POLICIES)],
        "compatible": [
            Selector("compatible", f"acme,ring-v{number}") for number in range(POLICIES)
        ],
        "name": [Selector("name", f"{address}.ring") for address in addresses],
    }
    quarter = POLICIES // len(by_kind)
    mixed = [selector for selectors in by_kind.values() for selector in selectors[:quarter]]
    return {**by_kind, "all of these": mixed}


def measure(sysfs: Sysfs, selectors: list[Selector]) -> float:
    seconds = []
    for _round in range(ROUNDS):
        start = time.perf_counter()
        matches = resolve(sysfs, selectors)
        seconds.append(time.perf_counter() - start)
        if not all(matches):
            raise SystemExit("a selector matched nothing")
    return statistics.median(seconds)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        trees: list[Sysfs] = []
        for size in SIZES:
            root = Path(folder) / str(size)
            root.mkdir()
            trees.append(grow(root, size))
        rows = [
            Row(title, [measure(tree, selectors) for tree in trees])
            for title, selectors in lists().items()
        ]
    print(f"Resolving {POLICIES} policies, medians of {ROUNDS} in one run.\n")
    print(f"{'selectors':20}" + "".join(f"{size:>9,} devices" for size in SIZES) + "  per device")
    for row in rows:
        figures = "".join(f"{seconds * 1000:14.1f} ms" for seconds in row.seconds)
        print(f"{row.title:20}{figures}{row.ratio:10.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
