"""Virtual functions appear, are probed and vanish as in drivers/pci/iov.c of Linux 6.12."""

from __future__ import annotations

import errno
import threading

import pytest
from pci_boards import board_with_hosts, booted, content, device, driver_of, give_to_vfio, write

from extensions.simulator.machine import Machine
from extensions.simulator.tree import File

PF = "0000:00:02.0"
VFS = ["0000:00:02.2", "0000:00:02.3"]
IXGBE = f"{PF} 8086:1563 020000 driver=ixgbe vfs=4 vf_device=1565 vf_driver=ixgbevf vf_offset=2"
NVME = f"{PF} 1b36:0010 010802 driver=nvme vfs=4 vf_offset=2"
NUMBER = f"{device(PF)}/sriov_numvfs"


@pytest.fixture
def machine() -> Machine:
    return booted(IXGBE)


def virtual(machine: Machine) -> list[str]:
    return [name for name in machine.tree.names("bus/pci/devices") if name != PF]


def events_of(machine: Machine) -> list[tuple[str, str]]:
    """Return a list to which each event is added from now on: action and device."""
    events: list[tuple[str, str]] = []
    machine.kernel.send_event = lambda action, source: events.append((action, source.name))
    return events


def test_a_physical_function_shows_its_capability(machine: Machine) -> None:
    shown = {
        name: content(machine, f"{device(PF)}/sriov_{name}")
        for name in ("totalvfs", "numvfs", "offset", "stride", "vf_device", "drivers_autoprobe")
    }
    assert shown == {
        "totalvfs": "4\n",
        "numvfs": "0\n",
        "offset": "2\n",
        "stride": "1\n",
        "vf_device": "1565\n",
        "drivers_autoprobe": "1\n",
    }


def test_a_function_without_the_capability_has_no_such_file() -> None:
    machine = booted(f"{PF} 8086:10d3 020000")
    assert not [name for name in machine.tree.names(device(PF)) if name.startswith("sriov")]


def test_virtual_functions_appear_beside_the_physical_one_and_are_probed(machine: Machine) -> None:
    assert write(machine, NUMBER, "2\n") == 0
    assert content(machine, NUMBER) == "2\n"
    assert virtual(machine) == VFS
    assert machine.tree.resolve(device(VFS[1])) == f"devices/pci0000:00/{VFS[1]}"
    for number, address in enumerate(VFS):
        assert (
            machine.tree.resolve(f"{device(PF)}/virtfn{number}") == f"devices/pci0000:00/{address}"
        )
        assert machine.tree.resolve(f"{device(address)}/physfn") == f"devices/pci0000:00/{PF}"
        assert driver_of(machine, address) == "ixgbevf"
        assert content(machine, f"{device(address)}/device") == "0x1565\n"
        assert content(machine, f"{device(address)}/class") == "0x020000\n"
        names = machine.tree.names(device(address))
        assert not [name for name in names if name.startswith("sriov")]
    config = machine.tree.read(f"{device(VFS[0])}/config") or b""
    assert config[:4] == b"\xff\xff\xff\xff"


def test_below_a_bridge_they_have_the_parent_of_the_physical_function() -> None:
    machine = booted(
        "0000:00:01.0 1b36:000c 060400 bus=01-02",
        "0000:01:00.0 8086:1563 020000 driver=ixgbe vfs=2 vf_offset=256 vf_stride=2",
    )
    assert write(machine, f"{device('0000:01:00.0')}/sriov_numvfs", "2") == 0
    homes = [machine.tree.resolve(device(f"0000:02:00.{number}")) for number in (0, 2)]
    assert homes == [
        "devices/pci0000:00/0000:00:01.0/0000:02:00.0",
        "devices/pci0000:00/0000:00:01.0/0000:02:00.2",
    ]


def test_virtual_functions_provide_what_is_described(machine: Machine) -> None:
    machine = booted(IXGBE, carries=[f"{VFS[0]} eth4", f"{PF} eth0 up"])
    assert machine.tree.names("class/net") == ["eth0"]
    write(machine, NUMBER, "1")
    assert machine.tree.names("class/net") == ["eth0", "eth4"]
    write(machine, NUMBER, "0")
    assert machine.tree.names("class/net") == ["eth0"]


def test_zero_removes_them(machine: Machine) -> None:
    before = machine.tree.names(device(PF))
    write(machine, NUMBER, "4")
    assert len(virtual(machine)) == 4
    assert write(machine, NUMBER, "0") == 0
    assert virtual(machine) == []
    assert machine.tree.names(device(PF)) == before
    assert machine.tree.names("devices/pci0000:00") == [PF]


