"""What is lost with a device through devices that depend on it, or on what is below it."""

from __future__ import annotations

import pytest
from board import Board
from hazards import HOME, NAME, assert_acceptable, assert_free, refusal

DMA = "devices/platform/b002000.dma"
CHIP = f"{HOME}/i2c-0/0-001b"
TREE = "firmware/devicetree/base"


def refer(board: Board, node: str, name: str, *cells: int) -> None:
    content = b"".join(cell.to_bytes(4, "big") for cell in cells)
    board.kernel.put(f"{TREE}{node}/{name}", content)


def add_disk(board: Board, home: str) -> None:
    """Add a disk below a device; its partition has the root file system."""
    board.kernel.put(f"{home}/mmc_host/mmc0/block/mmcblk0/dev", "179:0\n")
    board.kernel.put(f"{home}/mmc_host/mmc0/block/mmcblk0/mmcblk0p2/dev", "179:2\n")
    board.kernel.put(f"{home}/mmc_host/mmc0/block/mmcblk0/mmcblk0p2/partition", "2\n")
    board.mount("179:2", "/")


def add_interface(board: Board, home: str) -> None:
    board.kernel.put(f"{home}/net/eth1/flags", "0x1003\n")
    board.kernel.put(f"{home}/net/eth1/ifindex", "7\n")


def depend(board: Board, supplier: str, consumer: str, status: str) -> None:
    """Link a consumer to a supplier, as drivers/base/core.c does."""
    name = f"{supplier.rpartition('/')[2]}--{consumer.rpartition('/')[2]}"
    link = f"devices/virtual/devlink/{name}"
    board.kernel.put(f"{link}/status", status + "\n")
    board.kernel.point(f"{link}/consumer", consumer)
    board.kernel.point(f"{supplier}/consumer:platform:{consumer.rpartition('/')[2]}", link)


@pytest.fixture
def chip(board: Board) -> Board:
    """The device is an I2C controller; behind it is a PMIC with a driver."""
    board.kernel.put(f"{CHIP}/name", "pmic\n")
    board.kernel.point(f"{CHIP}/subsystem", "bus/i2c")
    board.kernel.point(f"{CHIP}/driver", "bus/i2c/drivers/pmic")
    board.kernel.point("bus/i2c/devices/0-001b", CHIP)
    return board


LOST = "disk mmcblk0: mmcblk0p2 is mounted on /"
BY_CHIP = f"{LOST} (0-001b below it supplies platform:b002000.dma)"


@pytest.mark.parametrize("status", ["active", "not tracked"])
def test_a_disk_whose_controller_a_chip_below_supplies_is_in_use(chip: Board, status: str) -> None:
    depend(chip, CHIP, DMA, status)
    add_disk(chip, DMA)
    assert BY_CHIP in refusal(chip, allow=["consumers"])
    assert_free(chip, allow=["consumers", "storage"])


def test_so_is_one_whose_controller_has_a_regulator_of_the_chip(chip: Board) -> None:
    regulator = f"{CHIP}/pmic-regulator/regulator/regulator.5"
    depend(chip, regulator, DMA, "not tracked")
    add_disk(chip, DMA)
    clause = "(regulator.5 below it supplies platform:b002000.dma)"
    assert f"{LOST} {clause}" in refusal(chip, allow=["consumers"])


def test_so_is_one_that_the_device_tree_alone_shows(chip: Board) -> None:
    refer(chip, "/soc/crypto@b000000/pmic@1b", "reg", 0x1B)
    chip.kernel.put(f"{TREE}/soc/crypto@b000000/pmic@1b/compatible", b"acme,pmic\0")
    refer(chip, "/soc/crypto@b000000/pmic@1b/ldo", "phandle", 9)
    chip.kernel.point(f"{CHIP}/of_node", f"{TREE}/soc/crypto@b000000/pmic@1b")
    refer(chip, "/soc/dma@b002000", "vqmmc-supply", 9)
    add_disk(chip, DMA)
    assert BY_CHIP in refusal(chip, allow=["consumers"])


