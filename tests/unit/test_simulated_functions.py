"""The machine of unit tests can have PCI functions."""

from __future__ import annotations

import pytest
from board import Board
from simulated_kernel import BoardModule, Driver, coldplug

from extensions.simulator.errors import SimulatorError

PORT = "0000:00:01.0 1b36:000c 060400 bus=01-02"
NIC = "0000:01:00.0 8086:1563 020000 vfs=2 vf_device=1565"
PATH = "/pcie@40000000/ethernet@0,0"


def add_native_drivers(board: Board) -> None:
    ixgbe = Driver("ixgbe", "pci", pci_ids=("8086:1563",), module="ixgbe", sriov="removed")
    board.kmod.modules["ixgbe"] = BoardModule(name="ixgbe", drivers=(ixgbe,))
    board.kmod.load("ixgbe")


def test_functions_are_bound_to_registered_drivers(board: Board) -> None:
    add_native_drivers(board)
    board.kernel.add_functions(PORT, NIC)
    assert board.kernel.binding("0000:01:00.0") == ("ixgbe", None)
    assert board.kernel.driver_of("0000:00:01.0") == "pcieport"


def test_functions_can_be_added_below_an_earlier_bridge(board: Board) -> None:
    board.kernel.add_functions(PORT)
    add_native_drivers(board)
    board.kernel.add_functions(NIC)
    home = "devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    assert board.kernel.device("0000:01:00.0").home == home
    assert board.kernel.driver_of("0000:01:00.0") == "ixgbe"
    with pytest.raises(SimulatorError, match=r"describes 0000:01:00\.0 again"):
        board.kernel.add_functions(NIC)


def test_a_function_can_have_a_node(board: Board) -> None:
    board.kernel.add_alias("ethernet5", PATH)
    nodes = {"0000:01:00.0": (PATH, ("pci8086,1563",))}
    board.kernel.add_functions(PORT, NIC, nodes=nodes)
    function = board.kernel.device("0000:01:00.0")
    assert board.kernel.link_name(f"{function.home}/of_node") == "ethernet@0,0"
    assert board.kernel.read(f"{function.home}/of_node/compatible") == "pci8086,1563\0"
    uevent = (board.kernel.read(f"{function.home}/uevent") or "").splitlines()
    assert f"OF_FULLNAME={PATH}" in uevent
    assert "OF_ALIAS_0=ethernet5" in uevent


def test_virtual_functions_and_vfio_work_as_on_a_whole_machine(board: Board) -> None:
    add_native_drivers(board)
    board.kernel.add_functions(PORT, NIC)
    board.kernel.write("bus/pci/devices/0000:01:00.0/sriov_numvfs", "2")
    board.kmod.load("vfio-pci")
    board.kernel.write("bus/pci/devices/0000:01:00.1/driver_override", "vfio-pci")
    board.kernel.write("bus/pci/drivers_probe", "0000:01:00.1")
    assert board.kernel.binding("0000:01:00.1") == ("vfio-pci", "vfio-pci")
    assert len(board.nodes()) == 2
    board.kernel.write("bus/pci/drivers/ixgbe/unbind", "0000:01:00.0")
    assert board.nodes() == {}


def test_rules_run_for_functions(board: Board) -> None:
    add_native_drivers(board)
    board.kernel.add_functions(PORT, NIC)
    coldplug(
        board.kernel,
        board.kmod,
        'SUBSYSTEM=="pci", ATTR{device}=="0x1563", ATTR{driver_override}="a"',
    )
    assert board.kernel.override_of("0000:01:00.0") == "a"
    assert board.kernel.override_of("0000:00:01.0") is None
