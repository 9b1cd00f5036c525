# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info says which devices can be bound to VFIO, and host_policy agrees."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import Board, acme_board
from simulated_kernel import Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from extensions.simulator.acpi import iort
from extensions.simulator.description import Extra

CRYPTO, OTHER_CRYPTO, DMA = "b000000.crypto", "b001000.crypto", "b002000.dma"
ETHERNET, KEYS, BLOB = "b004000.ethernet", "soc:keys", "b008000.blob"
NO_RESET = {"reset_required": False}
NOT_ISOLATED = {"unsafe_interrupts": True}

TREE = "firmware/devicetree/base"


def reasons(board: Board, name: str) -> list[tuple[str, str]]:
    return [(reason["kind"], reason["message"]) for reason in board.devices()[name]["why_not"]]


def candidates(board: Board) -> set[str]:
    return {name for name, device in board.devices().items() if device["candidate"]}


def bind(board: Board, *devices: dict[str, Any]) -> None:
    """Apply the entries that device_info returns for these devices."""
    settings: dict[str, Any] = {}
    for device in devices:
        settings.update(device["settings"])
    board.apply([device["entry"] for device in devices], **settings)


def test_a_device_with_an_iommu_that_nothing_uses_is_a_candidate(board: Board) -> None:
    crypto = board.devices()[CRYPTO]
    assert crypto["candidate"] is True
    assert crypto["why_not"] == []
    assert crypto["entry"] == {"dt_path": "crypto0", "policy": "vfio"}
    assert crypto["settings"] == {**NO_RESET, **NOT_ISOLATED}
    assert crypto["reset_function"] is False
    assert crypto["isolated_interrupts"] is False


