"""IOMMU groups of PCI functions, as pci_device_group of Linux 6.12 makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pci_boards import E1000E, PORT, booted, driver_of, group_of, write

from extensions.simulator.machine import Machine

SECOND = "0000:00:02.0 1b36:000c 060400 bus=02"


def groups(machine: Machine) -> list[list[str]]:
    """Return the members of each group, in the order of their numbers."""
    home = "kernel/iommu_groups"
    numbers = sorted(map(int, machine.tree.names(home)))
    return [machine.tree.names(f"{home}/{number}/devices") for number in numbers]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([PORT, E1000E], [["0000:00:01.0"], ["0000:01:00.0"]]),
        (
            ["0000:00:02.0 14e4:16d7 020000", "0000:00:02.1 14e4:16d7 020000"],
            [["0000:00:02.0"], ["0000:00:02.1"]],
        ),
        (
            ["0000:00:02.0 14e4:16d7 020000 acs=no", "0000:00:02.1 14e4:16d7 020000 acs=no"],
            [["0000:00:02.0", "0000:00:02.1"]],
        ),
        # Only functions without ACS are in the group of the slot.
        (
            [
                "0000:00:02.0 14e4:16d7 020000 acs=no",
                "0000:00:02.1 14e4:16d7 020000",
                "0000:00:02.2 14e4:16d7 020000 acs=no",
                "0000:00:03.0 14e4:16d7 020000 acs=no",
            ],
            [["0000:00:02.0", "0000:00:02.2"], ["0000:00:02.1"], ["0000:00:03.0"]],
        ),
        # Below a bridge without ACS, whatever the functions have.
        ([PORT + " acs=no", E1000E], [["0000:00:01.0", "0000:01:00.0"]]),
        # Also if a bridge with ACS is in between.
        (
            [
                PORT + " acs=no",
                "0000:01:00.0 1b36:000c 060400 bus=02",
                "0000:02:00.0 8086:10d3 020000",
                "0000:00:02.0 1b36:000c 060400 bus=03",
                "0000:03:00.0 8086:10d3 020000",
            ],
            [
                ["0000:00:01.0", "0000:01:00.0", "0000:02:00.0"],
                ["0000:00:02.0"],
                ["0000:03:00.0"],
            ],
        ),
        (
            [
                PORT,
                E1000E + " iommu_group=a",
                SECOND,
                "0000:02:00.0 1a03:2000 030000 iommu_group=a",
            ],
            [["0000:00:01.0"], ["0000:00:02.0"], ["0000:01:00.0", "0000:02:00.0"]],
        ),
        ([PORT, E1000E + " iommu_group=none"], [["0000:00:01.0"]]),
    ],
)
def test_access_control_decides_which_functions_share_a_group(
    lines: Sequence[str], expected: list[list[str]]
) -> None:
    assert groups(booted(*lines)) == expected


def test_groups_exist_without_any_driver() -> None:
    machine = booted(PORT, E1000E, more="natives: none\n")
    assert driver_of(machine, "0000:01:00.0") is None
    assert group_of(machine, "0000:01:00.0") == "1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["0000:00:02.0 1b36:0010 010802 driver=nvme vfs=2"],
            [["0000:00:02.0"], ["0000:00:02.1"], ["0000:00:02.2"]],
        ),
        (
            [PORT + " acs=no", "0000:01:00.0 1b36:0010 010802 driver=nvme vfs=2"],
            [["0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0000:01:00.2"]],
        ),
        (["0000:00:02.0 1b36:0010 010802 driver=nvme vfs=2 iommu_group=none"], []),
    ],
)
def test_the_bridge_above_decides_the_groups_of_virtual_functions(
    lines: Sequence[str], expected: list[list[str]]
) -> None:
    machine = booted(*lines)
    physical = lines[-1].split()[0]
    before = groups(machine)
    assert write(machine, f"bus/pci/devices/{physical}/sriov_numvfs", "2") == 0
    assert groups(machine) == expected
    assert write(machine, f"bus/pci/devices/{physical}/sriov_numvfs", "0") == 0
    assert groups(machine) == before
