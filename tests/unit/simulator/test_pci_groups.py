"""IOMMU groups of PCI functions, as pci_device_group of Linux 6.12 makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pci_boards import (
    E1000E,
    PORT,
    booted,
    device,
    driver_of,
    give_to_vfio,
    group_of,
    write,
)

from extensions.simulator.machine import Machine

NIC = "0000:01:00.0"
E1000E_ON_ROOT = "0000:00:02.0 8086:10d3 020000 driver=none"
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


def test_a_function_has_no_group_before_its_first_probe() -> None:
    machine = booted(PORT, E1000E, more="natives: none\n")
    assert machine.tree.names("kernel/iommu_groups") == []
    assert write(machine, "bus/pci/drivers_probe", NIC) == 0
    assert group_of(machine, NIC) is None
    assert give_to_vfio(machine, NIC) == 0
    assert group_of(machine, NIC) == "0"
    assert write(machine, "bus/pci/drivers/vfio-pci/unbind", NIC) == 0
    assert group_of(machine, NIC) == "0"


def test_a_probe_that_fails_is_enough() -> None:
    driver = "drivers: [{name: acme, bus: pci, pci_ids: ['8086:10d3'], probe: EIO}]\n"
    machine = booted(E1000E_ON_ROOT, more=driver)
    assert driver_of(machine, "0000:00:02.0") is None
    assert group_of(machine, "0000:00:02.0") == "0"


def test_since_linux_7_groups_exist_without_any_driver() -> None:
    machine = booted(PORT, E1000E, more="natives: none\nkernel: {groups_at_boot: true}\n")
    assert driver_of(machine, NIC) is None
    assert groups(machine) == [["0000:00:01.0"], [NIC]]


def test_a_bridge_whose_group_came_later_does_not_share_it() -> None:
    """pci_device_group looks for existing groups alone."""
    machine = booted(PORT + " acs=no driver=none", E1000E)
    assert groups(machine) == [[NIC]]
    write(machine, f"{device('0000:00:01.0')}/driver_override", "e1000e")
    assert write(machine, "bus/pci/drivers/e1000e/bind", "0000:00:01.0") == 0
    assert groups(machine) == [[NIC], ["0000:00:01.0"]]


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
