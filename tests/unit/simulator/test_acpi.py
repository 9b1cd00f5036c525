# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACPI boards from a list of devices; tests/integration/test_acpi.py compares one with a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.acpi_iort import translates
from extensions.simulator import acpi
from extensions.simulator.description import Description
from extensions.simulator.description_file import parse
from extensions.simulator.errors import SimulatorError
from extensions.simulator.machine import Machine, build
from tests.harness.simulated_gateways import SimulatedSysfs

# Device, container, processor, GPIO, and a device below another one.
LIST = r"""
# a comment
\_SB.CPU0 ACPI0007 uid=0
\_SB.ETH0 ACME0001 uid=7 cid=ACME0000,PRP0001 driver=acme-eth iommu_group=a
\_SB.ETH1 ACME0001 driver=none iommu_group=b
\_SB.ETH0.MDIO ACME0002 unbind=no iommu_group=a
\_SB.GPO0 ARMH0061 uid=0
\_SB.VR00 LNRO0005 name=LNRO0005:07
"""
PLATFORM = "bus/platform/devices"


def booted(text: str, tmp_path: Path) -> Machine:
    path = tmp_path / "board.acpi"
    path.write_text(text)
    return build(None, Description(devices=acpi.read_file(path)))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return booted(LIST, tmp_path)


def test_devices_are_named_by_hardware_id_and_instance(machine: Machine) -> None:
    expected = ["ACME0001:00", "ACME0001:01", "ACME0002:00", "LNRO0005:07", acpi.SMMU]
    assert machine.tree.names(PLATFORM) == expected
    assert machine.tree.names("bus/amba/devices") == ["ARMH0061:00"]
    assert "ACPI0007:00" in machine.tree.names("bus/acpi/devices")


def test_a_device_has_a_node_in_the_namespace(machine: Machine) -> None:
    node = f"{PLATFORM}/ACME0001:00/firmware_node"
    assert machine.tree.resolve(node) == f"{acpi.SYSTEM_BUS}/ACME0001:00"
    assert machine.tree.read(f"{node}/path") == b"\\_SB_.ETH0\n"
    assert machine.tree.read(f"{node}/uid") == b"7\n"
    assert machine.tree.resolve(f"{node}/physical_node") == "devices/platform/ACME0001:00"
    modalias = b"acpi:ACME0001:ACME0000:\n"
    assert machine.tree.read(f"{PLATFORM}/ACME0001:00/modalias") == modalias
    assert b"MODALIAS=" + modalias in (machine.tree.read(f"{PLATFORM}/ACME0001:00/uevent") or b"")


def test_a_device_that_is_described_by_compatibles_has_them_in_its_modalias(
    tmp_path: Path,
) -> None:
    machine = booted(
        r"""
\_SB.ENG0 PRP0001 compatible=acme,engine-v1;acme,engine
\_SB.ENG1 ACME0001 cid=PRP0001 compatible=acme,engine
\_SB.ENG2 ACME0001 compatible=acme,engine
""",
        tmp_path,
    )
    ids = b"acpi:ACME0001:\n"
    names = ("PRP0001:00", "ACME0001:00", "ACME0001:01")
    by_compatible = [b"of:Neng0TCacme,engine-v1Cacme,engine\n", b"of:Neng1TCacme,engine\n", ids]
    files = [by_compatible[0], ids + by_compatible[1], ids]
    for name, in_file, in_event in zip(names, files, by_compatible):
        assert machine.tree.read(f"{PLATFORM}/{name}/modalias") == in_file
        assert machine.tree.read(f"{PLATFORM}/{name}/firmware_node/modalias") == in_file
        uevent = machine.tree.read(f"{PLATFORM}/{name}/uevent") or b""
        assert b"MODALIAS=" + in_event in uevent


