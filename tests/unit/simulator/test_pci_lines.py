"""What is wrong with the lines of PCI functions is reported in one sentence."""

from __future__ import annotations

import time

import pytest
from pci_boards import E1000E, PORT, error_of

from extensions.simulator.description import Function, VirtualFunctions
from extensions.simulator.pci_ids import PciAddress, PciIdentity, alias
from extensions.simulator.pci_lines import parse_lines

NIC = "0000:00:02.0 15b3:101d 020000"


def parsed(line: str) -> Function:
    (function,) = parse_lines([("line 1", line)]).functions
    return function


def test_a_line_is_parsed_into_numbers() -> None:
    function = parsed(
        "0000:00:1f.0 15b3:101d:15b3:0008 020000 rev=1a driver=mlx5_core acs=no iommu_group=a "
        "reset=flr,bus vfs=8 vf_device=101e vf_offset=2 vf_stride=3 vf_driver=none"
    )
    assert function.address == PciAddress(0, 0, 0xF8)
    assert str(function.address) == "0000:00:1f.0"
    assert function.identity == PciIdentity(0x15B3, 0x101D, 0x020000, 0x15B3, 8, 0x1A)
    assert function.driver == "mlx5_core"
    assert (function.has_acs, function.iommu_group) == (False, "a")
    assert function.resets == ("flr", "bus")
    assert function.virtual == VirtualFunctions(8, 0x101E, 2, 3, "none")


def test_options_have_defaults() -> None:
    function = parsed(NIC + " vfs=4")
    assert function.identity.subsystem_device == 0
    assert function.identity.revision == 0
    assert (function.driver, function.has_acs, function.iommu_group) == (None, True, None)
    assert function.resets == ("flr",)
    assert function.virtual == VirtualFunctions(4, 0x101D)