def test_the_events_are_those_of_the_kernel_in_its_order(machine: Machine) -> None:
    events = events_of(machine)
    write(machine, NUMBER, "2")
    appear = [
        *(("add", VFS[0]), ("change", VFS[0]), ("bind", VFS[0])),
        *(("add", VFS[1]), ("change", VFS[1]), ("bind", VFS[1])),
        ("change", PF),
    ]
    assert events == appear
    events.clear()
    write(machine, NUMBER, "0")
    vanish = [("unbind", VFS[0]), ("remove", VFS[0]), ("unbind", VFS[1]), ("remove", VFS[1])]
    assert events == vanish


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5", errno.ERANGE),
        ("65535", errno.ERANGE),
        ("65536", errno.EINVAL),
        ("-1", errno.EINVAL),
        ("many", errno.EINVAL),
        ("", errno.EINVAL),
        ("1 2", errno.EINVAL),
        ("2\n\n", errno.EINVAL),
        ("0x2\n", 0),
        ("02", 0),
        ("+2", 0),
    ],
)
def test_a_number_is_read_as_kstrtou16_does(machine: Machine, text: str, code: int) -> None:
    assert write(machine, NUMBER, text) == code
    assert len(virtual(machine)) == (0 if code else 2)


def test_another_number_needs_zero_first(machine: Machine) -> None:
    write(machine, NUMBER, "2")
    events = events_of(machine)
    assert write(machine, NUMBER, "3") == errno.EBUSY
    assert write(machine, NUMBER, "1") == errno.EBUSY
    assert write(machine, NUMBER, "5") == errno.ERANGE
    assert write(machine, NUMBER, "2") == 0
    assert events == []
    assert virtual(machine) == VFS


def test_without_a_driver_only_the_present_number_is_accepted(machine: Machine) -> None:
    write(machine, "bus/pci/drivers/ixgbe/unbind", PF)
    assert write(machine, NUMBER, "2") == errno.ENOENT
    assert write(machine, NUMBER, "5") == errno.ERANGE
    assert write(machine, NUMBER, "0") == 0


def test_a_driver_without_sriov_configure_creates_none() -> None:
    driver = "drivers: [{name: acme, bus: pci, pci_ids: ['8086:1563']}]\n"
    machine = booted(IXGBE, more=driver)
    assert driver_of(machine, PF) == "acme"
    assert write(machine, NUMBER, "2") == errno.ENOENT


@pytest.mark.parametrize(("sriov", "left"), [("removed", []), ("kept", VFS)])
def test_a_described_driver_removes_or_keeps_them(sriov: str, left: list[str]) -> None:
    driver = f"drivers: [{{name: acme, bus: pci, pci_ids: ['8086:1563'], sriov: {sriov}}}]\n"
    machine = booted(IXGBE, more=driver)
    assert write(machine, NUMBER, "2") == 0
    write(machine, "bus/pci/drivers/acme/unbind", PF)
    assert virtual(machine) == left


def test_they_vanish_with_the_driver_of_the_physical_function(machine: Machine) -> None:
    write(machine, NUMBER, "2")
    events = events_of(machine)
    assert write(machine, "bus/pci/drivers/ixgbe/unbind", PF) == 0
    assert virtual(machine) == []
    assert content(machine, NUMBER) == "0\n"
    assert events[-1] == ("unbind", PF)
    assert ("remove", VFS[1]) in events
    write(machine, "bus/pci/drivers/ixgbe/bind", PF)
    assert virtual(machine) == []


def test_nvme_leaves_them_enabled() -> None:
    """Its remove does not call pci_disable_sriov: "driver left SR-IOV enabled after remove"."""
    machine = booted(NVME)
    write(machine, NUMBER, "2")
    assert write(machine, "bus/pci/drivers/nvme/unbind", PF) == 0
    assert virtual(machine) == VFS
    assert driver_of(machine, VFS[0]) == "nvme"
    assert content(machine, NUMBER) == "2\n"
    assert write(machine, NUMBER, "0") == errno.ENOENT
    assert give_to_vfio(machine, PF) == errno.EBUSY
    write(machine, f"{device(PF)}/driver_override", "\n")
    assert write(machine, "bus/pci/drivers/nvme/bind", PF) == 0
    assert write(machine, NUMBER, "0") == 0
    assert virtual(machine) == []


