# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which devices have isolated interrupts is known before VFIO refuses those that have not."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from simulated_kernel import TREE

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import with_all_ids
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.isolation import Isolation
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.kernel_version import (
    running_version,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity

if TYPE_CHECKING:
    from board import Board

CRYPTO = "/soc/crypto@b000000"
FUNCTION = "0000:00:01.0"
GIC, ITS, FRAME = "/gic@8000000", "/gic@8000000/its@8080000", "/gic@8000000/frame@8020000"
OF_ITS, OF_FRAME = 0x11, 0x12


def cells(*values: int) -> bytes:
    return struct.pack(">%dI" % len(values), *values)


@pytest.fixture
def controllers(board: Board) -> Board:
    """A board with an ITS, and with a frame of a GICv2m."""
    add_controller(board, ITS, OF_ITS, "arm,gic-v3-its")
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    return board


def add_controller(board: Board, path: str, phandle: int, *compatible: str) -> None:
    board.kernel.add_node(path, compatible)
    board.kernel.put(f"{TREE}{path}/msi-controller", b"")
    board.kernel.put(f"{TREE}{path}/phandle", cells(phandle))


def release(board: Board, text: str) -> None:
    path = board.files_root / "proc/version"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"Linux version {text} (acme@acme) (gcc 14) #1 SMP\n")


def isolated(board: Board, name: str = "b000000.crypto", bus: str = "platform") -> bool | None:
    device = with_all_ids(board.kernel, Identity(bus, name))
    return Isolation(board.kernel, board.host.files).of_group(device)


def test_a_platform_device_without_messages_is_not_isolated(board: Board) -> None:
    assert isolated(board) is False


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (cells(OF_ITS), True),
        (cells(OF_ITS, 0x100), True),
        (cells(OF_FRAME), False),
        # A controller of another maker, or one that is described wrongly.
        (cells(0x99), None),
        (b"\0", False),
    ],
)
def test_what_its_own_msi_parent_leads_to_decides(
    controllers: Board, parent: bytes, expected: bool | None
) -> None:
    controllers.kernel.put(f"{TREE}{CRYPTO}/msi-parent", parent)
    assert isolated(controllers) is expected


def test_the_msi_parent_of_the_bus_does_not_count(controllers: Board) -> None:
    controllers.kernel.put(f"{TREE}/soc/msi-parent", cells(OF_ITS))
    assert isolated(controllers) is False


def test_an_amba_device_is_never_isolated(controllers: Board) -> None:
    controllers.kernel.put(f"{TREE}/soc/blob@b008000/msi-parent", cells(OF_ITS))
    assert isolated(controllers, "b008000.blob", "amba") is False


@pytest.mark.parametrize(
    ("compatible", "expected"),
    [
        ("arm,gic-v3-its", True),
        ("arm,gic-v5-its", True),
        # Messages to the distributor of a GICv3 (mbi-ranges).
        ("arm,gic-v3", False),
        ("acme,msi", None),
    ],
)
def test_controllers(board: Board, compatible: str, expected: bool | None) -> None:
    add_controller(board, "/msi@1", 0x21, compatible)
    board.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(0x21))
    assert isolated(board) is expected


def test_the_frame_of_a_gicv5_its_is_that_of_the_its(board: Board) -> None:
    board.kernel.add_node("/its@1", ("arm,gic-v5-its",))
    add_controller(board, "/its@1/msi@2", 0x21)
    board.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(0x21))
    assert isolated(board) is True


def test_the_pre_its_of_synquacer_breaks_isolation(controllers: Board) -> None:
    controllers.kernel.put(f"{TREE}{ITS}/socionext,synquacer-pre-its", cells(0x58000000, 0x200000))
    controllers.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(OF_ITS))
    assert isolated(controllers) is False


def test_with_acpi_it_is_not_known(board: Board) -> None:
    board.kernel.add_device("ACME0001:00", acpi=("\\_SB_.DEV0", "ACME0001"))
    assert isolated(board, "ACME0001:00") is None


