"""Functions that are removed and found again, as in drivers/pci/pci-sysfs.c of Linux 6.12."""

from __future__ import annotations

import errno

import pytest
from pci_boards import (
    E1000E,
    PORT,
    board_with_hosts,
    booted,
    content,
    device,
    driver_of,
    give_to_vfio,
    group_of,
    write,
)

from extensions.simulator.machine import Machine
from extensions.simulator.tree import File

BRIDGE, NIC = "0000:00:01.0", "0000:01:00.0"
RESCAN = "bus/pci/rescan"


@pytest.fixture
def machine() -> Machine:
    return booted(PORT, E1000E)


def functions(machine: Machine) -> list[str]:
    return machine.tree.names("bus/pci/devices")


def test_only_root_may_write_and_nobody_read(machine: Machine) -> None:
    files = [machine.tree.find(path) for path in (RESCAN, f"{device(NIC)}/remove")]
    assert [file.mode for file in files if isinstance(file, File)] == [0o200, 0o220]


def test_a_function_is_gone_until_the_next_rescan(machine: Machine) -> None:
    before = machine.tree.names(device(NIC))
    assert write(machine, f"{device(NIC)}/remove", "1\n") == 0
    assert functions(machine) == [BRIDGE]
    assert machine.tree.names("bus/pci/drivers/e1000e") == ["bind", "unbind"]
    assert write(machine, RESCAN, "1") == 0
    assert machine.tree.names(device(NIC)) == before
    assert driver_of(machine, NIC) == "e1000e"


def test_it_is_found_without_its_override(machine: Machine) -> None:
    write(machine, f"{device(NIC)}/driver_override", "none")
    write(machine, f"{device(NIC)}/remove", "1")
    write(machine, RESCAN, "1")
    assert content(machine, f"{device(NIC)}/driver_override") == "(null)\n"
    assert driver_of(machine, NIC) == "e1000e"


def test_drivers_autoprobe_of_the_bus_does_not_keep_it_from_its_driver(machine: Machine) -> None:
    write(machine, "bus/pci/drivers_autoprobe", "0")
    write(machine, f"{device(NIC)}/remove", "1")
    write(machine, RESCAN, "1")
    assert driver_of(machine, NIC) == "e1000e"


def test_what_is_below_a_bridge_goes_with_it(machine: Machine) -> None:
    events: list[tuple[str, str]] = []
    machine.kernel.send_event = lambda action, source: events.append((action, source.name))
    assert write(machine, f"{device(BRIDGE)}/remove", "1") == 0
    assert functions(machine) == []
    assert [name for action, name in events if action == "remove"] == [NIC, BRIDGE]
    assert write(machine, RESCAN, "1") == 0
    assert functions(machine) == [BRIDGE, NIC]
    assert (driver_of(machine, BRIDGE), driver_of(machine, NIC)) == ("pcieport", "e1000e")


def test_a_function_below_a_removed_bridge_is_not_found_without_it() -> None:
    machine = booted(PORT, E1000E, "0000:00:02.0 8086:10d3 020000 driver=e1000e")
    write(machine, f"{device(NIC)}/remove", "1")
    write(machine, f"{device(BRIDGE)}/remove", "1")
    assert functions(machine) == ["0000:00:02.0"]
    write(machine, RESCAN, "1")
    assert functions(machine) == [BRIDGE, "0000:00:02.0", NIC]


@pytest.mark.parametrize(
    ("text", "code"), [("0", 0), ("00\n", 0), ("x", errno.EINVAL), ("-1", errno.EINVAL)]
)
def test_zero_does_nothing_and_what_is_no_number_is_refused(
    machine: Machine, text: str, code: int
) -> None:
    before = functions(machine)
    assert write(machine, f"{device(NIC)}/remove", text) == code
    assert functions(machine) == before
    write(machine, f"{device(NIC)}/remove", "1")
    assert write(machine, RESCAN, text) == code
    assert functions(machine) == [BRIDGE]


def test_a_group_ends_with_its_last_function() -> None:
    machine = booted("0000:00:02.0 1234:11e8 00ff00 driver=none")
    assert give_to_vfio(machine, "0000:00:02.0") == 0
    assert group_of(machine, "0000:00:02.0") == "0"
    assert write(machine, f"{device('0000:00:02.0')}/remove", "1") == 0
    assert machine.tree.names("kernel/iommu_groups") == []
    assert machine.vfio.nodes.names("") == ["vfio"]
    write(machine, RESCAN, "1")
    assert group_of(machine, "0000:00:02.0") is None


def test_virtual_functions_have_no_such_file() -> None:
    machine = booted("0000:00:02.0 1b36:0010 010802 driver=nvme vfs=1")
    write(machine, f"{device('0000:00:02.0')}/sriov_numvfs", "1")
    assert "remove" not in machine.tree.names(device("0000:00:02.1"))


def test_no_function_is_found_below_a_host_bridge_without_a_driver() -> None:
    machine = booted(PORT, E1000E, root=board_with_hosts())
    assert write(machine, f"{device(NIC)}/remove", "1") == 0
    drivers = "bus/platform/drivers/pci-host-ecam-generic"
    assert write(machine, f"{drivers}/unbind", "4010.pcie") == 0
    write(machine, RESCAN, "1")
    assert functions(machine) == []
    assert write(machine, f"{drivers}/bind", "4010.pcie") == 0
    assert functions(machine) == [BRIDGE, NIC]


def test_a_board_without_functions_finds_none() -> None:
    machine = booted()
    assert write(machine, RESCAN, "1") == 0
    assert functions(machine) == []
