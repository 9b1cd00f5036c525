"""Virtual functions that are made by hand are selected like any function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply
from tests.harness.playbook import play
from tests.harness.sysfs import files, read_machine
from tests.pci.functions import NVME_ID, PHYSICAL, VFIO, VIRTUAL
from tests.pci.nvme import (
    assign_queues,
    create_virtual_functions,
    probe_virtual_functions,
    remove_virtual_functions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"
PROGRAM = "/root/read_registers.py"
GIVEN, KEPT, NATIVE = VIRTUAL[:3]
LIST: list[dict[str, Any]] = [
    {"pci_address": GIVEN, "pci_id": NVME_ID, "policy": "vfio", "tag": "queues"},
    {"pci_address": KEPT, "pci_id": NVME_ID, "policy": "no_autobind"},
]
NONE = (None, "none")


@pytest.fixture(scope="module", autouse=True)
def _virtual_functions(guest: Guest, inventory: Path) -> Iterator[None]:
    """Make three of four, with their native driver, and leave none."""
    before = read_machine(guest).bindings
    create_virtual_functions(guest, 3)
    assign_queues(guest)
    probe_virtual_functions(guest)
    yield
    assert play(inventory, "armfleet.vfio.release").code == 0
    remove_virtual_functions(guest)
    assert read_machine(guest).bindings == before
    assert files(guest) == {}


def test_each_has_the_native_driver_and_a_group_of_its_own(guest: Guest) -> None:
    machine = read_machine(guest)
    assert machine.virtual_functions(PHYSICAL) == [GIVEN, KEPT, NATIVE]
    for address in (PHYSICAL, GIVEN, KEPT, NATIVE):
        assert machine.named(address).binding == ("nvme", None)
        assert machine.group_of(address) == {address}


def test_some_are_given_away_and_the_others_stay(guest: Guest, inventory: Path) -> None:
    run = apply(inventory, LIST)
    assert run.code == 0, run.output
    machine = read_machine(guest)
    assert machine.named(PHYSICAL).binding == ("nvme", None)
    assert [machine.named(address).binding for address in (GIVEN, KEPT, NATIVE)] == [
        VFIO,
        NONE,
        ("nvme", None),
    ]
    assert apply(inventory, LIST).changed == {guest.name: 0}


def test_user_space_reads_a_register_through_the_tag(guest: Guest) -> None:
    """VS, the version of NVMe: 1.4."""
    guest.put(EXAMPLE, PROGRAM)
    guest.run("udevadm settle")
    read = guest.run(f"python3 {PROGRAM} /dev/vfio/by-tag/queues --offset 0x8").stdout
    assert read == "0x008 0x00010400\n"


def test_the_physical_function_is_in_use_by_them(inventory: Path, guest: Guest) -> None:
    before = read_machine(guest).bindings
    entry = {"pci_address": PHYSICAL, "policy": "no_autobind"}
    message = apply(inventory, [*LIST, entry]).refusal
    for address, driver in ((GIVEN, "vfio-pci"), (NATIVE, "nvme")):
        assert f"its virtual function {address} is bound to {driver}" in message
    assert KEPT not in message
    assert read_machine(guest).bindings == before


def test_one_that_appears_again_is_bound_as_listed(guest: Guest) -> None:
    remove_virtual_functions(guest)
    create_virtual_functions(guest, 3)
    assign_queues(guest)
    machine = read_machine(guest)
    assert machine.named(GIVEN).binding == VFIO
    assert machine.named(KEPT).binding == NONE
    probe_virtual_functions(guest)
    assert read_machine(guest).named(NATIVE).binding == ("nvme", None)