@pytest.mark.parametrize("parent", [cells(OF_ITS), None])
@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        ("6.2.16-amd64", False),
        ("5.14.0-611.el9.aarch64", False),
        ("6.3.0", True),
        ("6.12.117+deb13-arm64", True),
        ("7.0.0-14-generic", True),
        ("unknown", True),
    ],
)
def test_before_linux_6_3_it_is_not_known(
    controllers: Board, text: str, is_known: bool, parent: bytes | None
) -> None:
    release(controllers, text)
    if parent:
        controllers.kernel.put(f"{TREE}{CRYPTO}/msi-parent", parent)
    assert isolated(controllers) is ((parent is not None) if is_known else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6.12.117+deb13-arm64", (6, 12)), ("7.0", (7, 0)), ("6.x", None), ("", None)],
)
def test_a_version_is_two_numbers(
    board: Board, text: str, expected: tuple[int, int] | None
) -> None:
    release(board, text)
    assert running_version(board.host.files) == expected


def test_a_group_is_isolated_if_all_of_it_is(controllers: Board) -> None:
    kernel = controllers.kernel
    for name in ("left", "right"):
        kernel.add_device(name, f"/soc/{name}@1", ("acme,x",), iommus=True, group="pair")
        kernel.put(f"{TREE}/soc/{name}@1/msi-parent", cells(OF_ITS))
        kernel.point(f"kernel/iommu_groups/7/devices/{name}", f"devices/platform/{name}")
        kernel.point(f"devices/platform/{name}/iommu_group", "kernel/iommu_groups/7")
    assert isolated(controllers, "left") is True
    kernel.put(f"{TREE}/soc/right@1/msi-parent", cells(0x99))
    assert isolated(controllers, "left") is None
    kernel.put(f"{TREE}/soc/right@1/msi-parent", cells(OF_FRAME))
    assert isolated(controllers, "left") is False


@pytest.fixture
def bridge(controllers: Board) -> Board:
    """A board with a PCI function behind a host bridge that has a node."""
    controllers.kernel.add_functions(f"{FUNCTION} 8086:10d3:8086:a01f 020000")
    controllers.kernel.add_node("/pcie@10000000", ("pci-host-ecam-generic",))
    controllers.kernel.point("devices/pci0000:00/of_node", TREE + "/pcie@10000000")
    return controllers


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("msi-map", cells(0, OF_ITS, 0, 0x10000), True),
        ("msi-map", cells(0, OF_FRAME, 0, 0x10000), False),
        ("msi-map", cells(0, OF_ITS, 0, 0x80, 0x80, OF_ITS, 0, 0x80), True),
        # Which one is the function's is not worked out.
        ("msi-map", cells(0, OF_ITS, 0, 0x80, 0x80, OF_FRAME, 0, 0x80), None),
        ("msi-parent", cells(OF_ITS), True),
        ("msi-parent", cells(OF_FRAME), False),
        # Its own controller, or none.
        ("ranges", b"", False),
    ],
)
def test_the_host_bridge_decides_for_pci_functions(
    bridge: Board, name: str, value: bytes, expected: bool | None
) -> None:
    bridge.kernel.put(f"{TREE}/pcie@10000000/{name}", value)
    assert isolated(bridge, FUNCTION, "pci") is expected


def test_of_a_function_that_firmware_describes_by_acpi_it_is_not_known(board: Board) -> None:
    board.kernel.add_functions(f"{FUNCTION} 8086:10d3:8086:a01f 020000")
    assert isolated(board, FUNCTION, "pci") is None


def test_of_a_function_that_is_not_there_yet_it_is_not_known(bridge: Board) -> None:
    assert isolated(bridge, "0000:00:09.0", "pci") is None


def test_the_tree_is_not_read_for_devices_that_refer_to_no_controller(
    controllers: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(controllers.kernel, "listing", fail)
    assert isolated(controllers) is False
    controllers.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(OF_ITS))
    with pytest.raises(AssertionError):
        isolated(controllers)
