# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which devices have isolated interrupts is known before VFIO refuses those that have not."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from acpi_tables import (
    DISTRIBUTOR,
    ITS_OF_GICV5,
    MSI_FRAME,
    PROCESSOR,
    REDISTRIBUTOR,
    TABLES,
    TRANSLATOR,
    Mapping,
    component,
    entry,
    gicv2,
    gicv3,
    iort,
    its_group,
    madt,
    root_complex,
    smmu,
)
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


# Each asks iommu_group_has_isolated_msi, and those before irq_domain_check_msi_remap.
EACH_DEVICE = ["6.3.0", "6.6.87-0ubuntu1", "6.12.117+deb13-arm64", "6.18.2", "7.0.0-14-generic", ""]
ALL_DOMAINS = [
    *("4.18.0-553.el8", "5.10.0-33-arm64", "5.15.0-130-generic", "6.1.0-29-arm64", "6.2.16-amd64"),
    # A distribution can have the later rule in it.
    "5.14.0-611.el9.aarch64",
]
GICV2, GICV3 = "arm,gic-400", "arm,gic-v3"


def assert_isolated(
    board: Board, before: bool | None, since: bool | None, name: str = "b000000.crypto"
) -> None:
    """Assert what is answered before Linux 6.3, and since."""
    bus = "pci" if name == FUNCTION else "amba" if name.endswith(".blob") else "platform"
    for text in EACH_DEVICE:
        release(board, text)
        assert (text, isolated(board, name, bus)) == (text, since)
    for text in ALL_DOMAINS:
        release(board, text)
        assert (text, isolated(board, name, bus)) == (text, before)


def add_gic(board: Board, *compatible: str) -> None:
    board.kernel.add_node(GIC, compatible)


def test_a_gicv2m_is_an_msi_domain_of_the_machine_that_does_not_isolate(board: Board) -> None:
    add_gic(board, GICV2)
    assert_isolated(board, None, False)
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    assert_isolated(board, False, False)
    assert_isolated(board, False, False, "b008000.blob")
    board.kernel.put(f"{TREE}{FRAME}/status", b"okay\0")
    assert_isolated(board, False, False)
    board.kernel.put(f"{TREE}{FRAME}/status", b"disabled\0")
    assert_isolated(board, None, False)


@pytest.mark.parametrize("compatible", [GICV3, "acme,gic"])
def test_a_gicv3_uses_frames_if_its_hardware_says_so(board: Board, compatible: str) -> None:
    add_gic(board, compatible)
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    assert_isolated(board, None, False)


def test_a_frame_that_is_no_controller_is_none(board: Board) -> None:
    add_gic(board, GICV2)
    board.kernel.add_node(FRAME, ("arm,gic-v2m-frame",))
    assert_isolated(board, None, False)


def test_messages_of_a_gicv3_s_distributor_depend_on_its_hardware(board: Board) -> None:
    add_controller(board, GIC, OF_FRAME, GICV3)
    board.kernel.put(f"{TREE}{GIC}/mbi-ranges", cells(64, 64))
    assert_isolated(board, None, False)


def test_with_an_its_alone_linux_before_6_3_may_refuse_nothing(board: Board) -> None:
    add_gic(board, GICV3)
    add_controller(board, ITS, OF_ITS, "arm,gic-v3-its")
    assert_isolated(board, None, False)
    board.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(OF_ITS))
    assert_isolated(board, None, True)


def test_a_kernel_that_may_have_the_later_rule_refuses_what_both_refuse(board: Board) -> None:
    """As one whose other domain isolates the device does not: no machine is built like this."""
    add_gic(board, GICV2)
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    add_controller(board, "/its@1", OF_ITS, "arm,gic-v3-its")
    board.kernel.put(f"{TREE}{CRYPTO}/msi-parent", cells(OF_ITS))
    assert_isolated(board, None, True)


