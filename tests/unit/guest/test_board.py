# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The devices of each board fit together, and its state is saved only if QEMU can do that."""

from __future__ import annotations

import re

import pytest

from tests.guest import board
from tests.guest.board import BOARDS, Hardware

BY_NAME = pytest.mark.parametrize("name", BOARDS)


def names(hardware: Hardware, option: str) -> list[str]:
    """Return the values of an option of all devices, sorted."""
    return sorted(re.findall(rf"\b{option}=([^,]+)", ",".join(hardware.devices)))


@BY_NAME
def test_each_disk_and_network_is_that_of_one_device(name: str) -> None:
    hardware = BOARDS[name].hardware
    # QEMU's model of a board has its SD hosts and network card already.
    disks = [f"spare{number}" for number in range(hardware.sd_cards, hardware.spare_disks)]
    networks = [f"spare{number}" for number in range(hardware.spare_networks)]
    assert names(hardware, "drive") == ["disk", *disks]
    assert names(hardware, "netdev") == [*([] if hardware.model else ["net"]), *networks]


@BY_NAME
def test_each_device_is_on_a_bus_that_an_earlier_one_makes(name: str) -> None:
    made = {f"virtio-mmio-bus.{number}" for number in range(32)}
    for device in BOARDS[name].hardware.devices:
        assert set(re.findall(r"\bbus=([^,]+)", device)) <= made
        made |= set(re.findall(r"\bid=([^,]+)", device))


def test_boards_with_an_nvme_and_models_are_booted_each_time() -> None:
    booted = {name for name, board in BOARDS.items() if not board.hardware.can_be_saved}
    assert booted == {"d", "pci", "pci-acpi", "pci-moved", "versal"}


def test_interrupts_of_one_board_are_not_isolated() -> None:
    """Its machine has no ITS."""
    machines = {name: ",".join(board.hardware.machine) for name, board in BOARDS.items()}
    without = [name for name, machine in machines.items() if "gic-version=2" in machine]
    assert without == ["acpi-gicv2"]
    assert not [name for name, machine in machines.items() if "%" in machine]


def test_a_model_changes_no_device_tree_of_the_other_boards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their directory, and with it each saved guest, keeps its name."""
    monkeypatch.setattr(board, "qemu_version", lambda: "QEMU emulator version 7.2\n")
    before = board.device_trees().folder
    others = {name: other for name, other in BOARDS.items() if not other.hardware.model}
    assert len(others) < len(BOARDS)
    monkeypatch.setattr(board, "BOARDS", others)
    assert board.device_trees().folder == before