# What a controller of each kind has below it, and how another device depends on that.
CONTROLLERS = {
    "MDIO": ("mdio_bus/stmmac-0/stmmac-0:01", "mdio_bus", "/mdio/ethernet-phy@1", "phy-handle"),
    "MDIO, a PCS": ("mdio_bus/stmmac-0/stmmac-0:02", "mdio_bus", "/mdio/pcs@2", "pcs-handle"),
    "SPI": ("spi_master/spi0/spi0.0", "spi", "/pmic@0/ldo", "vmmc-supply"),
    "SPMI": ("spmi-0/0-00", "spmi", "/pmic@0/regulators/l5", "vmmc-supply"),
    "I2C multiplexer": ("i2c-0/0-0070/i2c-2/2-0020", "i2c", "/mux@70/i2c@1/gpio@20", "cd-gpios"),
    "multiplexer": ("mux/muxchip0", "mux", "/mux-controller", "mux-controls"),
}


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_so_is_one_that_depends_on_what_is_below_a_controller_of_any_kind(
    board: Board, kind: str
) -> None:
    path, bus, node, name = CONTROLLERS[kind]
    home = f"{HOME}/{path}"
    own = f"/soc/crypto@b000000{node}"
    refer(board, own, "phandle", 9)
    board.kernel.put(f"{home}/uevent", "")
    board.kernel.point(f"{home}/subsystem", f"bus/{bus}")
    board.kernel.point(f"{home}/of_node", f"{TREE}{own}")
    refer(board, "/soc/dma@b002000", name, 9)
    add_disk(board, DMA)
    add_interface(board, DMA)
    message = refusal(board, allow=["consumers"])
    # The node of the chip is no device of the tree, so that the reference is one to the controller.
    assert f"{LOST} (it supplies platform:b002000.dma)" in message
    assert "network interface eth1 is up (it supplies platform:b002000.dma)" in message
    assert_free(board, allow=["consumers", "network", "storage"])


@pytest.mark.parametrize(
    ("path", "bus"),
    [
        ("mdio_bus/stmmac-0/stmmac-0:01", "mdio_bus"),
        ("spi_master/spi0/spi0.0", "spi"),
        ("i2c-0/0-0070/i2c-2/2-0020", "i2c"),
        ("mux/muxchip0", "mux"),
    ],
)
def test_so_is_one_that_a_device_link_below_any_controller_shows(
    board: Board, path: str, bus: str
) -> None:
    chip = f"{HOME}/{path}"
    board.kernel.put(f"{chip}/uevent", "")
    board.kernel.point(f"{chip}/subsystem", f"bus/{bus}")
    depend(board, chip, DMA, "active")
    add_disk(board, DMA)
    reported = f"{LOST} ({path.rpartition('/')[2]} below it supplies platform:b002000.dma)"
    assert reported in refusal(board, allow=["consumers"])


def test_a_chip_whose_consumers_have_no_driver_is_of_no_use(chip: Board) -> None:
    depend(chip, CHIP, DMA, "dormant")
    add_disk(chip, DMA)
    assert_free(chip, allow=["consumers"])


def test_what_depends_on_what_depends_is_lost_as_well(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    depend(board, DMA, "devices/platform/b003000.dma", "active")
    add_interface(board, "devices/platform/b003000.dma")
    message = refusal(board, allow=["consumers"])
    assert (
        "network interface eth1 is up (it supplies platform:b002000.dma, that supplies "
        "platform:b003000.dma)" in message
    )
    assert_acceptable_beside_consumers(board, "network")


def test_what_is_behind_a_device_that_depends_is_no_use_of_its_own(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    sensor = f"{DMA}/i2c-1/1-0048"
    board.kernel.put(f"{sensor}/name", "lm75\n")
    board.kernel.point(f"{sensor}/subsystem", "bus/i2c")
    board.kernel.point(f"{sensor}/driver", "bus/i2c/drivers/lm75")
    add_interface(board, DMA)
    message = refusal(board)
    assert "platform:b002000.dma depends on it" in message
    assert "network interface eth1 is up (it supplies platform:b002000.dma)" in message
    assert "1-0048" not in message


def assert_acceptable_beside_consumers(board: Board, kind: str) -> None:
    assert_free(board, allow=["consumers", kind])


def test_two_that_supply_each_other_are_each_looked_at_once(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    depend(board, DMA, HOME, "not tracked")
    assert_acceptable(board, "consumers")


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("power-domains", "#power-domain-cells"),
        ("interconnects", "#interconnect-cells"),
        ("thermal-sensors", "#thermal-sensor-cells"),
        ("clocks", "#clock-cells"),
        ("resets", "#reset-cells"),
        ("phys", "#phy-cells"),
        ("performance-domains", "#performance-domain-cells"),
        ("qcom,smem-states", "#qcom,smem-state-cells"),
    ],
)
def test_a_disk_is_lost_with_what_its_controller_refers_to(
    board: Board, name: str, cells: str
) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/crypto@b000000", cells, 1)
    refer(board, "/soc/dma@b003000", "phandle", 8)
    refer(board, "/soc/dma@b003000", cells, 2)
    refer(board, "/soc/dma@b002000", name, 8, 7, 7, 7, 1)
    add_disk(board, DMA)
    message = refusal(board, allow=["consumers"])
    assert f"{LOST} (it supplies platform:b002000.dma)" in message
    assert f"platform:b002000.dma uses it ({name} in the device tree)" in refusal(board)


@pytest.mark.parametrize(
    "name",
    [
        "phy-handle",
        "phy",
        "phy-device",
        "pcs-handle",
        "sfp",
        "i2c-bus",
        "ddc-i2c-bus",
        "ddc",
        "mmc-pwrseq",
        "usb-phy",
        "fsl,usbphy",
        "fsl,usbmisc",
        "ethernet",
        "tbi-handle",
        "ptp-timer",
        "dais",
        "audio-cpu",
        "audio-codec",
        "mediatek,audio-codec",
        "simple-audio-card,aux-devs",
        "ssi-controller",
        "shmem",
        "sram",
        "iram",
        "asram",
        "fsl,isram",
        "links",
        "gpio-ranges",
        "mediatek,larb",
        "devfreq-events",
        "ti,sci",
    ],
)
def test_an_interface_is_lost_with_what_its_controller_refers_to(board: Board, name: str) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/dma@b002000", name, 7)
    add_interface(board, DMA)
    message = refusal(board, allow=["consumers"])
    assert "network interface eth1 is up (it supplies platform:b002000.dma)" in message


@pytest.mark.parametrize(
    "name", ["syscon", "acme,syscon-clk", "altr,sysmgr-syscon", "rockchip,grf"]
)
def test_the_first_cell_alone_refers_to_registers_that_are_shared(board: Board, name: str) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/dma@b003000", "phandle", 8)
    refer(board, "/soc/dma@b002000", name, 8, 7)
    assert_free(board)


@pytest.mark.parametrize(
    "name", ["syscon", "acme,syscon-clk", "altr,sysmgr-syscon", "rockchip,grf"]
)
def test_registers_that_another_driver_writes_to_are_in_use(board: Board, name: str) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/dma@b002000", name, 7, 0x1F0)
    assert f"platform:b002000.dma uses it ({name} in the device tree)" in refusal(board)
    assert_acceptable(board, "consumers")


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("gpios", "gpio-hog"),
        ("gpios", "gpio-line"),
        ("snps,nr-gpios", "reg"),
        ("apm,nr-gpios", "reg"),
        ("acme,ngpios", "reg"),
    ],
)
def test_a_number_of_lines_is_no_reference(board: Board, name: str, beside: str) -> None:
    """dtc gives phandles from 1 on, so that they are the same as many numbers."""
    refer(board, "/soc/crypto@b000000", "phandle", 13)
    refer(board, "/soc/dma@b002000", "phandle", 14)
    refer(board, "/soc/dma@b002000", "#gpio-cells", 2)
    board.kernel.put(f"{TREE}/soc/dma@b002000/line@0/{beside}", b"")
    refer(board, "/soc/dma@b002000/line@0", name, 13, 0)
    assert_free(board)


