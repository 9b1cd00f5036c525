"""PCI functions in /sys: directories, attributes, events and native drivers, as in Linux 6.12."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest
from pci_boards import (
    E1000E,
    HOST,
    PORT,
    board_with_hosts,
    booted,
    content,
    device,
    driver_of,
    error_of,
    write,
)

from extensions.simulator import description
from extensions.simulator.devicetree import Node
from extensions.simulator.machine import Machine

NVME = "0000:00:02.0 1b36:0010 010802 driver=nvme"
README = Path(description.__file__).with_name("README.md").read_text()


@pytest.fixture
def machine() -> Machine:
    return booted(PORT, E1000E)


def test_a_function_is_below_the_bridge_that_leads_to_its_bus(machine: Machine) -> None:
    home = "devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    assert machine.tree.resolve(device("0000:01:00.0")) == home
    assert machine.tree.resolve(f"{home}/subsystem") == "bus/pci"


def test_identifiers_are_hexadecimal_numbers(machine: Machine) -> None:
    expected = {
        "vendor": "0x8086",
        "device": "0x10d3",
        "subsystem_vendor": "0x8086",
        "subsystem_device": "0xa01f",
        "class": "0x020000",
        "revision": "0x00",
        "modalias": "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00",
        "numa_node": "-1",
    }
    shown = {name: content(machine, f"{device('0000:01:00.0')}/{name}") for name in expected}
    assert shown == {name: f"{value}\n" for name, value in expected.items()}


def test_an_event_has_the_properties_of_pci_uevent(machine: Machine) -> None:
    assert content(machine, f"{device('0000:01:00.0')}/uevent") == (
        "DRIVER=e1000e\n"
        "PCI_CLASS=20000\n"
        "PCI_ID=8086:10D3\n"
        "PCI_SUBSYS_ID=8086:A01F\n"
        "PCI_SLOT_NAME=0000:01:00.0\n"
        "MODALIAS=pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00\n"
    )


def test_a_bridge_names_its_buses_and_is_bound_to_pcieport() -> None:
    below = ("0000:01:00.0 1b36:000c 060400 bus=02", "0000:02:00.0 8086:10d3 020000")
    machine = booted(PORT, *below, "0000:00:02.0 1b36:000c 060400 bus=05-07")
    assert driver_of(machine, "0000:00:01.0") == "pcieport"
    numbers = {
        address: tuple(
            content(machine, f"{device(address)}/{name}_bus_number")
            for name in ("secondary", "subordinate")
        )
        for address in ("0000:00:01.0", "0000:01:00.0", "0000:00:02.0")
    }
    assert numbers == {
        "0000:00:01.0": ("1\n", "2\n"),
        "0000:01:00.0": ("2\n", "2\n"),
        "0000:00:02.0": ("5\n", "7\n"),
    }
    assert not machine.tree.lookup("devices/pci0000:00/0000:00:02.0/reset_method")


def test_a_function_is_bound_to_the_driver_of_its_line_or_to_one_named_after_its_id() -> None:
    machine = booted(
        PORT,
        E1000E,
        "0000:00:02.0 10ec:8168 020000",
        "0000:00:03.0 10ec:8168 020000 driver=none",
    )
    assert driver_of(machine, "0000:01:00.0") == "e1000e"
    assert driver_of(machine, "0000:00:02.0") == "10ec-8168"
    assert driver_of(machine, "0000:00:03.0") is None


def test_without_native_drivers_no_function_is_bound() -> None:
    assert driver_of(booted(PORT, E1000E, more="natives: none\n"), "0000:01:00.0") is None


@pytest.mark.parametrize(
    ("identifier", "is_bound"),
    [
        ("8086:10d3", True),
        ("8086:*", True),
        ("8086:10d3:8086:a01f", True),
        ("8086:10d3:8086:0001", False),
        ("8086:10d4", False),
        ("020000", True),
        ("010802", False),
    ],
)
def test_a_described_driver_matches_by_id_or_class(identifier: str, is_bound: bool) -> None:
    driver = f"drivers: [{{name: acme, bus: pci, pci_ids: ['{identifier}']}}]\n"
    machine = booted(PORT, E1000E.replace("driver=e1000e", ""), more=driver)
    assert (driver_of(machine, "0000:01:00.0") == "acme") is is_bound


def test_a_driver_in_a_module_is_loaded_by_the_modalias_of_the_function() -> None:
    driver = "drivers: [{name: e1000e, bus: pci, pci_ids: ['8086:10d3'], module: e1000e}]\n"
    machine = booted(PORT, E1000E, more=driver)
    assert driver_of(machine, "0000:01:00.0") is None
    modalias = content(machine, f"{device('0000:01:00.0')}/modalias").strip()
    assert machine.modules.modprobe(["-R", modalias], "").output == "e1000e\n"
    assert machine.modules.modinfo(["--field=alias", "--", "e1000e"]).output == (
        "pci:v00008086d000010D3sv*sd*bc*sc*i*\n"
    )
    assert machine.modules.modprobe([modalias], "").code == 0
    assert driver_of(machine, "0000:01:00.0") == "e1000e"


def test_a_line_and_a_driver_of_the_same_name_must_fit() -> None:
    driver = "drivers: [{name: e1000e, bus: pci, module: e1000e}]\n"
    message = error_of(PORT, E1000E, more=driver)
    assert message.startswith(f"line 3: '{E1000E}' has driver=e1000e, but the driver of this name")


def test_the_override_has_the_semantics_of_other_buses(machine: Machine) -> None:
    override = f"{device('0000:01:00.0')}/driver_override"
    assert content(machine, override) == "(null)\n"
    assert write(machine, override, "none") == 0
    assert driver_of(machine, "0000:01:00.0") == "e1000e"
    assert write(machine, "bus/pci/drivers/e1000e/unbind", "0000:01:00.0") == 0
    assert write(machine, "bus/pci/drivers_probe", "0000:01:00.0") == 0
    assert write(machine, "bus/pci/drivers/e1000e/bind", "0000:01:00.0") == errno.ENODEV
    assert driver_of(machine, "0000:01:00.0") is None
    assert write(machine, override, "\n") == 0
    assert content(machine, override) == "(null)\n"
    assert write(machine, "bus/pci/drivers_probe", "0000:01:00.0") == 0
    assert driver_of(machine, "0000:01:00.0") == "e1000e"


def test_the_header_of_the_configuration_space_tells_bridges_and_slots(machine: Machine) -> None:
    headers = {
        address: machine.tree.read(f"{device(address)}/config") or b""
        for address in ("0000:00:01.0", "0000:01:00.0")
    }
    assert headers["0000:01:00.0"][:4] == bytes.fromhex("8680d310")
    assert headers["0000:01:00.0"][0x2C:0x30] == bytes.fromhex("86801fa0")
    assert {address: header[0x0E] for address, header in headers.items()} == {
        "0000:00:01.0": 1,
        "0000:01:00.0": 0,
    }
    assert headers["0000:00:01.0"][0x18:0x1B] == bytes((0, 1, 1))
    two = booted("0000:00:02.0 14e4:16d7 020000", "0000:00:02.1 14e4:16d7 020000")
    assert (two.tree.read(f"{device('0000:00:02.1')}/config") or b"")[0x0E] == 0x80


def test_reset_methods_are_those_of_the_line_and_can_be_restricted() -> None:
    machine = booted(
        "0000:00:02.0 8086:10d3 020000 reset=flr,bus",
        "0000:00:03.0 8086:10d3 020000 reset=none",
        "0000:00:04.0 8086:10d3 020000",
    )
    methods = f"{device('0000:00:02.0')}/reset_method"
    assert content(machine, methods) == "flr bus\n"
    assert write(machine, methods, "bus\n") == 0
    assert content(machine, methods) == "bus\n"
    assert write(machine, methods, "pm") == errno.EINVAL
    assert write(machine, methods, "\n") == 0
    assert content(machine, methods) == ""
    assert write(machine, methods, "default") == 0
    assert content(machine, methods) == "flr bus\n"
    assert "reset_method" not in machine.tree.names(device("0000:00:03.0"))
    assert content(machine, f"{device('0000:00:04.0')}/reset_method") == "flr\n"


def test_the_power_state_of_an_unbound_function_is_unknown(machine: Machine) -> None:
    state = f"{device('0000:01:00.0')}/power_state"
    assert content(machine, state) == "D0\n"
    write(machine, "bus/pci/drivers/e1000e/unbind", "0000:01:00.0")
    assert content(machine, state) == "unknown\n"


def test_the_first_vga_device_is_that_of_the_boot() -> None:
    machine = booted(
        "0000:00:02.0 1a03:2000 030000",
        "0000:00:03.0 10de:2342 030000",
        "0000:00:04.0 8086:10d3 020000",
    )
    shown = {
        address: content(machine, f"{device(address)}/boot_vga")
        for address in ("0000:00:02.0", "0000:00:03.0")
    }
    assert shown == {"0000:00:02.0": "1\n", "0000:00:03.0": "0\n"}
    assert "boot_vga" not in machine.tree.names(device("0000:00:04.0"))


def test_an_interface_is_below_its_function_while_that_is_bound() -> None:
    machine = booted(PORT, E1000E, carries=["0000:01:00.0 eth0 up 192.0.2.7/24 default"])
    home = "devices/pci0000:00/0000:00:01.0/0000:01:00.0/net/eth0"
    assert machine.tree.resolve("class/net/eth0") == home
    assert [interface.name for interface in machine.interfaces()] == ["eth0"]
    write(machine, "bus/pci/drivers/e1000e/unbind", "0000:01:00.0")
    assert machine.tree.names("class/net") == []


def test_a_disk_of_nvme_is_below_its_controller() -> None:
    machine = booted(NVME, carries=["0000:00:02.0 nvme0n1p1 /boot", "0000:00:02.0 nvme0n1p2 /"])
    home = "devices/pci0000:00/0000:00:02.0"
    before = machine.tree.names(home)
    assert machine.tree.resolve("class/nvme/nvme0") == f"{home}/nvme/nvme0"
    assert machine.tree.resolve("block/nvme0n1") == f"{home}/nvme/nvme0/nvme0n1"
    assert machine.tree.resolve("class/block/nvme0n1p2") == (f"{home}/nvme/nvme0/nvme0n1/nvme0n1p2")
    assert machine.tree.resolve(f"{home}/nvme/nvme0/nvme0n1/device") == f"{home}/nvme/nvme0"
    machine.kernel.provided.mount_number = {"/": "0:50"}.get
    assert content(machine, "class/block/nvme0n1p2/dev") == "0:50\n"
    assert machine.mount_points() == ["/boot"]
    write(machine, "bus/pci/drivers/nvme/unbind", "0000:00:02.0")
    for directory in ("block", "class/block", "class/nvme"):
        assert machine.tree.names(directory) == []
    write(machine, "bus/pci/drivers/nvme/bind", "0000:00:02.0")
    assert machine.tree.names(home) == before
    assert machine.tree.names("class/block") == ["nvme0n1", "nvme0n1p1", "nvme0n1p2"]


def test_a_domain_can_have_several_root_buses() -> None:
    machine = booted(
        "pci0000:7c", "0000:7c:00.0 19e5:a121 060400 bus=7d", "0000:7d:00.0 19e5:a222 020000"
    )
    assert machine.tree.resolve(device("0000:7d:00.0")) == (
        "devices/pci0000:7c/0000:7c:00.0/0000:7d:00.0"
    )
    other = booted("0001:00:00.0 8086:10d3 020000")
    assert other.tree.resolve(device("0001:00:00.0")) == "devices/pci0001:00/0001:00:00.0"


def test_a_board_without_functions_has_an_empty_bus() -> None:
    machine = booted()
    assert machine.tree.names("bus/pci/devices") == []
    assert not machine.tree.find("devices/pci0000:00")


# Boards with ACPI.


def test_functions_and_root_bus_have_nodes_in_the_namespace() -> None:
    machine = booted(
        r"pci0000:00 acpi_path=\_SB.PCI0",
        PORT + r" acpi_path=\_SB.PCI0.RP01",
        E1000E + r" acpi_path=\_SB.PCI0.RP01.ETH0",
        devices=[r"\_SB.PCI0.RP01.ETH0 ACME0001"],
    )
    system = "devices/LNXSYSTM:00/LNXSYBUS:00/PNP0A08:00"
    assert machine.tree.resolve("devices/pci0000:00/firmware_node") == system
    assert machine.tree.resolve(f"{system}/physical_node") == "devices/pci0000:00"
    port = f"{device('0000:00:01.0')}/firmware_node"
    assert machine.tree.resolve(port) == f"{system}/device:00"
    assert content(machine, f"{port}/path") == "\\_SB_.PCI0.RP01\n"
    assert content(machine, f"{port}/adr") == "0x00010000\n"
    assert machine.tree.names(port) == [
        "ACME0001:00",
        "adr",
        "path",
        "physical_node",
        "subsystem",
        "uevent",
    ]
    function = f"{device('0000:01:00.0')}/firmware_node"
    assert content(machine, f"{function}/hid") == "ACME0001\n"
    # acpi_create_platform_device skips a node that already has a device.
    assert "ACME0001:00" not in machine.tree.names("bus/platform/devices")


def test_a_line_can_name_a_function_by_its_acpi_path() -> None:
    machine = booted(PORT, E1000E + r" acpi_path=\_SB.ETH0", carries=[r"\_SB.ETH0 eth0 up"])
    assert machine.tree.names("class/net") == ["eth0"]


def test_functions_in_groups_are_behind_an_smmu() -> None:
    assert booted(PORT, E1000E).tree.names("class/iommu") == ["smmu3.0x0000000009050000"]
    ungrouped = booted("0000:00:02.0 8086:10d3 020000 iommu_group=none")
    assert ungrouped.tree.names("class/iommu") == []
    # The nodes of a device tree decide which IOMMUs a board has.
    machine = booted(PORT, E1000E, root=board_with_hosts())
    assert machine.tree.names("class/iommu") == []
    assert machine.tree.resolve(f"{device('0000:01:00.0')}/iommu_group")


# Boards with a device tree.


def test_functions_are_below_the_platform_device_of_their_host_bridge() -> None:
    machine = booted(PORT, E1000E, root=board_with_hosts())
    host = "devices/platform/4010.pcie"
    root = f"{host}/pci0000:00"
    assert machine.tree.resolve(device("0000:01:00.0")) == f"{root}/0000:00:01.0/0000:01:00.0"
    assert machine.tree.resolve(f"{root}/of_node") == f"firmware/devicetree/base{HOST}"


def test_a_function_has_the_node_whose_reg_matches() -> None:
    machine = booted(
        PORT,
        E1000E,
        "0000:00:02.0 8086:10d3 020000",
        root=board_with_hosts(),
        carries=["ethernet7 eth0 up"],
    )
    path = f"{HOST}/pcie@1,0/ethernet@0,0"
    base = "firmware/devicetree/base"
    assert machine.tree.resolve(f"{device('0000:01:00.0')}/of_node") == base + path
    assert machine.tree.resolve(f"{device('0000:00:01.0')}/of_node") == f"{base}{HOST}/pcie@1,0"
    assert not machine.tree.find(f"{device('0000:00:02.0')}/of_node")
    uevent = content(machine, f"{device('0000:01:00.0')}/uevent").splitlines()
    assert uevent[1:6] == [
        "OF_NAME=ethernet",
        f"OF_FULLNAME={path}",
        "OF_COMPATIBLE_0=pci8086,10d3",
        "OF_COMPATIBLE_N=1",
        "OF_ALIAS_0=ethernet7",
    ]
    assert uevent[-1].startswith("MODALIAS=pci:v00008086")
    assert machine.tree.names("class/net") == ["eth0"]


def test_nodes_without_reg_are_skipped_and_those_of_multifunction_devices_are_searched() -> None:
    root = board_with_hosts()
    host = next(node for node in root.children if node.path == HOST)
    for name, reg in (("legacy", None), ("multifunc-device", None), ("usb@0,1", 0x100)):
        parent = host.children[-1] if reg else host
        node = Node(name, f"{parent.path}/{name}", parent)
        if reg:
            node.properties["reg"] = struct.pack(">I", reg) + bytes(16)
        parent.children.append(node)
    machine = booted("0000:00:00.0 1b21:2142 0c0330", "0000:00:00.1 1b21:2142 0c0330", root=root)
    nodes = [machine.tree.resolve(f"{device(f'0000:00:00.{n}')}/of_node") for n in (0, 1)]
    assert nodes == [None, f"firmware/devicetree/base{HOST}/multifunc-device/usb@0,1"]


def test_no_driver_matches_a_function_whose_node_is_disabled() -> None:
    machine = booted(PORT, E1000E, root=board_with_hosts(status="disabled"))
    assert driver_of(machine, "0000:01:00.0") is None
    assert write(machine, "bus/pci/drivers/e1000e/bind", "0000:01:00.0") == errno.ENODEV


def test_functions_go_with_the_driver_of_their_host_bridge_and_come_with_it() -> None:
    machine = booted(PORT, E1000E, root=board_with_hosts(), carries=["0000:01:00.0 eth0 up"])
    drivers = "bus/platform/drivers/pci-host-ecam-generic"
    write(machine, f"{device('0000:01:00.0')}/driver_override", "none")
    assert write(machine, f"{drivers}/unbind", "4010.pcie") == 0
    assert machine.tree.names("bus/pci/devices") == []
    assert machine.tree.names("class/net") == []
    assert machine.tree.names("kernel/iommu_groups") == []
    assert not machine.tree.find("devices/platform/4010.pcie/pci0000:00")
    assert write(machine, f"{drivers}/bind", "4010.pcie") == 0
    assert driver_of(machine, "0000:01:00.0") == "e1000e"
    assert content(machine, f"{device('0000:01:00.0')}/driver_override") == "(null)\n"
    assert machine.tree.names("class/net") == ["eth0"]


def test_vfio_on_the_host_bridge_scans_no_bus() -> None:
    machine = booted(PORT, root=board_with_hosts(), more="natives: none\n")
    assert machine.tree.names("bus/pci/devices") == []
    assert machine.modules.modprobe(["vfio-platform", "reset_required=0"], "").code == 0
    write(machine, "module/vfio/parameters/enable_unsafe_noiommu_mode", "1")
    write(machine, "bus/platform/devices/4010.pcie/driver_override", "vfio-platform")
    assert write(machine, "bus/platform/drivers/vfio-platform/bind", "4010.pcie") == 0
    assert machine.tree.names("bus/pci/devices") == []
    assert write(machine, "bus/platform/drivers/vfio-platform/unbind", "4010.pcie") == 0


def test_of_several_host_bridges_the_line_of_the_root_bus_names_its_own() -> None:
    machine = booted("pci0000:00 dt_path=/pcie@1000", PORT, E1000E, root=board_with_hosts(2))
    assert machine.tree.resolve("bus/pci/devices/0000:00:01.0") == (
        "devices/platform/1000.pcie/pci0000:00/0000:00:01.0"
    )


@pytest.mark.parametrize(
    ("lines", "hosts", "message"),
    [
        (
            [PORT],
            2,
            f"dt_path=PATH', with one of these nodes: {HOST}, /pcie@1000",
        ),
        (
            ["pci0000:00 dt_path=/soc"],
            1,
            "line 2: 'pci0000:00 dt_path=/soc' has dt_path='/soc', which is no host bridge",
        ),
        (
            [f"pci0000:00 dt_path={HOST}", f"pci0000:80 dt_path={HOST}"],
            1,
            f"line 3: 'pci0000:80 dt_path={HOST}' has dt_path='{HOST}', which is no host bridge",
        ),
        ([PORT + r" acpi_path=\_SB.RP01"], 1, "has acpi_path=, but the board has no ACPI"),
    ],
)
def test_a_node_that_the_board_does_not_have_is_refused(
    lines: list[str], hosts: int, message: str
) -> None:
    assert message in error_of(*lines, root=board_with_hosts(hosts))


def test_a_path_of_a_device_tree_is_refused_on_a_board_with_acpi() -> None:
    message = error_of(f"pci0000:00 dt_path={HOST}", PORT)
    assert "has dt_path=, but the board has no device tree" in message


def test_the_example_of_the_readme_is_accepted() -> None:
    section = README.partition("## PCI functions\n")[2]
    lines = re.findall(r"```\n(.*?)```", section, re.DOTALL)[0].splitlines()
    machine = booted(*lines, carries=["0000:04:00.0 nvme0n1p2 /", "0000:02:00.2 eth4"])
    assert len(machine.tree.names("bus/pci/devices")) == len(lines) - 1
    assert driver_of(machine, "0000:02:00.0") == "mlx5_core"