def test_a_driver_without_sriov_does_not_remove_what_another_one_left() -> None:
    machine = booted(NVME, more="drivers: [{name: acme, bus: pci}]\n")
    write(machine, NUMBER, "2")
    write(machine, "bus/pci/drivers/nvme/unbind", PF)
    write(machine, f"{device(PF)}/driver_override", "acme")
    assert write(machine, "bus/pci/drivers/acme/bind", PF) == 0
    assert write(machine, "bus/pci/drivers/acme/unbind", PF) == 0
    assert virtual(machine) == VFS


def test_without_autoprobe_they_come_without_a_driver(machine: Machine) -> None:
    autoprobe = f"{device(PF)}/sriov_drivers_autoprobe"
    assert write(machine, autoprobe, "maybe") == errno.EINVAL
    assert write(machine, autoprobe, "0\n") == 0
    assert content(machine, autoprobe) == "0\n"
    write(machine, NUMBER, "2")
    assert [driver_of(machine, address) for address in VFS] == [None, None]
    assert write(machine, "bus/pci/drivers/ixgbevf/bind", VFS[0]) == errno.ENODEV
    assert write(machine, "bus/pci/drivers_probe", VFS[0]) == 0
    assert driver_of(machine, VFS[0]) is None
    # A function with an override is probed all the same.
    write(machine, f"{device(VFS[0])}/driver_override", "ixgbevf")
    assert write(machine, "bus/pci/drivers_probe", VFS[0]) == 0
    assert driver_of(machine, VFS[0]) == "ixgbevf"
    assert write(machine, autoprobe, "y") == 0
    assert write(machine, "bus/pci/drivers_probe", VFS[1]) == 0
    assert driver_of(machine, VFS[1]) == "ixgbevf"


def test_drivers_autoprobe_of_the_bus_does_not_keep_them_from_drivers(machine: Machine) -> None:
    """pci_bus_add_device calls device_attach, which does not read it."""
    assert write(machine, "bus/pci/drivers_autoprobe", "0") == 0
    write(machine, NUMBER, "1")
    assert driver_of(machine, VFS[0]) == "ixgbevf"


def test_an_override_ends_with_its_function(machine: Machine) -> None:
    write(machine, NUMBER, "1")
    write(machine, f"{device(VFS[0])}/driver_override", "none")
    write(machine, NUMBER, "0")
    write(machine, NUMBER, "1")
    assert content(machine, f"{device(VFS[0])}/driver_override") == "(null)\n"
    assert driver_of(machine, VFS[0]) == "ixgbevf"


def test_their_removal_waits_for_user_space(machine: Machine) -> None:
    write(machine, NUMBER, "2")
    assert give_to_vfio(machine, VFS[1]) == 0
    node = machine.vfio.nodes.find("devices/vfio0")
    assert isinstance(node, File)
    node.opened = 1
    unbinding = threading.Thread(
        target=write, args=(machine, "bus/pci/drivers/ixgbe/unbind", PF), daemon=True
    )
    with machine.kernel.changed:
        unbinding.start()
        # The writer hangs in the remove of the physical function, which shows no driver any more.
        assert machine.kernel.changed.wait_for(
            lambda: driver_of(machine, VFS[1]) is None, timeout=10
        )
        assert virtual(machine) == [VFS[1]]
        assert driver_of(machine, PF) is None
        node.opened = 0
        machine.kernel.changed.notify_all()
    unbinding.join(10)
    assert not unbinding.is_alive()
    assert virtual(machine) == []


def test_vfio_pci_creates_them_only_if_its_parameter_allows_it(machine: Machine) -> None:
    assert give_to_vfio(machine, PF) == 0
    assert write(machine, NUMBER, "2") == errno.ENOENT
    assert write(machine, "module/vfio_pci/parameters/enable_sriov", "1") == 0
    assert write(machine, NUMBER, "2") == 0
    # The core captures them (vfio_pci_bus_notifier).
    assert [driver_of(machine, address) for address in VFS] == ["vfio-pci", "vfio-pci"]
    assert content(machine, f"{device(VFS[0])}/driver_override") == "vfio-pci\n"
    assert write(machine, "bus/pci/drivers/vfio-pci/unbind", PF) == 0
    assert virtual(machine) == []


def test_they_go_with_the_host_bridge_of_the_physical_function() -> None:
    machine = booted(NVME, root=board_with_hosts())
    write(machine, NUMBER, "2")
    events = events_of(machine)
    assert write(machine, "bus/platform/drivers/pci-host-ecam-generic/unbind", "4010.pcie") == 0
    assert machine.tree.names("bus/pci/devices") == []
    removed = [name for action, name in events if action == "remove"]
    assert removed == [*VFS, PF]
