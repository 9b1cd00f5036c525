# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines that describe disks, interfaces and consoles, and the /sys that they produce."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from trees import BUS, CELLS, device, tree

from extensions.simulator.description_file import parse
from extensions.simulator.devicetree import Node
from extensions.simulator.errors import SimulatorError
from extensions.simulator.machine import Machine, build
from extensions.simulator.tree import File

MMC, ETHERNET, SERIAL = "/soc/mmc@1000", "/soc/ethernet@2000", "/soc/serial@3000"


def board() -> Node:
    return tree(
        {
            "compatible": "acme,board",
            **CELLS,
            "aliases": {"ethernet0": ETHERNET, "console": SERIAL},
            "soc": {
                **BUS,
                "mmc@1000": device("acme,mmc", reg=[0x1000, 0x100]),
                "ethernet@2000": {
                    **device("acme,eth", reg=[0x2000, 0x100]),
                    "phy@0": device("acme,phy"),
                },
                "serial@3000": device("acme,uart", reg=[0x3000, 0x100]),
                "sata@4000": device("acme,ahci", reg=[0x4000, 0x100], status="disabled"),
            },
        }
    )


def booted(*lines: str) -> Machine:
    return build(board(), parse(yaml_of(lines)))


def yaml_of(lines: Sequence[str]) -> str:
    return "carries:\n" + "".join(f"- {line!r}\n" for line in lines) if lines else ""


def content(machine: Machine, path: str) -> str:
    read = machine.tree.read(path)
    assert read is not None
    return read.decode()


def error_of(text: str) -> str:
    with pytest.raises(SimulatorError) as error:
        build(board(), parse(text))
    message = str(error.value)
    assert message.isprintable()
    return message


def test_an_interface_is_below_its_device_and_in_its_class() -> None:
    machine = booted(f"{ETHERNET} eth0 up 192.0.2.7/24 default")
    home = "devices/platform/soc/2000.ethernet/net/eth0"
    assert machine.tree.resolve("class/net/eth0") == home
    assert content(machine, f"{home}/flags") == "0x1003\n"
    (interface,) = machine.interfaces()
    assert content(machine, f"{home}/ifindex") == f"{interface.number}\n"
    assert content(machine, f"{home}/address") == f"{interface.mac}\n"
    assert machine.tree.resolve(f"{home}/device") == "devices/platform/soc/2000.ethernet"


@pytest.mark.parametrize(
    ("options", "flags"), [("", "0x1002"), (" up", "0x1003"), (" fd00::1/64", "0x1003")]
)
def test_an_interface_is_up_if_it_is_described_so(options: str, flags: str) -> None:
    machine = booted(f"{ETHERNET} eth0{options}")
    assert content(machine, "class/net/eth0/flags") == f"{flags}\n"


def test_partitions_are_on_one_disk_and_have_the_numbers_of_their_mounts() -> None:
    machine = booted(f"{MMC} mmcblk0p1 /boot", f"{MMC} mmcblk0p2 /")
    disk = "devices/platform/soc/1000.mmc/block/mmcblk0"
    assert machine.tree.names("block") == ["mmcblk0"]
    assert machine.tree.names("class/block") == ["mmcblk0", "mmcblk0p1", "mmcblk0p2"]
    assert content(machine, f"{disk}/mmcblk0p2/partition") == "2\n"
    numbers = {"/": "0:50", "/boot": "0:58"}
    machine.kernel.provided.mount_number = numbers.get
    assert content(machine, f"{disk}/mmcblk0p1/dev") == "0:58\n"
    assert content(machine, f"{disk}/mmcblk0p2/dev") == "0:50\n"
    assert "MAJOR=0\nMINOR=50\nDEVNAME=mmcblk0p2\n" in content(machine, f"{disk}/mmcblk0p2/uevent")
    # No disk of the machine that runs the simulator has such a number.
    assert content(machine, f"{disk}/dev") == f"179:{1 << 19}\n"
    assert machine.mount_points() == ["/boot"]


def test_a_disk_of_any_name_has_a_number() -> None:
    machine = build(board(), parse("carries: [{device: 1000.mmc, block: acme0}]"))
    assert content(machine, "class/block/acme0/dev") == f"254:{1 << 19}\n"


@pytest.mark.parametrize("address", [ETHERNET, "ethernet0", "2000.ethernet"])
def test_a_device_has_a_path_an_alias_and_a_name(address: str) -> None:
    assert booted(f"{address} eth0 up").tree.names("class/net") == ["eth0"]


def test_described_consoles_replace_that_of_the_device_tree() -> None:
    assert content(booted(), "class/tty/console/active") == "\n"
    machine = booted(f"{SERIAL} ttyS0 console", "1000.mmc ttyAMA1 console")
    assert content(machine, "class/tty/console/active") == "ttyAMA1 ttyS0\n"
    assert machine.tree.resolve("class/tty/ttyS0") == "devices/platform/soc/3000.serial/tty/ttyS0"


