"""Registers that drivers of other devices write to are in use, whatever is bound to their node."""

from __future__ import annotations

from typing import Any

import pytest
from board import Board
from hazards import HOME, NAME, assert_acceptable, assert_free, refusal

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.phandle_refs import (
    References,
)

TREE = "firmware/devicetree/base"
NODE = "/soc/crypto@b000000"
USER = "/soc/dma@b002000"


def refer(board: Board, node: str, name: str, *cells: int) -> None:
    content = b"".join(cell.to_bytes(4, "big") for cell in cells)
    board.kernel.put(f"{TREE}{node}/{name}", content)


@pytest.fixture(params=["without a driver", "with a driver"])
def syscon(request: pytest.FixtureRequest, board: Board) -> Board:
    """A board whose device is a syscon; few of them have a driver."""
    make_syscon(board, NODE, 7)
    if request.param == "without a driver":
        board.kernel.write("bus/platform/drivers/acme-crypto/unbind", NAME)
    board.kernel.writes.clear()
    return board


def make_syscon(board: Board, node: str, phandle: int) -> None:
    board.kernel.put(f"{TREE}{node}/compatible", b"acme,crypto\0syscon\0")
    refer(board, node, "phandle", phandle)


# As they are in the device trees of Linux.
NAMES = {
    "rockchip,grf": (7,),
    "rockchip,php-grf": (7,),
    "rockchip,pmu": (7,),
    "mediatek,infracfg": (7,),
    "amlogic,ao-sysctrl": (7,),
    "marvell,system-controller": (7,),
    "samsung,sysreg": (7, 0x1030),
    "qcom,halt-regs": (7, 0x3000, 0x5000, 0x4000),
    "fsl,stop-mode": (7, 16, 3),
    "fsl,blk-ctrl": (7,),
    "qcom,dload-mode": (7, 0x6100),
    "gpr": (7,),
    "intf_mode": (7, 4),
    "pm_qos": (7,),
    "mediatek,pctl-regmap": (7,),
    "regmap-mcba": (7,),
    "syscon": (7,),
    "altr,sysmgr-syscon": (7, 0x44, 0),
    "acme,anything": (7,),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_driver_finds_them_by_a_property_of_any_name(syscon: Board, name: str) -> None:
    refer(syscon, USER, name, *NAMES[name])
    assert "platform:b002000.dma uses it" in refusal(syscon).replace(
        "uses its registers", "uses it"
    )
    assert f"({name} in the device tree)" in refusal(syscon)
    assert_acceptable(syscon, "consumers")


def test_each_of_several_counts(syscon: Board) -> None:
    make_syscon(syscon, "/soc/dma@b003000", 8)
    refer(syscon, USER, "fsl,blk-ctrl", 8, 7)
    assert "(fsl,blk-ctrl in the device tree)" in refusal(syscon)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("reg", (7, 0)),
        ("interrupts", (7,)),
        ("#acme,cells", (7,)),
        ("clock-frequency", (7,)),
        ("bus-width", (7,)),
        ("acme,num-lanes", (7,)),
        ("acme,channels", (7,)),
        ("acme,delay-us", (7,)),
        ("linux,code", (7,)),
        ("fsl,pins", (7, 1)),
    ],
)
def test_a_number_that_only_looks_like_their_phandle_is_none(
    syscon: Board, name: str, cells: Any
) -> None:
    refer(syscon, USER, name, *cells)
    assert_free(syscon)


def test_a_property_that_is_a_number_elsewhere_is_one_everywhere(syscon: Board) -> None:
    refer(syscon, USER, "acme,gain", 7)
    refer(syscon, "/soc/dma@b003000", "acme,gain", 3)
    assert_free(syscon)


def test_a_user_without_a_driver_does_not_count(syscon: Board) -> None:
    refer(syscon, "/soc/ethernet@e0700000", "rockchip,grf", 7)
    assert_free(syscon)


def test_registers_of_another_node_are_none_of_it(syscon: Board) -> None:
    make_syscon(syscon, "/soc/dma@b003000", 8)
    refer(syscon, USER, "rockchip,vo-grf", 8)
    assert_free(syscon)


def test_they_can_be_returned_from_vfio(syscon: Board) -> None:
    refer(syscon, USER, "rockchip,vo-grf", 7)
    assert_free(syscon, allow=["consumers"])
    # Nothing that the user of the registers has depends on VFIO.
    syscon.kernel.put("devices/platform/b002000.dma/net/eth1/flags", "0x1003\n")
    syscon.kernel.put("devices/platform/b002000.dma/net/eth1/ifindex", "7\n")
    syscon.apply([])
    assert syscon.kernel.driver_of(NAME) != "vfio-platform"


def unbind(board: Board) -> None:
    board.kernel.write("bus/platform/drivers/acme-crypto/unbind", NAME)
    board.kernel.writes.clear()


def test_other_references_to_a_device_without_a_driver_are_no_use(board: Board) -> None:
    """What it would supply is not there."""
    unbind(board)
    refer(board, NODE, "phandle", 7)
    refer(board, NODE, "#clock-cells", 0)
    refer(board, USER, "clocks", 7)
    refer(board, USER, "acme,anything", 7)
    assert_free(board)


@pytest.mark.parametrize("has_registers", [True, False])
def test_devices_below_one_without_a_driver_share_its_registers(
    board: Board, *, has_registers: bool
) -> None:
    """As below a simple-mfd; a simple-bus has none of its own."""
    unbind(board)
    child = f"{HOME}/b000010.reset"
    board.kernel.put(f"{child}/uevent", "")
    board.kernel.point(f"{child}/subsystem", "bus/platform")
    board.kernel.point(f"{child}/driver", "bus/platform/drivers/acme-dma")
    refer(board, f"{NODE}/reset@10", "reg", 0x10)
    board.kernel.point(f"{child}/of_node", f"{TREE}{NODE}/reset@10")
    if has_registers:
        reported = "b000010.reset below it is bound to acme-dma and uses its registers"
        assert reported in refusal(board)
        assert_acceptable(board, "consumers")
    else:
        board.kernel.remove(f"{TREE}{NODE}/reg")
        assert_free(board)


def test_each_property_of_the_tree_is_read_once_however_many_devices_are_judged(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [f"/soc/many@{number:x}" for number in range(20)]
    for number, node in enumerate(nodes):
        make_syscon(board, node, 100 + number)
        refer(board, node, "acme,regs", 100)
        refer(board, node, "clocks", 100 + number, 1, 100)
        refer(board, node, "#clock-cells", 1)
        refer(board, f"{node}/port/endpoint", "phandle", 200 + number)
        refer(board, f"{node}/port/endpoint", "remote-endpoint", 200 + (number + 1) % 20)
    reads: list[str] = []
    read = board.kernel.read_bytes

    def counted(path: str) -> bytes | None:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(board.kernel, "read_bytes", counted)
    references = References(board.kernel)
    for node in nodes:
        references.to(node)
        references.to_registers(node)
        references.ports.shown_through(node)
    of_tree = [path for path in reads if path.startswith(TREE)]
    assert len(of_tree) == len(set(of_tree))
    assert len(of_tree) > 20 * 6
