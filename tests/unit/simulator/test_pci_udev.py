"""The simulator's udev handles the events of PCI functions at boot, and of virtual functions."""

from __future__ import annotations

import pytest
from pci_boards import E1000E, PORT, booted, content, device, driver_of, write

from extensions.simulator.machine import Machine
from extensions.simulator.udev import Udev, event_of

NIC = "0000:01:00.0"
OTHER = "0000:00:02.0 8086:10d3 020000 driver=e1000e"
IXGBE = "0000:00:03.0 8086:1563 020000 driver=ixgbe vfs=2 vf_device=1565 vf_driver=ixgbevf"
MODALIAS = "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"


def boot(machine: Machine, *rules: str) -> None:
    """Handle the events of all devices, as udev does at boot."""
    Udev(machine, "\n".join(rules)).coldplug()


@pytest.mark.parametrize(
    "match",
    [
        f'KERNEL=="{NIC}"',
        'KERNEL=="0000:01:*"',
        'ENV{PCI_ID}=="8086:10D3", ENV{PCI_SUBSYS_ID}=="8086:A01F"',
        f'ENV{{PCI_SLOT_NAME}}=="{NIC}"',
        f'ENV{{MODALIAS}}=="{MODALIAS}"',
        'ENV{MODALIAS}=="pci:v00008086d000010D3sv00008086*"',
        'ATTR{vendor}=="0x8086", ATTR{device}=="0x10d3", ATTR{subsystem_device}=="0xa01f"',
        'ENV{PCI_CLASS}=="20000", DRIVER=="e1000e", ATTR{subsystem_vendor}=="0x8086"',
    ],
)
def test_a_rule_matches_a_function_at_boot(match: str) -> None:
    machine = booted(PORT, E1000E, OTHER)
    rule = f'ACTION=="add", SUBSYSTEM=="pci", {match}, ATTR{{driver_override}}="none"'
    Udev(machine, rule).coldplug()
    overrides = {
        address: content(machine, f"{device(address)}/driver_override")
        for address in (NIC, "0000:00:02.0", "0000:00:01.0")
    }
    assert overrides == {NIC: "none\n", "0000:00:02.0": "(null)\n", "0000:00:01.0": "(null)\n"}


def test_an_event_has_the_properties_of_the_kernel() -> None:
    machine = booted(PORT, E1000E)
    assert event_of("add", machine.kernel.devices["pci", NIC]).properties == {
        "DRIVER": "e1000e",
        "PCI_CLASS": "20000",
        "PCI_ID": "8086:10D3",
        "PCI_SUBSYS_ID": "8086:A01F",
        "PCI_SLOT_NAME": NIC,
        "MODALIAS": MODALIAS,
        "SUBSYSTEM": "pci",
    }


def test_coldplug_loads_the_module_of_a_function() -> None:
    driver = "drivers: [{name: e1000e, bus: pci, pci_ids: ['8086:10d3'], module: e1000e}]\n"
    machine = booted(PORT, E1000E, more=driver)
    assert driver_of(machine, NIC) is None
    Udev(machine, "").coldplug()
    assert driver_of(machine, NIC) == "e1000e"


def test_rules_move_a_function_to_vfio_at_boot() -> None:
    machine = booted(PORT, E1000E, OTHER)
    boot(
        machine,
        'ACTION!="add", GOTO="end"',
        'SUBSYSTEM!="pci", GOTO="end"',
        f'KERNEL!="{NIC}", GOTO="end"',
        'ATTR{driver_override}="vfio-pci"',
        'ATTR{driver/unbind}="$kernel"',
        'IMPORT{builtin}="kmod load vfio-pci"',
        'ATTR{subsystem/drivers_probe}="$kernel"',
        'LABEL="end"',
    )
    assert driver_of(machine, NIC) == "vfio-pci"
    assert driver_of(machine, "0000:00:02.0") == "e1000e"


def test_a_rule_creates_virtual_functions_and_handles_their_events() -> None:
    machine = booted(IXGBE)
    boot(
        machine,
        'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="0000:00:03.0", ATTR{sriov_numvfs}="2"',
        'SUBSYSTEM!="pci", GOTO="end"',
        'ENV{PCI_ID}=="8086:1565", TEST=="physfn", ATTR{driver_override}="none"',
        'ENV{PCI_ID}=="8086:1565", ATTR{driver/unbind}="$kernel"',
        'LABEL="end"',
    )
    virtual = ["0000:00:03.1", "0000:00:03.2"]
    assert machine.tree.names("bus/pci/devices") == ["0000:00:03.0", *virtual]
    assert [driver_of(machine, address) for address in virtual] == [None, None]
    assert driver_of(machine, "0000:00:03.0") == "ixgbe"


def test_a_change_event_follows_the_link_to_the_physical_function() -> None:
    machine = booted(IXGBE)
    boot(
        machine,
        'ACTION=="add", KERNEL=="0000:00:03.0", ATTR{sriov_numvfs}="1"',
        'ACTION=="change", SUBSYSTEM=="pci", KERNEL=="0000:00:03.1", ATTR{driver_override}="a"',
        'ACTION=="change", SUBSYSTEM=="pci", KERNEL=="0000:00:03.0", ATTR{driver_override}="b"',
    )
    assert content(machine, f"{device('0000:00:03.1')}/driver_override") == "a\n"
    assert content(machine, f"{device('0000:00:03.0')}/driver_override") == "b\n"


def test_a_removed_function_sends_remove_and_has_no_attributes() -> None:
    machine = booted(IXGBE)
    write(machine, f"{device('0000:00:03.0')}/sriov_numvfs", "1")
    # The rules below run on the events of the function that the first one removes.
    boot(
        machine,
        'ACTION=="add", KERNEL=="0000:00:03.0", ATTR{sriov_numvfs}="0"',
        'ACTION=="remove", KERNEL=="0000:00:03.1", ATTR{vendor}=="0x8086", RUN+="/bin/false"',
        'ACTION=="remove", ENV{PCI_ID}=="8086:1565", RUN+="/bin/mkdir -p -- /dev/vfio/gone"',
    )
    assert machine.tree.names("bus/pci/devices") == ["0000:00:03.0"]
    assert "gone" in machine.vfio.nodes.names("")
