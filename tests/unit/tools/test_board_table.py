# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tools/board_table.py reads a board's devices from a device tree and writes them to a page."""

from __future__ import annotations

import struct

import pytest

from extensions.simulator.devicetree import Node
from tools import board_table

SMMU, SMMU_V3, OTHER = 1, 2, 3
COMPATIBLES = {SMMU: "arm,mmu-500", SMMU_V3: "arm,smmu-v3", OTHER: "rockchip,iommu"}
COHERENT = {"dma-coherent": b""}
DISABLED = {"status": b"disabled\0"}


def add(parent: Node, name: str, compatible: str, **properties: bytes) -> Node:
    path = f"{parent.path.rstrip('/')}/{name}"
    raw = {"compatible": compatible.encode() + b"\0", **properties}
    node = Node(name, path, parent, raw)
    parent.children.append(node)
    return node


def cells(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def add_iommu(root: Node, number: int, **properties: bytes) -> Node:
    raw = {"phandle": cells(number), "#iommu-cells": cells(1), **properties}
    return add(root, f"iommu@{number}", COMPATIBLES[number], **raw)


def behind(number: int) -> dict[str, bytes]:
    return {"iommus": cells(number, 0x100)}


@pytest.fixture
def root() -> Node:
    return Node("", properties={"model": b"ACME One\0"})


def row(root: Node) -> board_table.Board:
    return board_table.survey_tree(root, "acme/one")


def test_devices_behind_an_iommu_are_counted_by_name(root: Node) -> None:
    add_iommu(root, SMMU)
    add(root, "usb@100", "acme,usb", **behind(SMMU))
    add(root, "usb@200", "acme,usb", **behind(SMMU))
    add(root, "serial@300", "acme,serial")
    add(root, "mmc@400", "acme,mmc", **behind(SMMU), **DISABLED)
    board = row(root)
    assert (board.model, board.maker, board.devices) == ("ACME One", "acme", 4)
    assert board.behind == {"usb": 2}
    assert board.iommus == ("arm,mmu-500",)


def test_a_device_that_a_driver_creates_counts_if_it_is_behind_an_iommu(root: Node) -> None:
    add_iommu(root, SMMU)
    glue = add(root, "usb-glue@100", "acme,usb-glue")
    add(glue, "usb@100", "snps,dwc3", **behind(SMMU))
    add(glue, "phy@200", "acme,phy")
    board = row(root)
    assert board.devices == 3
    assert board.behind == {"usb": 1}


def test_a_disabled_iommu_is_in_front_of_no_device(root: Node) -> None:
    add_iommu(root, SMMU, **DISABLED)
    add(root, "usb@100", "acme,usb", **behind(SMMU), **COHERENT)
    board = row(root)
    assert (board.behind, board.behind_disabled, board.accepted) == ({}, {"usb": 1}, 0)
    assert (board.iommus, board.disabled_iommus) == ((), ("arm,mmu-500",))


@pytest.mark.parametrize(
    ("number", "of_iommu", "of_device", "accepted"),
    [
        (SMMU, {}, {}, 0),
        (SMMU, COHERENT, {}, 1),
        (SMMU, {}, COHERENT, 1),
        (SMMU_V3, COHERENT, {}, 1),
        (SMMU_V3, {}, COHERENT, 0),
        (OTHER, COHERENT, COHERENT, 0),
    ],
)
def test_vfio_accepts_what_is_coherent(
    root: Node,
    number: int,
    of_iommu: dict[str, bytes],
    of_device: dict[str, bytes],
    accepted: int,
) -> None:
    add_iommu(root, number, **of_iommu)
    add(root, "usb@100", "acme,usb", **behind(number), **of_device)
    assert row(root).accepted == accepted


def test_coherency_of_a_bus_holds_for_its_devices_unless_they_deny_it(root: Node) -> None:
    add_iommu(root, SMMU)
    bus = add(root, "bus", "simple-bus", **COHERENT)
    add(bus, "usb@100", "acme,usb", **behind(SMMU))
    add(bus, "mmc@200", "acme,mmc", **behind(SMMU), **{"dma-noncoherent": b""})
    board = row(root)
    assert board.behind == {"usb": 1, "mmc": 1}
    assert board.accepted == 1


def test_the_row_of_a_board(root: Node) -> None:
    add_iommu(root, SMMU, **COHERENT)
    add_iommu(root, SMMU_V3, **DISABLED)
    add(root, "usb@100", "acme,usb", **behind(SMMU))
    add(root, "mmc@200", "acme,mmc", **behind(SMMU_V3))
    add(root, "pcie@300", "acme,pcie", **{"iommu-map": cells(0, SMMU, 0, 1)})
    table = board_table.board_table([row(root)])
    assert table.splitlines()[2] == (
        "| ACME One (`acme/one`) | 4 | 1 | 1 | `arm,mmu-500`, `arm,smmu-v3` (disabled)"
        " | usb; if it is enabled: mmc; by `iommu-map`: pcie |"
    )


def test_boards_are_counted_by_directory(root: Node) -> None:
    add_iommu(root, SMMU)
    other = board_table.survey_tree(Node(""), "other/two")
    table = board_table.maker_table([row(root), other])
    assert table.splitlines()[2:] == [
        "| `acme` | 1 | 1 | 0 | 0 | 0 |",
        "| `other` | 1 | 0 | 0 | 0 | 0 |",
        "| all | 2 | 1 | 0 | 0 | 0 |",
    ]


def test_only_the_table_of_a_page_is_rewritten() -> None:
    page = "before\n<!-- rows: made -->\n\n| old |\n\n<!-- rows end -->\nafter\n"
    written = board_table.rewritten(page, {"rows": "| new \\1 |\n"})
    assert written == page.replace("old", "new \\1")


def test_a_page_without_a_place_for_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for the table rows"):
        board_table.rewritten("before\n", {"rows": ""})