def test_virtual_functions_continue_on_the_next_bus() -> None:
    assert str(PciAddress(0, 1, 0xFE).moved(3)) == "0000:02:00.1"


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("8086:10d3", "pci:v00008086d000010D3sv*sd*bc*sc*i*"),
        ("15b3:1019:15b3:0008", "pci:v000015B3d00001019sv000015B3sd00000008bc*sc*i*"),
        ("15b3:*", "pci:v000015B3d*sv*sd*bc*sc*i*"),
        ("*:*", "pci:v*d*sv*sd*bc*sc*i*"),
        ("01080a", "pci:v*d*sv*sd*bc01sc08i0A"),
    ],
)
def test_an_alias_is_that_of_modpost(identifier: str, expected: str) -> None:
    assert alias(identifier) == expected
    assert alias(identifier, "vfio_pci") == "vfio_" + expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0000:00:02.0", "requires an address, an id and a class, such as '0000:01:00.0 8086:10d3"),
        (NIC[: -len(" 020000")], "requires an address, an id and a class"),
        ("00:02.0 15b3:101d 020000", "has '00:02.0', which is not the address of a function"),
        ("0000:00:02 15b3:101d 020000", "has '0000:00:02', which is not the address"),
        ("0000:00:20.0 15b3:101d 020000", "has '0000:00:20.0', which is not the address"),
        ("0000:00:02.8 15b3:101d 020000", "has '0000:00:02.8', which is not the address"),
        ("0000:0A:02.0 15b3:101d 020000", "has '0000:0A:02.0', which is not the address"),
        ("0000:00:02.0 15b3 020000", "has '15b3', which is not an id such as 8086:10d3"),
        ("0000:00:02.0 15B3:101D 020000", "has '15B3:101D', which is not an id"),
        ("0000:00:02.0 15b3:101d:15b3 020000", "has '15b3:101d:15b3', which is not an id"),
        ("0000:00:02.0 15b3:* 020000", "has '15b3:*', which is not an id"),
        ("0000:00:02.0 15b3:101d 0200", "has '0200', which is not a class such as 020000"),
        (NIC + " up", "has 'up'; known: driver=, rev=, bus=, acs=, iommu_group="),
        (NIC + " irq=5", "has 'irq=5'; known: driver="),
        (NIC + " driver=a driver=b", "has driver= twice"),
        (NIC + " driver=../a", "has driver='../a', which is not the name of a driver"),
        (NIC + " driver=", "has driver='', which is not the name of a driver"),
        (NIC + " rev=1", "has rev='1', which is not a revision such as 03"),
        (NIC + " acs=yes", "has acs='yes', which is not 'no'"),
        (NIC + " iommu_group=a/b", "has iommu_group='a/b', which is not the name of a group"),
        (NIC + " reset=flr,magic", "has reset='flr,magic', which is not 'none', or some of"),
        (NIC + r" acpi_path=\_SB.TOOLONG", r"which is not an absolute ACPI path such as \_SB."),
        (NIC + " bus=01", "has bus=, but only a bridge (class 0604) leads to a bus"),
        ("0000:00:01.0 1b36:000c 060400", "is a bridge and requires the bus below it, as bus=01"),
        ("0000:00:01.0 1b36:000c 060400 bus=1", "has bus='1', which is not a bus such as 01"),
        (PORT + " vfs=2", "has vfs=, but a bridge has no virtual functions"),
        (NIC + " vfs=0", "has vfs='0', which is not a number of virtual functions"),
        (NIC + " vfs=many", "has vfs='many', which is not a number of virtual functions"),
        (NIC + " vf_device=101e", "has vf_device=, but no vfs="),
        ("pci0000:00 bus=01", "has 'bus=01'; known: dt_path=, acpi_path="),
        ("pci0000:00 dt_path=pcie", "has dt_path='pcie', which is not a path such as /pcie@"),
        (NIC + " \x1b[2J", r"has '\x1b[2J'; known"),
        ("", "requires an address, an id and a class"),
    ],
)
def test_a_line_that_is_wrong_in_itself_is_refused(line: str, reason: str) -> None:
    if not line.isprintable():
        line_of_yaml = line.replace("\x1b", "\\e")
        message = error_of(more=f'pci: ["{line_of_yaml}"]\n')
    else:
        message = error_of(line)
    assert message.startswith("line ")
    assert reason in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([NIC, NIC], "line 3: '{1}' describes 0000:00:02.0 again, after line 2: '{0}'"),
        (["pci0000:7c", "pci0000:7c"], "line 3: '{1}' describes bus 0000:7c again, after line 2"),
        (
            [PORT, "0000:00:02.0 1b36:000c 060400 bus=01"],
            "line 3: '{1}' describes bus 0000:01 again, after line 2",
        ),
        (
            [PORT + r" acpi_path=\_SB.A", E1000E + r" acpi_path=\_SB_.A___"],
            r"line 3: '{1}' describes \_SB_.A___ again, after line 2",
        ),
        (
            [E1000E],
            (
                "line 2: '{0}' is on bus 01, to which no bridge leads. Describe the bridge with "
                "bus=01, or the root bus pci0000:01"
            ),
        ),
        (
            [PORT, "0001:01:00.0 8086:10d3 020000"],
            "line 3: '{1}' is on bus 01, to which no bridge leads",
        ),
        (
            ["0000:00:01.0 1b36:000c 060400 bus=00"],
            "line 2: '{0}' leads to bus 00, which does not come after its own bus 00",
        ),
        (
            [PORT, "0000:01:00.0 1b36:000c 060400 bus=01"],
            "line 3: '{1}' describes bus 0000:01 again",
        ),
        (
            ["0000:00:01.0 1b36:000c 060400 bus=05-02"],
            "line 2: '{0}' has buses that end before they begin",
        ),
        (
            [PORT + "-01", "0000:01:00.0 1b36:000c 060400 bus=02"],
            "line 3: '{1}' leads to bus 02, which comes after the last bus 01 of the bridge above",
        ),
        (
            [PORT + "-03", "0000:00:02.0 1b36:000c 060400 bus=02"],
            "line 3: '{1}' leads to bus 02, which is below 0000:00:01.0",
        ),
        (
            ["0000:00:02.1 8086:10d3 020000"],
            "line 2: '{0}' is in a slot without function 0000:00:02.0, in which Linux detects no",
        ),
        (
            [PORT, E1000E + " vfs=300"],
            (
                "line 3: '{1}' has more virtual functions than possible: number 256 would be on "
                "bus 02, after the last bus 01 of the bridge above it"
            ),
        ),
        (
            [NIC + " vfs=65535"],
            (
                "line 2: '{0}' has more virtual functions than possible: number 65520 would be on "
                "bus 100, after the last bus ff of the root bus above it"
            ),
        ),
        (
            ["0000:00:02.0 8086:10d3 020000 vfs=60000", "0000:00:03.0 8086:10d3 020000 vfs=60000"],
            "pci has 120000 virtual functions, more than 65536",
        ),
        (
            [NIC + " vfs=2", "0000:00:02.1 15b3:101d 020000"],
            (
                "line 2: '{0}' has virtual function 1 at 0000:00:02.1, which is taken by "
                "line 3: '{1}'; set vf_offset="
            ),
        ),
        (
            [NIC + " vfs=8", "0000:00:03.0 15b3:101d 020000 vfs=8 vf_offset=255"],
            "line 2: '{0}' has virtual function 8 at 0000:00:03.0, which is taken by line 3",
        ),
        (
            [PORT + "-03", E1000E + " vfs=4 vf_offset=256", "0000:01:01.0 1b36:000c 060400 bus=02"],
            "line 3: '{1}' has virtual function 1 at 0000:02:00.0, which is taken by line 4",
        ),
    ],
)
def test_functions_that_do_not_fit_together_are_refused(lines: list[str], reason: str) -> None:
    assert reason.format(*lines) in error_of(*lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # YAML takes an address alone for a number in base 60.
        ("pci: [0000:01:00.0]", "pci: 60.0 is not a line such as '0000:01:00.0 8086:10d3 020000'"),
        ("pci: [{address: a}]", "pci: {'address': 'a'} is not a line such as"),
        ("pci: x", "pci: 'x' is not a list"),
        ("drivers: [{name: a, bus: pci, pci_ids: [igb]}]", "'igb' is neither an id such as"),
        ("drivers: [{name: a, bus: pci, vfio_ids: ['8086']}]", "'8086' is neither an id such as"),
        ("drivers: [{name: a, bus: pci, sriov: maybe}]", "sriov: 'maybe' is not one of removed"),
        ("drivers: [{name: a, bus: usb}]", "bus: 'usb' is not one of platform, amba, pci"),
        ("carries: ['0000:01:00.0 eth0']", "names a device that the board does not have"),
        (
            f"pci: ['{NIC} vfs=2']\ncarries: ['0000:00:02.1 eth0 192.0.2.7/24']",
            (
                "line 2: '0000:00:02.1 eth0 192.0.2.7/24' describes a use of a virtual "
                "function, which does not exist at boot"
            ),
        ),
        (
            f"pci: ['{NIC} vfs=2']\ncarries: ['0000:00:02.2 nvme0n1 /data']",
            "describes a use of a virtual function",
        ),
    ],
)
def test_what_is_wrong_beside_the_lines_is_refused(text: str, reason: str) -> None:
    assert reason in error_of(more=text)


def test_a_hostile_board_is_refused_in_seconds() -> None:
    start = time.monotonic()
    nested = [f"0000:{bus:02x}:00.0 1b36:000c 060400 bus={bus + 1:02x}" for bus in range(255)]
    many = [f"{domain:04x}:00:00.0 8086:10d3 020000" for domain in range(1, 1744)]
    assert "is on bus fe" in error_of(*nested, *many, "0001:fe:00.0 8086:10d3 020000")
    assert "pci has 2001 entries, more than 2000" in error_of(*["x"] * 2001)
    assert time.monotonic() - start < 10