def test_the_list_of_all_symbols_is_not_read_for_drivers_without_unbind(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.kernel.register(Driver("eth", compatible=("acme,eth",), suppress_bind_attrs=True))
    paths: list[str] = []
    read = Files.read

    def watched(files: Files, path: str) -> str | None:
        paths.append(path)
        return read(files, path)

    monkeypatch.setattr(Files, "read", watched)
    assert [kind for kind, _message in reasons(board, ETHERNET)] == ["no_unbind"]
    assert "/proc/cmdline" in paths
    assert "/proc/kallsyms" not in paths


def test_a_path_selects_a_device_without_an_alias_and_amba_asks_for_no_reset(board: Board) -> None:
    blob = board.devices()[BLOB]
    assert blob["entry"] == {"dt_path": "/soc/blob@b008000", "policy": "vfio"}
    assert blob["settings"] == NOT_ISOLATED
    assert blob["reset_function"] is None


def test_a_reset_function_of_a_module_needs_no_setting(board: Board) -> None:
    board.kernel.reset_functions.add("acme,crypto-v1")
    crypto = board.devices()[CRYPTO]
    assert (crypto["reset_function"], crypto["settings"]) == (True, NOT_ISOLATED)
    bind(board, crypto)
    assert board.kernel.driver_of(CRYPTO) == "vfio-platform"


def test_a_device_whose_interrupts_are_isolated_needs_no_setting(board: Board) -> None:
    board.kernel.add_node("/its", ("arm,gic-v3-its",))
    board.kernel.put(f"{TREE}/its/msi-controller", b"")
    for path in ("/its/phandle", "/soc/crypto@b000000/msi-parent"):
        board.kernel.put(TREE + path, struct.pack(">I", 7))
    crypto = board.devices()[CRYPTO]
    assert (crypto["isolated_interrupts"], crypto["settings"]) == (True, NO_RESET)


def test_interrupts_that_only_the_kernel_knows_of_ask_for_nothing(board: Board) -> None:
    board.kernel.put(f"{TREE}/soc/crypto@b000000/msi-parent", struct.pack(">I", 7))
    crypto = board.devices()[CRYPTO]
    assert (crypto["isolated_interrupts"], crypto["settings"]) == (None, NO_RESET)


def show_iommu(board: Board, *paths: str) -> None:
    """Give the machine the table of ACPI that names an IOMMU for these devices."""
    behind = [Extra("", acpi_path=path, iommu_group="a") for path in paths]
    board.kernel.put("firmware/acpi/tables/IORT", iort(behind) or b"")


def test_a_device_whose_hardware_id_others_have_is_selected_by_its_uid(board: Board) -> None:
    uids = {"ACME0001:00": "0", "ACME0001:01": "1", "ACME0001:02": "2", "ACME0001:03": "2"}
    for number, (name, uid) in enumerate(uids.items()):
        acpi = (f"\\_SB_.RNG{number}", "ACME0001")
        board.kernel.add_device(name, acpi=acpi, uid=uid, iommus=True)
    board.kernel.add_device("ACME0001:04", acpi=("\\_SB_.RNG4", "ACME0001"), iommus=True)
    board.kernel.add_device("ACME0002:00", acpi=("\\_SB_.RNG5", "ACME0002"), uid="0", iommus=True)
    devices = board.devices()
    by_uid = {"acpi_hid": "ACME0001", "policy": "vfio"}
    assert devices["ACME0001:00"]["entry"] == {**by_uid, "acpi_uid": "0"}
    assert devices["ACME0001:01"]["entry"] == {**by_uid, "acpi_uid": "1"}
    # Firmware may have an id twice, or none.
    for number, name in [(2, "ACME0001:02"), (3, "ACME0001:03"), (4, "ACME0001:04")]:
        entry = {"acpi_path": f"\\_SB_.RNG{number}", "policy": "vfio"}
        assert devices[name]["entry"] == entry
    assert devices["ACME0002:00"]["entry"] == {"acpi_path": "\\_SB_.RNG5", "policy": "vfio"}
    show_iommu(board, "\\_SB_.RNG1")
    bind(board, devices["ACME0001:01"])
    drivers = [board.kernel.driver_of(name) for name in uids]
    assert drivers == [None, "vfio-platform", None, None]


def test_a_device_that_acpi_describes_by_compatibles_is_selected_by_its_path(board: Board) -> None:
    for number in range(2):
        board.kernel.add_device(
            f"PRP0001:0{number}",
            acpi=(f"\\_SB_.ENG{number}", "PRP0001"),
            uid=str(number),
            compatible=("acme,engine-v1", "acme,engine"),
            iommus=True,
        )
    engine = board.devices()["PRP0001:01"]
    assert engine["compatible"] == ["acme,engine-v1", "acme,engine"]
    assert (engine["acpi_hid"], engine["acpi_uid"]) == ("PRP0001", "1")
    assert engine["entry"] == {"acpi_path": "\\_SB_.ENG1", "policy": "vfio"}
    # VFIO asks ACPI for a method, not for a function by the compatible.
    assert engine["reset_function"] is None
    show_iommu(board, "\\_SB_.ENG1")
    bind(board, engine)
    assert board.kernel.driver_of("PRP0001:01") == "vfio-platform"


def test_devices_that_share_a_node_are_selected_by_name(board: Board) -> None:
    board.kernel.add_device("twin", "/soc/crypto@b000000", ("acme,crypto",), iommus=True)
    assert board.devices()[CRYPTO]["entry"] == {"name": CRYPTO, "bus": "platform", "policy": "vfio"}


def test_a_path_that_no_selector_can_have_is_none(board: Board) -> None:
    """Firmware can give a node a name with a quote and a line break."""
    board.kernel.add_device("odd", '/soc/odd"\n@1', ("acme,crypto",), iommus=True)
    assert board.devices()["odd"]["entry"] == {"name": "odd", "bus": "platform", "policy": "vfio"}


def test_an_alias_that_no_selector_can_have_is_none(board: Board) -> None:
    board.kernel.add_alias("an alias 0", "/soc/crypto@b001000")
    expected = {"dt_path": "/soc/crypto@b001000", "policy": "vfio"}
    assert board.devices()[OTHER_CRYPTO]["entry"] == expected


def use_interface(board: Board) -> None:
    board.kernel.put(f"devices/platform/{CRYPTO}/net/eth0/flags", "0x1003\n")


def share_group(board: Board, *, bus: str = "platform") -> None:
    """Add a device with a network interface to the IOMMU group of the crypto engine."""
    group = "devices/platform/b000000.crypto/iommu_group"
    board.kernel.put("devices/sharer/net/eth0/flags", "0x1003\n")
    board.kernel.put("devices/sharer/driver_override", "(null)\n")
    board.kernel.point("devices/sharer/driver", f"bus/{bus}/drivers/acme-eth")
    board.kernel.point("devices/sharer/subsystem", f"bus/{bus}")
    board.kernel.put(f"bus/{bus}/drivers/acme-eth/unbind", "")
    board.kernel.point(f"bus/{bus}/devices/sharer", "devices/sharer")
    board.kernel.point("devices/sharer/iommu_group", board.kernel.tree.resolve(group))
    board.kernel.point(f"{group}/devices/sharer", "devices/sharer")


def driverctl(board: Board, name: str) -> None:
    (board.files_root / "etc/driverctl.d").mkdir()
    board.write_file("/etc/driverctl.d/" + name, "acme-dma-uio\n")


def rule(board: Board, name: str) -> None:
    board.write_file(
        "/etc/udev/rules.d/80-uio.rules",
        f'ACTION=="add", KERNEL=="{name}", ATTR{{driver_override}}="acme-dma-uio"\n',
    )


def unsigned(board: Board) -> None:
    board.kernel.put("module/module/parameters/sig_enforce", "Y\n")
    board.kmod.without_signature = {"vfio_platform"}


SITUATIONS: dict[str, tuple[Callable[[Board], object], str, list[tuple[str, str]]]] = {
    "no iommus": (
        lambda _board: None,
        DMA,
        [("no_iommu_group", "no IOMMU group")],
    ),
    "its group has a device that is in use": (
        share_group,
        CRYPTO,
        [
            (
                "group",
                "shares IOMMU group 1 with %s, which cannot be bound to VFIO"
                % "platform/sharer (acme-eth)",
            )
        ],
    ),
    "its group has a device of another bus": (
        lambda board: share_group(board, bus="i2s"),
        CRYPTO,
        [
            (
                "group",
                "shares IOMMU group 1 with %s, which cannot be bound to VFIO"
                % "i2s/sharer (acme-eth)",
            )
        ],
    ),
    "the driver has no unbind": (
        lambda board: board.kernel.register(
            Driver("eth", compatible=("acme,eth",), suppress_bind_attrs=True)
        ),
        ETHERNET,
        [("no_unbind", "driver eth has no unbind and is built into the kernel")],
    ),
    "an interface is up": (
        use_interface,
        CRYPTO,
        [("network", "in use: network interface eth0 is up")],
    ),
    "the kernel has no VFIO": (
        lambda board: board.kmod.modules.__delitem__("vfio_platform"),
        CRYPTO,
        [("no_vfio_driver", "the kernel has no vfio-platform")],
    ),
    "driverctl has it": (
        lambda board: driverctl(board, "platform-" + CRYPTO),
        CRYPTO,
        [("driverctl", "driverctl has an override stored for it")],
    ),
    "a udev rule has it": (
        lambda board: rule(board, CRYPTO),
        CRYPTO,
        [
            (
                "foreign_rule",
                "/etc/udev/rules.d/80-uio.rules:1 sets its driver_override at each boot",
            )
        ],
    ),
    "modules must be signed": (
        unsigned,
        CRYPTO,
        [("unsigned_module", "module vfio_platform is not signed, and the kernel requires it")],
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_reason_is_told_and_is_that_of_a_run(board: Board, situation: str) -> None:
    change, name, expected = SITUATIONS[situation]
    change(board)
    assert reasons(board, name) == expected
    device = board.devices()[name]
    assert device["candidate"] is False
    with board.unchanged(), pytest.raises(PolicyError):
        bind(board, device)


def test_each_candidate_is_bound_to_vfio(tmp_path: Path, board: Board) -> None:
    names = candidates(board)
    assert names == {CRYPTO, OTHER_CRYPTO, ETHERNET, BLOB}
    for number, name in enumerate(sorted(names)):
        alone = acme_board(tmp_path / str(number))
        bind(alone, alone.devices()[name])
        assert "vfio" in str(alone.kernel.driver_of(name))
    bind(board, *(board.devices()[name] for name in names))
    assert all("vfio" in str(board.kernel.driver_of(name)) for name in names)


def test_a_device_that_no_iommu_is_active_for_is_no_candidate(board: Board) -> None:
    """host_policy would try to bind it, and the kernel would refuse."""
    board.kernel.remove("class/iommu")
    assert reasons(board, ETHERNET) == [("no_iommu_group", "no IOMMU group")]


def add_iommu(board: Board, compatible: str, *coherent: str) -> None:
    """Describe the IOMMU of the engines; ``coherent`` are the nodes that have dma-coherent."""
    board.kernel.add_node("/smmu", (compatible,))
    board.kernel.put(f"{TREE}/smmu/phandle", struct.pack(">I", 1))
    board.kernel.point("devices/platform/smmu/of_node", TREE + "/smmu")
    board.kernel.point("class/iommu/smmu3.0x0000000009050000/device", "devices/platform/smmu")
    for path in coherent:
        board.kernel.put(f"{TREE}{path}/dma-coherent", "")


@pytest.mark.parametrize(
    ("compatible", "coherent", "is_accepted"),
    [
        ("arm,smmu-v3", ["/smmu"], True),
        ("arm,smmu-v3", ["/soc/crypto@b000000"], False),
        ("arm,mmu-500", ["/soc"], True),
        ("arm,mmu-500", [], False),
        ("qcom,smmu-v2", ["/soc"], True),
        ("qcom,msm-iommu-v2", [], True),
        ("rockchip,iommu", ["/smmu"], False),
    ],
)
def test_vfio_accepts_only_iommus_that_are_cache_coherent(
    board: Board, compatible: str, coherent: list[str], is_accepted: bool
) -> None:
    add_iommu(board, compatible, *coherent)
    expected = [] if is_accepted else [("iommu_not_coherent", "its IOMMU is not cache coherent")]
    assert reasons(board, CRYPTO) == expected


@pytest.mark.parametrize("name", ["interrupt-controller", "#clock-cells"])
def test_what_the_kernel_may_use_without_a_driver_is_no_candidate(board: Board, name: str) -> None:
    board.kernel.put(f"{TREE}/soc/ethernet@e0700000/{name}", "")
    assert reasons(board, ETHERNET) == [
        ("provider", f"the kernel may use it without a driver ({name})")
    ]


def test_a_device_without_registers_is_no_candidate(board: Board) -> None:
    board.kernel.remove(f"{TREE}/soc/crypto@b000000/reg")
    assert reasons(board, CRYPTO) == [("no_registers", "it has no registers that VFIO could show")]


def test_an_iommu_that_is_not_active_isolates_no_device(board: Board) -> None:
    add_iommu(board, "arm,smmu-v3", "/smmu")
    board.kernel.put(f"{TREE}/smmu/phandle", struct.pack(">I", 2))
    assert reasons(board, ETHERNET) == [("no_iommu_group", "no IOMMU group")]


def test_a_group_of_candidates_is_bound_as_a_whole(board: Board) -> None:
    for name in ("left", "right"):
        path = f"/soc/{name}@1"
        board.kernel.add_device(name, path, ("acme,crypto",), iommus=True, group="pair")
    left, right = board.devices()["left"], board.devices()["right"]
    assert (left["iommu_group_devices"], right["iommu_group_devices"]) == (["right"], ["left"])
    assert left["candidate"] is True
    with pytest.raises(PolicyError, match="of the same IOMMU group"):
        bind(board, left)
    bind(board, left, right)
    assert board.kernel.driver_of("left") == board.kernel.driver_of("right") == "vfio-platform"


def test_what_is_bound_to_vfio_is_a_candidate_still(board: Board) -> None:
    bind(board, board.devices()[CRYPTO])
    assert board.devices()[CRYPTO]["candidate"] is True


def test_without_an_iommu_every_device_is_a_candidate_once_vfio_does_without(board: Board) -> None:
    board.kmod.load("vfio")
    board.kernel.put("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
    dma = board.devices()[DMA]
    assert dma["candidate"] is True
    assert dma["settings"] == {**NO_RESET, "unsafe_noiommu": True}
    bind(board, dma)
    assert board.kernel.driver_of(DMA) == "vfio-platform"


def test_what_the_kernel_made_by_itself_is_no_candidate_even_then(board: Board) -> None:
    board.kernel.add_device("serial8250", None, ())
    board.kmod.load("vfio")
    board.kernel.put("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
    serial = board.devices()["serial8250"]
    assert serial["candidate"] is False
    assert [reason["kind"] for reason in serial["why_not"]] == ["no_firmware_id"]


def test_without_the_question_there_is_no_answer(board: Board) -> None:
    findings = board.inspect(None, with_candidates=False)
    (device,) = device_info.inspections(findings)["devices"][:1]
    assert device["candidate"] is None
    assert device["why_not"] is None