def test_a_device_is_below_that_of_its_parent(machine: Machine) -> None:
    child = f"{PLATFORM}/ACME0002:00"
    assert machine.tree.resolve(child) == "devices/platform/ACME0001:00/ACME0002:00"
    assert machine.tree.resolve(f"{child}/firmware_node") == (
        f"{acpi.SYSTEM_BUS}/ACME0001:00/ACME0002:00"
    )


def test_drivers_are_those_of_the_list(machine: Machine) -> None:
    assert machine.tree.resolve(f"{PLATFORM}/ACME0001:00/driver") == "bus/platform/drivers/acme-eth"
    assert not machine.tree.lookup("devices/platform/ACME0001:01/driver")
    assert "unbind" not in machine.tree.names(f"{PLATFORM}/ACME0002:00/driver")
    assert "unbind" in machine.tree.names(f"{PLATFORM}/LNRO0005:07/driver")


def test_iommu_groups_are_those_of_the_list_and_of_the_table(machine: Machine) -> None:
    groups = {
        name: machine.tree.resolve(f"{PLATFORM}/{name}/iommu_group")
        for name in machine.tree.names(PLATFORM)
    }
    assert groups["ACME0001:00"] is not None
    assert groups["ACME0001:00"] == groups["ACME0002:00"]
    assert groups["ACME0001:00"] != groups["ACME0001:01"]
    assert groups["LNRO0005:07"] is None
    sysfs = SimulatedSysfs(machine)
    for path, expected in (
        (r"\_SB_.ETH0", True),
        (r"\_SB_.ETH1", True),
        (r"\_SB_.ETH0.MDIO", True),
        (r"\_SB_.VR00", False),
    ):
        assert translates(sysfs, path) is expected


def test_lines_may_be_in_a_description_and_have_interfaces() -> None:
    machine = build(
        None, parse("devices: ['\\_SB.ETH0 ACME0001']\ncarries: ['\\_SB_.ETH0 eth0 up']")
    )
    assert machine.tree.resolve("class/net/eth0") == "devices/platform/ACME0001:00/net/eth0"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "has no device"),
        ("_SB.A ACME0001", "requires an absolute ACPI path and a hardware ID"),
        (r"\_SB.A", "requires an absolute ACPI path and a hardware ID"),
        (r"\_SB.TOOLONG ACME0001", "requires an absolute ACPI path and a hardware ID"),
        (r"\_SB.A ../A", "has '../A', which is not a hardware ID such as LNRO0005"),
        (r"\_SB.A ACME0001 cid=a/b", "has 'a/b', which is not a hardware ID"),
        (r"\_SB.A ACME0001 name=../x", "has '../x', which is not a name"),
        (r"\_SB.A ACME0001 driver=a/b", "has 'a/b', which is not a driver"),
        (r"\_SB.A ACME0001 irq=5", "has 'irq=5'; known: cid=, compatible=, driver="),
        (r"\_SB.A ACME0001 uid", "has 'uid'; known: cid="),
        (r"\_SB.A ACME0001 uid=1 uid=2", "has uid= twice"),
        (r"\_SB.A ACME0001 unbind=yes", "has unbind='yes'; known: unbind=no"),
        ("\\_SB.A ACME0001\n\\_SB_.A___ ACME0002", "line 2: '\\_SB_.A___ ACME0002' describes"),
        ("\\_SB.A ACME0001\n\\_SB.B ACME0001 name=ACME0001:00", "ACME0001:00 again, after"),
        ("\\_SB.A ACME0001 \x1b[2J", r"has '\x1b[2J'; known"),
        ("\\_SB.A ACME0001\n" * 2001, "devices has 2001 entries, more than 2000"),
        ("#" * ((1 << 20) + 1), "is larger than 1 MiB"),
        ("\\_SB.\u00c4 ACME0001", "it is not ASCII text"),
    ],
)
def test_an_error_is_one_line_that_names_the_file(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SimulatorError) as error:
        booted(line, tmp_path)
    message = str(error.value)
    assert str(tmp_path / "board.acpi") in message or "entries" in message
    assert reason in message
    assert message.isprintable()
