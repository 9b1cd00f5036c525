"""Cards that change places between two boots: an entry takes no other card than it is for.

These tests come last, because the guest is of another board afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply
from tests.harness.playbook import play
from tests.harness.sysfs import files, read_machine
from tests.pci.functions import (
    DISK,
    EDU,
    EDU_ID,
    ETHERNET,
    ETHERNET_ID,
    NVME_ID,
    VARIANT,
    VFIO,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

LIST = [
    {"pci_address": ETHERNET, "pci_id": ETHERNET_ID, "policy": "vfio"},
    {"pci_address": DISK, "pci_id": NVME_ID, "policy": "no_autobind"},
    {"pci_id": EDU_ID, "policy": "vfio"},
]
MOVED_EDU = "0000:00:09.0"


def test_a_card_that_took_the_place_of_a_listed_one_keeps_its_driver(
    guest: Guest, inventory: Path
) -> None:
    run = apply(inventory, LIST)
    assert run.code == 0, run.output
    machine = read_machine(guest)
    assert [machine.named(name).binding for name in (ETHERNET, DISK, EDU)] == [
        VFIO,
        (None, "none"),
        VARIANT,
    ]

    guest.start_again(board="pci-moved")
    machine = read_machine(guest)
    for name, pci_id in ((ETHERNET, NVME_ID), (DISK, ETHERNET_ID), (MOVED_EDU, EDU_ID)):
        assert str(machine.named(name).pci_id).startswith(pci_id)
    assert machine.named(ETHERNET).binding == ("nvme", None)
    assert machine.named(DISK).binding == ("e1000e", None)
    # An entry by id follows its card.
    assert machine.named(MOVED_EDU).binding == VARIANT

    before = machine.bindings
    lines = apply(inventory, LIST).refusal.splitlines()
    assert [line for line in lines if ETHERNET in line and ETHERNET_ID in line and NVME_ID in line]
    assert [line for line in lines if DISK in line and ETHERNET_ID in line and NVME_ID in line]
    assert len(lines) == 2
    assert read_machine(guest).bindings == before


def test_a_list_with_the_new_addresses_is_applied(guest: Guest, inventory: Path) -> None:
    moved = [
        {**LIST[0], "pci_address": DISK},
        {**LIST[1], "pci_address": ETHERNET},
        LIST[2],
    ]
    run = apply(inventory, moved)
    assert run.code == 0, run.output
    machine = read_machine(guest)
    assert machine.named(DISK).binding == VFIO
    assert machine.named(ETHERNET).binding == (None, "none")
    assert apply(inventory, moved).changed == {guest.name: 0}
    assert play(inventory, "armfleet.vfio.release").code == 0
    assert files(guest) == {}
