"""PCI functions get the drivers that a list asks for, and what must not be taken is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, Board, acme_board
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

NIC, DISK, CARD = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"
# Two functions of a slot that does not isolate them.
TWINS = ("0000:00:04.0", "0000:00:04.1")
FUNCTIONS = (
    "0000:00:01.0 1b36:000c 060400 bus=01",
    f"{NIC} 8086:10d3:8086:a01f 020000",
    "0000:00:02.0 1b36:000c 060400 bus=02",
    f"{DISK} 1b36:0010:1af4:1100 010802",
    "0000:00:03.0 1b36:000c 060400 bus=03",
    f"{CARD} 15b3:101e:15b3:0058 020000",
    f"{TWINS[0]} 14e4:16d7 020000 acs=no",
    f"{TWINS[1]} 14e4:16d7 020000 acs=no reset=none",
)
NODES = {DISK: ("/pcie@10000000/nvme@2,0", ("pci1b36,10",))}
NATIVES = {
    "e1000e": "8086:10d3",
    "nvme": "1b36:0010",
    "mlx5_core": "15b3:101e",
    "bnxt_en": "14e4:16d7",
}
VFIO, KEPT_OFF = ("vfio-pci", "vfio-pci"), (None, "none")
BY_ADDRESS = {"pci_address": NIC, "policy": "vfio"}


@pytest.fixture
def server(tmp_path: Path) -> Board:
    """A board with PCI functions of several kinds."""
    board = acme_board(tmp_path)
    board.kernel.add_functions(*FUNCTIONS, nodes=NODES)
    for name, pci_id in NATIVES.items():
        board.kernel.register(Driver(name, "pci", pci_ids=(pci_id,)))
    return board


def binding(board: Board, name: str) -> tuple[str | None, str | None]:
    return board.kernel.binding(name)


def steps(name: str, outcome: Any) -> list[str]:
    devices = {device["name"]: device for device in results.result(outcome)["devices"]}
    reported: list[str] = devices[name]["steps"]
    return reported


def test_one_list_has_functions_and_devices_of_other_buses(server: Board) -> None:
    entries = [
        CRYPTO,
        {**BY_ADDRESS, "pci_id": "8086:10d3"},
        {"dt_path": "/pcie@10000000/nvme@2,0", "policy": "vfio"},
        {"pci_id": "15b3:101e", "policy": "no_autobind"},
    ]
    settings = {"reset_required": False}
    predicted = server.check(entries, **settings)
    outcome = server.apply(entries, **settings)
    assert [device.after.driver for device in predicted.devices] == [
        device.after.driver for device in outcome.devices
    ]
    assert binding(server, NIC) == binding(server, DISK) == VFIO
    assert binding(server, CARD) == KEPT_OFF
    assert server.kernel.binding("b000000.crypto") == ("vfio-platform", "vfio-platform")
    server.kernel.writes.clear()
    assert not server.apply(entries, **settings).is_changed
    assert server.kernel.writes == []
    server.apply([])
    assert [binding(server, name) for name in (NIC, DISK, CARD)] == [
        ("e1000e", None),
        ("nvme", None),
        ("mlx5_core", None),
    ]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"pci_address": NIC}, [NIC]),
        ({"pci_id": "8086:10d3"}, [NIC]),
        ({"pci_id": "8086:10d3:8086:a01f"}, [NIC]),
        ({"pci_id": "14e4:16d7"}, [*TWINS]),
        ({"name": NIC, "bus": "pci"}, [NIC]),
        ({"dt_path": "/pcie@10000000/nvme@2,0"}, [DISK]),
        ({"compatible": "pci1b36,10"}, [DISK]),
    ],
)
def test_a_function_is_selected_in_each_way(
    server: Board, selector: dict[str, str], names: list[str]
) -> None:
    outcome = server.apply([{**selector, "policy": "no_autobind"}])
    assert [device.device.name for device in outcome.devices] == names
    assert {binding(server, name) for name in names} == {KEPT_OFF}


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ({"pci_address": "0000:09:00.0"}, "no PCI function has it; 'lspci -D' lists them"),
        ({"pci_address": "0000:01:00.7"}, "the device at it has only 0000:01:00.0"),
        ({"pci_id": "8086:1521"}, "no PCI function has it; 'lspci -Dnn' lists them"),
        (
            {"pci_id": "8086:10d3:8086:0001"},
            "have other subsystems: 0000:01:00.0 (8086:10d3:8086:a01f)",
        ),
    ],
)
def test_it_is_said_why_no_function_is_selected(
    server: Board, selector: dict[str, str], reason: str
) -> None:
    (problem,) = server.refused([{**selector, "policy": "vfio"}])
    assert reason in problem


def test_another_card_at_the_address_is_an_error_and_is_not_bound_at_boot(server: Board) -> None:
    (problem,) = server.refused([{**BY_ADDRESS, "pci_id": "15b3:1017"}])
    assert "is for a card with pci_id '15b3:1017', but 8086:10d3:8086:a01f is there" in problem
    server.apply([{**BY_ADDRESS, "pci_id": "8086:10d3:8086:a01f"}])
    (rule,) = [
        line for line in (server.file(RULES) or "").splitlines() if f'KERNEL=="{NIC}"' in line
    ]
    assert 'ENV{PCI_ID}=="8086:10D3", ENV{PCI_SUBSYS_ID}=="8086:A01F"' in rule


def test_a_card_that_took_the_place_of_a_listed_one_fails_no_other_list(server: Board) -> None:
    server.apply([{**BY_ADDRESS, "pci_id": "8086:10d3"}])
    path = server.files_root / RULES[1:]
    path.write_text(path.read_text().replace("8086:10d3", "15b3:1017"))
    server.inspect(None)
    assert server.apply([CRYPTO], reset_required=False).is_changed


@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
@pytest.mark.parametrize("selector", [{"pci_address": "0000:00:01.0"}, {"pci_id": "1b36:000c"}])
def test_a_bridge_is_never_taken(server: Board, selector: dict[str, str], policy: str) -> None:
    problems = server.refused([{**selector, "policy": policy}], allow=["consumers", "group"])
    assert "0000:00:01.0 is a PCI bridge (bus 1)" in problems[0]


def test_the_host_bridge_is_never_taken(server: Board) -> None:
    server.kernel.add_functions("0000:00:00.0 1b36:0008 060000 driver=none")
    (problem,) = server.refused([{"pci_address": "0000:00:00.0", "policy": "vfio"}])
    assert "0000:00:00.0 is a PCI bridge (the host bridge)" in problem


def test_a_function_is_refused_as_long_as_another_of_its_group_keeps_its_driver(
    server: Board,
) -> None:
    (problem,) = server.refused([{"pci_address": TWINS[0], "policy": "vfio"}])
    assert f"pci/{TWINS[1]} of the same IOMMU group" in problem
    assert "is bound to bnxt_en" in problem
    entries = [
        {"pci_address": TWINS[0], "policy": "vfio"},
        {"pci_address": TWINS[1], "policy": "no_autobind"},
    ]
    server.apply(entries)
    assert binding(server, TWINS[0]) == VFIO


def test_the_bridge_above_a_function_may_keep_its_driver(server: Board) -> None:
    server.apply([BY_ADDRESS])
    assert binding(server, NIC) == VFIO
    assert binding(server, "0000:00:01.0") == ("pcieport", None)


def test_a_function_without_a_group_is_refused(server: Board) -> None:
    server.kernel.add_functions("0000:00:05.0 1af4:1041 020000 driver=none iommu_group=none")
    server.kernel.remove("class/iommu")
    (problem,) = server.refused([{"pci_address": "0000:00:05.0", "policy": "vfio"}])
    assert "has no IOMMU group (no IOMMU is active in front of its host bridge)" in problem


def test_neither_a_firmware_node_nor_a_reset_function_is_required(server: Board) -> None:
    outcome = server.apply([{"pci_id": "14e4:16d7", "policy": "vfio"}])
    assert [binding(server, name) for name in TWINS] == [VFIO, VFIO]
    (warning,) = outcome.warnings
    assert warning.startswith(f"The kernel cannot reset pci device {TWINS[1]}, so each user")


@pytest.mark.parametrize("screen", ["BOOTFB", "efifb", "simplefb"])
def test_the_function_with_the_screen_of_the_firmware_is_refused(
    server: Board, screen: str
) -> None:
    (server.proc / "iomem").write_text(
        "00000000-0fffffff : System RAM\n"
        "10000000-3efeffff : PCI Bus 0000:00\n"
        "  10000000-101fffff : PCI Bus 0000:03\n"
        f"    10000000-100fffff : {CARD}\n"
        f"      10000000-100bffff : {screen}\n"
        f"  10200000-102fffff : {NIC}\n"
    )
    (problem,) = server.refused([{"pci_id": "15b3:101e", "policy": "vfio"}, BY_ADDRESS])
    assert f"{CARD} is in use: the screen that the firmware set up ({screen})" in problem


def test_a_function_with_the_screen_and_without_a_driver_is_refused(server: Board) -> None:
    server.kernel.add_functions("0000:00:06.0 1002:5046 030000 driver=none")
    (server.proc / "iomem").write_text(
        "10000000-3efeffff : PCI Bus 0000:00\n"
        "  10000000-10ffffff : 0000:00:06.0\n"
        "    10000000-1012bfff : simplefb\n"
    )
    (problem,) = server.refused([{"pci_address": "0000:00:06.0", "policy": "vfio"}])
    assert "is in use: the screen that the firmware set up (simplefb)" in problem
    assert server.inspect(None, with_candidates=True)
    server.apply([{"pci_address": "0000:00:06.0", "policy": "no_autobind"}])
    assert binding(server, "0000:00:06.0") == KEPT_OFF


class TestVariants:
    """The kernel has VFIO drivers for some functions alone."""

    @pytest.fixture(autouse=True)
    def _variant(self, server: Board) -> None:
        driver = Driver("mlx5_vfio_pci", "pci", vfio_ids=("15b3:101e",), module="mlx5_vfio_pci")
        server.kmod.modules["mlx5_vfio_pci"] = BoardModule(name="mlx5_vfio_pci", drivers=(driver,))

    ENTRIES = [{"pci_id": "15b3:101e", "policy": "vfio"}, BY_ADDRESS]  # noqa: RUF012 -- never changed

    def test_a_function_gets_the_driver_that_a_module_names(self, server: Board) -> None:
        outcome = server.apply(self.ENTRIES)
        assert binding(server, CARD) == ("mlx5_vfio_pci", "mlx5_vfio_pci")
        assert binding(server, NIC) == VFIO
        assert "bind to mlx5_vfio_pci, the kernel's VFIO driver for 15b3:101e" in steps(
            CARD, outcome
        )
        (devices, *_files) = results.diff(outcome)
        (line,) = [line for line in devices["after"].splitlines() if CARD in line]
        assert line.endswith("the kernel's VFIO driver for 15b3:101e")
        assert not server.apply(self.ENTRIES).is_changed

    def test_it_is_released_to_its_native_driver(self, server: Board) -> None:
        server.apply(self.ENTRIES)
        server.apply([])
        assert binding(server, CARD) == ("mlx5_core", None)

    def test_the_list_can_ask_for_another(self, server: Board) -> None:
        server.apply([{**self.ENTRIES[0], "vfio_driver": "vfio-pci"}])
        assert binding(server, CARD) == VFIO

    def test_the_next_boot_loads_and_binds_it(self, server: Board) -> None:
        server.apply(self.ENTRIES)
        assert (server.file(MODULES_LOAD) or "").splitlines()[-2:] == ["vfio-pci", "mlx5_vfio_pci"]
        rules = server.file(RULES) or ""
        assert 'ENV{PCI_ID}=="15B3:101E", ENV{PCI_SUBSYS_ID}=="15B3:0058"' in rules
        findings = {entry.device.name: entry for entry in server.inspect(None).devices}
        assert findings[CARD].next_boot.binding.driver == "mlx5_vfio_pci"
        assert [findings[name].drift for name in (CARD, NIC)] == [[], []]

    def test_one_that_a_newer_kernel_has_replaces_the_driver_for_all(self, server: Board) -> None:
        variant = server.kmod.modules.pop("mlx5_vfio_pci")
        server.apply(self.ENTRIES)
        assert binding(server, CARD) == VFIO
        server.kmod.modules["mlx5_vfio_pci"] = variant
        assert server.apply(self.ENTRIES).is_changed
        assert binding(server, CARD) == ("mlx5_vfio_pci", "mlx5_vfio_pci")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"pci_address": NIC, "vfio_driver": "e1000e"}, "is not the name of a VFIO driver"),
        ({"pci_address": NIC, "vfio_driver": "vfio-amba"}, "is not a driver for"),
        ({"name": "b002000.dma", "vfio_driver": "vfio-pci"}, "is not a driver for"),
        (
            {"pci_address": NIC, "vfio_driver": "vfio-pci", "policy": "no_autobind"},
            "requires policy vfio, but the entry has policy no_autobind",
        ),
    ],
)
def test_a_vfio_driver_that_cannot_be_is_refused(
    server: Board, entry: dict[str, str], reason: str
) -> None:
    (problem,) = server.refused([{"policy": "vfio", **entry}])
    assert reason in problem


SWAPPED = (
    "0000:00:01.0 1b36:000c 060400 bus=01",
    f"{NIC} 1b36:0010:1af4:1100 010802",
    "0000:00:02.0 1b36:000c 060400 bus=02",
    f"{DISK} 8086:10d3:8086:a01f 020000",
)


@pytest.mark.parametrize("pci_id", [{}, {"pci_id": "8086:10d3"}])
def test_cards_that_changed_places_are_released_to_their_own_drivers(
    server: Board, tmp_path: Path, pci_id: dict[str, str]
) -> None:
    server.apply([{**BY_ADDRESS, **pci_id}, {"pci_address": DISK, "policy": "no_autobind"}])
    rules = server.file(RULES)
    assert rules is not None

    (tmp_path / "swapped").mkdir()
    swapped = acme_board(tmp_path / "swapped")
    for name in ("e1000e", "nvme"):
        swapped.kernel.register(Driver(name, "pci", pci_ids=(NATIVES[name],)))
    swapped.kernel.add_functions(*SWAPPED)
    swapped.write_file(RULES, rules)
    moved = {"pci_address": DISK, "policy": "vfio", "pci_id": "8086:10d3"}
    swapped.apply([moved, {"pci_address": NIC, "policy": "no_autobind"}])
    assert (binding(swapped, DISK), binding(swapped, NIC)) == (VFIO, KEPT_OFF)

    predicted = swapped.check([])
    outcome = swapped.apply([])
    assert (binding(swapped, DISK), binding(swapped, NIC)) == (("e1000e", None), ("nvme", None))
    assert [device.after for device in predicted.devices] == [
        device.after for device in outcome.devices
    ]
