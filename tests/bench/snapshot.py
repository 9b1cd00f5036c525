#!/usr/bin/env python
"""Prints the cost of resolving a policy list on machines with different numbers of devices.

Run it with PYTHONPATH such that ansible_collections.armfleet.vfio is found.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "unit"), str(HERE.parents[2])]

from simulated_kernel import BoardKernel

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import resolve
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs
from extensions.simulator.description import Function
from extensions.simulator.pci_ids import PciAddress, PciIdentity
from extensions.simulator.tree import Directory, Link

ROUNDS = 5
POLICIES = 64
SIZES = (1_000, 10_000)
KINDS = 200
FUNCTIONS_PER_BUS = 256


class Row(NamedTuple):
    """One list of selectors on the machines of all sizes; medians in seconds."""

    title: str
    seconds: list[float]

    @property
    def growth(self) -> float:
        """Return the cost per device on the largest machine, divided by that on the smallest."""
        return (self.seconds[-1] / SIZES[-1]) / (self.seconds[0] / SIZES[0])


class Family(NamedTuple):
    """How a machine gets a number of devices, and lists of selectors for them by title."""

    populate: Callable[[BoardKernel, int], None]
    lists: dict[str, list[Selector]]


def grow(root: Path, populate: Callable[[BoardKernel, int], None], size: int) -> Sysfs:
    """Return the /sys of a machine with ``size`` devices."""
    kernel = BoardKernel(root / "dev")
    populate(kernel, size)
    write_out(kernel.tree.root, root / "sys")
    return Sysfs(str(root / "sys"))


def add_platform_devices(kernel: BoardKernel, size: int) -> None:
    """Add devices with a node each."""
    kernel.add_node("/", ("acme,board",))
    kernel.add_node("/soc", ("simple-bus",))
    for number in range(size):
        address = f"{0xB000000 + number * 0x1000:x}"
        compatible = (f"acme,ring-v{number % KINDS}", "acme,ring")
        kernel.add_device(f"{address}.ring", f"/soc/ring@{address}", compatible)
    for number in range(POLICIES):
        kernel.add_alias(f"ring{number}", f"/soc/ring@{0xB000000 + number * 0x1000:x}")


def add_functions(kernel: BoardKernel, size: int) -> None:
    """Add PCI functions on as many root buses as they need."""
    for first in range(0, size, FUNCTIONS_PER_BUS):
        functions = [
            Function(pci_address(number), PciIdentity(0x15B3, 0x1000 + number % KINDS, 0x020000))
            for number in range(first, min(first + FUNCTIONS_PER_BUS, size))
        ]
        kernel.machine.pci.add(functions, f"devices/pci{functions[0].address.domain:04x}:00")


def pci_address(number: int) -> PciAddress:
    return PciAddress(number // FUNCTIONS_PER_BUS, 0, number % FUNCTIONS_PER_BUS)


def write_out(node: Directory, directory: Path) -> None:
    """Write a simulated tree to disk, so that reading it takes system calls as for /sys."""
    directory.mkdir()
    for name, entry in node.entries.items():
        path = directory / name
        if isinstance(entry, Directory):
            write_out(entry, path)
        elif isinstance(entry, Link):
            path.symlink_to(entry.target)
        else:
            path.write_bytes(entry.read() if entry.mode & 0o444 else b"")


def platform_lists() -> dict[str, list[Selector]]:
    """Return lists of selectors for platform devices, by title."""
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


def pci_lists() -> dict[str, list[Selector]]:
    """Return lists of selectors for PCI functions, by title."""
    by_address = [Selector("pci_address", str(pci_address(number))) for number in range(POLICIES)]
    by_id = [Selector("pci_id", f"15b3:{0x1000 + number:04x}") for number in range(POLICIES)]
    half = POLICIES // 2
    return {
        "pci_address": by_address,
        "pci_id": by_id,
        "pci_address, pci_id": by_address[:half] + by_id[half:],
    }


def measure(sysfs: Sysfs, selectors: list[Selector]) -> float:
    seconds = []
    for _round in range(ROUNDS):
        start = time.perf_counter()
        matches = resolve(sysfs, selectors)
        seconds.append(time.perf_counter() - start)
        if not all(matches):
            raise SystemExit("a selector matched nothing")
    return statistics.median(seconds)


def measure_family(family: Family) -> list[Row]:
    with tempfile.TemporaryDirectory() as top:
        machines: list[Sysfs] = []
        for size in SIZES:
            root = Path(top) / str(size)
            root.mkdir()
            machines.append(grow(root, family.populate, size))
        return [
            Row(title, [measure(machine, selectors) for machine in machines])
            for title, selectors in family.lists.items()
        ]


def main() -> int:
    families = [
        Family(add_platform_devices, platform_lists()),
        Family(add_functions, pci_lists()),
    ]
    rows = [row for family in families for row in measure_family(family)]
    print(f"Resolving {POLICIES} policies, medians of {ROUNDS} in one run; the last three lists on")
    print("machines with as many PCI functions, the others on machines with platform devices. Each")
    print(f"list has its ratio to the first one, on {SIZES[-1]:,} devices.\n")
    print(f"{'selectors':20}" + "".join(f"{size:>9,} devices" for size in SIZES), end="")
    print("  per device   / first")
    for row in rows:
        figures = "".join(f"{seconds * 1000:14.1f} ms" for seconds in row.seconds)
        ratio = row.seconds[-1] / rows[0].seconds[-1]
        print(f"{row.title:20}{figures}{row.growth:10.2f} x{ratio:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