def test_without_pci_the_kernel_has_no_driver_of_frames(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = board.kernel.exists
    monkeypatch.setattr(board.kernel, "exists", lambda path: path != "bus/pci" and exists(path))
    add_gic(board, GICV2)
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    assert_isolated(board, None, False)


@pytest.mark.parametrize("text", ["4.4.0-210-generic", "4.11.12", "3.16.0"])
def test_before_linux_4_12_every_iommu_of_arm_was_enough(board: Board, text: str) -> None:
    add_gic(board, GICV2)
    add_controller(board, FRAME, OF_FRAME, "arm,gic-v2m-frame")
    release(board, text)
    assert isolated(board) is None


SLOT, PATH = "ACME0001:00", "\\_SB_.DEV0"


@pytest.fixture
def acpi(board: Board) -> Board:
    """A machine that ACPI describes, with a platform device and a PCI function."""
    board.kernel.add_device(SLOT, acpi=(PATH, "ACME0001"))
    board.kernel.add_functions(f"{FUNCTION} 8086:10d3:8086:a01f 020000")
    return board


def show(board: Board, tables: dict[str, bytes]) -> None:
    for name, table in tables.items():
        board.kernel.put(f"{TABLES}/{name}", table)


def test_without_tables_nothing_is_known_of_devices_of_acpi(acpi: Board) -> None:
    assert_isolated(acpi, None, None, SLOT)
    assert_isolated(acpi, None, None, FUNCTION)


@pytest.mark.parametrize("name", [SLOT, FUNCTION, "b008000.blob"])
@pytest.mark.parametrize(
    ("table", "before", "since"),
    [
        # A GICv2m, of one frame and of two.
        (gicv2(MSI_FRAME), False, False),
        (gicv2(MSI_FRAME, MSI_FRAME), False, False),
        (gicv2(), None, False),
        # The hardware of a GICv3 decides whether it uses them.
        (gicv3(REDISTRIBUTOR, MSI_FRAME), None, False),
        (gicv3(REDISTRIBUTOR), None, False),
        # ACPI 5.0 has no version, which the kernel then reads of the hardware.
        (madt(entry(PROCESSOR), entry(DISTRIBUTOR), entry(MSI_FRAME)), None, False),
        # x86 has local APICs; LoongArch a core PIC; RISC-V an RINTC, and an IMSIC.
        (madt(entry(0), entry(1)), None, None),
        (madt(entry(17), entry(21)), None, None),
        (madt(entry(24), entry(25)), None, None),
        (madt(), None, None),
        (gicv2(MSI_FRAME)[:-1], None, None),
        (b"", None, None),
    ],
    ids=range(12),
)
def test_acpi_s_machine_without_an_its_isolates_nothing(
    acpi: Board, name: str, table: bytes, before: bool | None, since: bool | None
) -> None:
    show(acpi, {"APIC": table})
    assert_isolated(acpi, before, since, name)


TO_ITS = (its_group(), component(PATH, Mapping(0, flags=1)), root_complex(0, Mapping(0)))
BEHIND_SMMU = (
    its_group(),
    smmu(Mapping(0)),
    component(PATH, Mapping(1, flags=1)),
    root_complex(0, Mapping(1, count=0xFFFF)),
)
WITHOUT_ITS = (smmu(), component(PATH, Mapping(0, flags=1)), root_complex(0, Mapping(0)))
OTHERS = (its_group(), component("\\_SB_.DEV1", Mapping(0, flags=1)), root_complex(1, Mapping(0)))
BESIDE = (its_group(), smmu(), component(PATH, Mapping(1, flags=1)), root_complex(0, Mapping(1)))


@pytest.mark.parametrize("name", [SLOT, FUNCTION])
@pytest.mark.parametrize(
    ("table", "since"),
    [
        # Whether the IDs are translated as far as an ITS is left to the kernel.
        (iort(*TO_ITS), None),
        (iort(*BEHIND_SMMU), None),
        (
            iort(component(PATH, Mapping(2, flags=1)), root_complex(0, Mapping(2)), its_group()),
            None,
        ),
        (iort(*WITHOUT_ITS), False),
        (iort(*OTHERS), False),
        (iort(*BESIDE), False),
        (iort(component(PATH), root_complex(0), its_group()), False),
        (iort(), False),
        (None, False),
        # Damaged: cut short, longer than its header says, and with a mapping to what is no node.
        (iort(*WITHOUT_ITS)[:-1], None),
        (iort(*WITHOUT_ITS) + b"\0", None),
        (iort(component(PATH, Mapping(9)), root_complex(0, Mapping(9))), None),
        (b"", None),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("kind", [TRANSLATOR, ITS_OF_GICV5])
def test_acpi_s_table_iort_leads_to_an_its_or_not(
    acpi: Board, name: str, kind: int, table: bytes | None, since: bool | None
) -> None:
    show(acpi, {"APIC": gicv3(REDISTRIBUTOR, kind), **({} if table is None else {"IORT": table})})
    assert_isolated(acpi, None, since, name)


def test_a_table_that_cannot_be_read_says_nothing(
    acpi: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(acpi, {"APIC": gicv3(TRANSLATOR), "IORT": iort()})
    read = acpi.kernel.read_long
    unreadable = [f"{TABLES}/IORT"]
    monkeypatch.setattr(
        acpi.kernel, "read_long", lambda path: None if path in unreadable else read(path)
    )
    assert isolated(acpi, SLOT) is None
    unreadable.append(f"{TABLES}/APIC")
    assert isolated(acpi, SLOT) is None


def test_amba_devices_of_acpi_have_no_messages(acpi: Board) -> None:
    show(acpi, {"APIC": gicv3(TRANSLATOR), "IORT": iort(*TO_ITS)})
    assert_isolated(acpi, None, False, "b008000.blob")


def test_a_device_without_a_node_of_acpi_is_left_to_the_kernel(acpi: Board) -> None:
    acpi.kernel.add_device("part", None, ())
    show(acpi, {"APIC": gicv3(TRANSLATOR)})
    assert isolated(acpi, "part") is None


def test_a_node_that_the_kernel_made_for_a_host_bridge_says_nothing(acpi: Board) -> None:
    """CONFIG_PCI_DYNAMIC_OF_NODES makes them with ACPI as well: drivers/pci/of.c."""
    acpi.kernel.add_node("/pci", ("pci-host",))
    acpi.kernel.point("devices/pci0000:00/of_node", TREE + "/pci")
    show(acpi, {"APIC": gicv3(TRANSLATOR), "IORT": iort(*TO_ITS)})
    assert_isolated(acpi, None, None, FUNCTION)
    show(acpi, {"APIC": madt(entry(0))})
    assert_isolated(acpi, None, None, FUNCTION)


def test_a_function_in_a_segment_of_its_own_is_found_by_it(board: Board) -> None:
    board.kernel.add_functions("0001:00:01.0 8086:10d3:8086:a01f 020000")
    show(board, {"APIC": gicv3(TRANSLATOR), "IORT": iort(*TO_ITS)})
    assert isolated(board, "0001:00:01.0", "pci") is False
    show(board, {"IORT": iort(*OTHERS)})
    assert isolated(board, "0001:00:01.0", "pci") is None


def test_a_group_of_acpi_is_not_isolated_if_one_of_it_is_not(acpi: Board) -> None:
    kernel = acpi.kernel
    for name, path in (("left", PATH + "L"), ("right", PATH + "R")):
        kernel.add_device(name, acpi=(path, "ACME0002"), iommus=True, group="pair")
        kernel.point(f"kernel/iommu_groups/7/devices/{name}", f"devices/platform/{name}")
        kernel.point(f"devices/platform/{name}/iommu_group", "kernel/iommu_groups/7")
    both = [component(PATH + side, Mapping(0, flags=1)) for side in "LR"]
    show(acpi, {"APIC": gicv3(TRANSLATOR), "IORT": iort(its_group(), *both)})
    assert isolated(acpi, "left") is None
    show(acpi, {"IORT": iort(its_group(), both[0])})
    assert isolated(acpi, "left") is False


def test_each_table_is_read_once(acpi: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    show(acpi, {"APIC": gicv3(TRANSLATOR), "IORT": iort(*TO_ITS)})
    reads: list[str] = []
    read = acpi.kernel.read_long
    monkeypatch.setattr(acpi.kernel, "read_long", lambda path: (reads.append(path), read(path))[1])
    isolation = Isolation(acpi.kernel, acpi.host.files)
    for name in (SLOT, SLOT, "b000000.crypto"):
        isolation.of_group(Identity("platform", name))
    isolation.of_group(Identity("pci", FUNCTION))
    assert reads == [f"{TABLES}/APIC", f"{TABLES}/IORT"]


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