def test_a_consumer_on_a_bus_without_policies_counts(board: Board) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/spi@9/panel@0", "vcc-supply", 7)
    panel = "devices/platform/9.spi/spi_master/spi0/spi0.0"
    board.kernel.put(f"{panel}/modalias", "spi:panel\n")
    board.kernel.point(f"{panel}/of_node", f"{TREE}/soc/spi@9/panel@0")
    board.kernel.point(f"{panel}/driver", "bus/spi/drivers/panel")
    board.kernel.point("bus/spi/devices/spi0.0", panel)
    assert "spi:spi0.0 uses it (vcc-supply in the device tree)" in refusal(board)


@pytest.mark.parametrize("bound", ["gpio", "i2c"])
def test_a_consumer_with_several_devices_counts_by_that_which_has_a_driver(
    board: Board, bound: str
) -> None:
    """Before Linux 5.13 nothing is bound to GPIOs of an expander, but to the expander."""
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/i2c@9/gpio@20", "vcc-supply", 7)
    expander = "devices/platform/9.i2c/i2c-3/3-0020"
    for bus, name, home in (
        ("i2c", "3-0020", expander),
        ("gpio", "gpiochip2", f"{expander}/gpiochip2"),
    ):
        board.kernel.put(f"{home}/uevent", "")
        board.kernel.point(f"{home}/of_node", f"{TREE}/soc/i2c@9/gpio@20")
        board.kernel.point(f"bus/{bus}/devices/{name}", home)
        if bus == bound:
            board.kernel.point(f"{home}/driver", f"bus/{bus}/drivers/acme")
    name = {"i2c": "i2c:3-0020", "gpio": "gpio:gpiochip2"}[bound]
    assert f"{name} uses it (vcc-supply in the device tree)" in refusal(board)


@pytest.mark.parametrize("has_frequency", [True, False])
def test_processors_whose_frequency_changes_use_their_supply(
    board: Board, *, has_frequency: bool
) -> None:
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/cpus/cpu@0", "cpu-supply", 7)
    cpu = "devices/system/cpu/cpu0"
    board.kernel.put(f"{cpu}/online", "1\n")
    board.kernel.point(f"{cpu}/of_node", f"{TREE}/cpus/cpu@0")
    board.kernel.point("bus/cpu/devices/cpu0", cpu)
    if has_frequency:
        board.kernel.put(f"{cpu}/cpufreq/scaling_driver", "cpufreq-dt\n")
        assert "cpu:cpu0 uses it (cpu-supply in the device tree)" in refusal(board)
    else:
        assert_free(board)