def test_what_a_device_provides_goes_with_its_driver_and_comes_with_it() -> None:
    machine = booted(f"{MMC} mmcblk0p1 /", f"{ETHERNET} eth0 up", f"{SERIAL} ttyS0 console")
    before = machine.tree.names("devices/platform/soc/1000.mmc")
    drivers = {"1000.mmc": "acme-mmc", "2000.ethernet": "acme-eth", "3000.serial": "acme-uart"}
    for name, driver in drivers.items():
        _write(machine, f"bus/platform/drivers/{driver}/unbind", name)
    for kind in ("net", "block", "tty"):
        assert set(machine.tree.names(f"class/{kind}")) <= {"console"}
    assert machine.tree.names("block") == []
    for name, driver in drivers.items():
        _write(machine, f"bus/platform/drivers/{driver}/bind", name)
    assert machine.tree.names("class/block") == ["mmcblk0", "mmcblk0p1"]
    assert machine.tree.names("devices/platform/soc/1000.mmc") == before


def _write(machine: Machine, path: str, text: str) -> None:
    file = machine.tree.find(path)
    assert isinstance(file, File)
    file.write(text.encode())


@pytest.mark.parametrize(
    ("lines", "number", "reason"),
    [
        (["/soc/mmc@1001 mmcblk0 /"], 2, "names a device that the board does not have; similar: '"),
        (["/soc/sata@4000 sda"], 2, "names a node that is disabled in the device tree"),
        ([ETHERNET + "/phy@0 eth0"], 2, "names a node for which Linux creates no device"),
        (["/ eth0 up"], 2, "names a node for which Linux creates no device"),
        ([MMC], 2, "requires a device and the name of its disk, interface or terminal"),
        ([f"{MMC} mmcblk0 / /data"], 2, "has '/ /data' for mmcblk0; a disk has at most a mount"),
        ([f"{MMC} mmcblk0 up"], 2, "has 'up' for mmcblk0; a disk has at most a mount point"),
        ([f"{MMC} mmcblk0 /../etc"], 2, "has '/../etc', which is not an absolute path outside"),
        ([f"{MMC} mmcblk0 /proc/self"], 2, "has '/proc/self', which is not an absolute path"),
        ([f"{MMC} mmcblk0 /a//b"], 2, "has '/a//b', which is not an absolute path"),
        ([f"{MMC} mmcblk0 /data:ro,exec"], 2, "has '/data:ro,exec', which is not an absolute"),
        ([f"{ETHERNET} eth0 down"], 2, "has 'down' for eth0; an interface may be 'up'"),
        ([f"{ETHERNET} eth0 192.0.2.7"], 2, "has '192.0.2.7' for eth0; an interface may be"),
        ([f"{ETHERNET} eth0 192.0.2.7/33"], 2, "has '192.0.2.7/33' for eth0"),
        ([f"{ETHERNET} ../eth0 up"], 2, "has '../eth0', which is not a name of the kernel"),
        ([f"{ETHERNET} a-name-that-is-too-long"], 2, "which is not a name of the kernel"),
        ([f"{SERIAL} ttyS0"], 2, "has no option for ttyS0; a terminal is in use as 'console'"),
        ([f"{MMC} sda /", f"{ETHERNET} sda"], 3, "describes sda again, after line 2"),
        ([f"{MMC} sda1 /", f"{MMC} sda2 /"], 3, "mounts / again, after line 2"),
        ([f"{ETHERNET} eth0", "ethernet0 eth0"], 3, "describes eth0 again, after line 2"),
    ],
)
def test_an_error_names_the_line(lines: Sequence[str], number: int, reason: str) -> None:
    message = error_of(yaml_of(lines))
    assert message.startswith(f"line {number}: '{lines[number - 2]}' ")
    assert reason in message


def test_terminal_escapes_and_long_lines_are_not_printed() -> None:
    escape = error_of('carries: ["/soc/\\e[31mred\\u202e eth0 up"]')
    assert r"\x1b[31mred\u202e" in escape
    long = error_of(f"carries: ['/{'x' * 5000} eth0 up']")
    assert len(long) < 300


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("carries:\n" + "- /soc/mmc@1000 sda\n" * 1001, "carries has 1001 entries, more than 1000"),
        ("a: &a [x]\nb: *a", "line 2: YAML aliases are not supported"),
        ("[" * 5000, "is nested too deeply"),
        ("drivers: [{name: ../../etc}]", "'../../etc' is not a name that /sys can have"),
        ("modules: [{name: ..}]", "'..' is not a name that /sys can have"),
        ("devices: [{name: a, bus: pci}]", "'pci' is not one of platform, amba"),
        ("carries: [{device: x, net: a/b}]", "'a/b' is not a name that /sys can have"),
        ("reset_functions: {a: ../b}", "'../b' is not a name that /sys can have"),
        ("modules: [{name: a, parameters: 1}]", "modules: parameters: 1 is not a mapping"),
        ("drivers: [{name: a, compatible: b}]", "drivers: compatible: 'b' is not a list"),
        ("kernel: {noiommu: maybe}", "kernel: noiommu: 'maybe' is not true or false"),
        ('"\\e[2J": 1', r"unknown \x1b[2J; known: kernel"),
    ],
)
def test_a_hostile_description_is_refused_in_one_line(text: str, reason: str) -> None:
    message = error_of(text)
    assert reason in message
    assert len(message) < 500
