"""Numbers of virtual functions that are not changed, and runs that are rolled back with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply, refused
from tests.harness.sysfs import read_machine
from tests.pci.functions import DISK, EDU, ETHERNET, PHYSICAL, VIRTUAL
from tests.pci.nvme import bind_to_vfio, create_virtual_functions, remove_virtual_functions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

NUMBER = f"/sys/bus/pci/devices/{PHYSICAL}/sriov_numvfs"
CRYPTO = {"dt_path": "/soc/crypto@b000000", "policy": "vfio"}


def of_physical(number: int, **keys: Any) -> dict[str, Any]:
    return {"pci_address": PHYSICAL, "policy": "default", "sriov_numvfs": number, **keys}


ON_VFIO = [{"pci_address": address, "policy": "vfio"} for address in VIRTUAL[:2]]


@pytest.fixture(autouse=True)
def _no_virtual_functions(
    released_guest: None,  # noqa: ARG001 (it looks at the guest after this one)
    guest: Guest,
) -> Iterator[None]:
    """Each test begins and ends with none."""
    yield
    remove_virtual_functions(guest)


def list_of(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"devices": [CRYPTO, *entries], "reset_required": False}


@pytest.mark.nightly
def test_a_number_that_cannot_be_is_one_sentence_each(inventory: Path) -> None:
    entries = [
        of_physical(5),
        {**of_physical(1), "pci_address": DISK},
        {**CRYPTO, "policy": "default", "sriov_numvfs": 1},
    ]
    message = apply(inventory, entries).refusal
    too_many, disk, crypto = message.splitlines()
    assert "can have 4 virtual functions, but sriov_numvfs is 5" in too_many
    assert f"{DISK} has no virtual functions" in disk
    assert "b000000.crypto) has no virtual functions" in crypto


@pytest.mark.nightly
def test_functions_that_somebody_else_created_and_uses_are_not_removed(
    guest: Guest, inventory: Path
) -> None:
    create_virtual_functions(guest, 2)
    bind_to_vfio(guest, VIRTUAL[0])
    before = read_machine(guest).bindings
    (line,) = apply(inventory, [of_physical(4)]).refusal.splitlines()
    assert f"{VIRTUAL[0]} is in use: it is bound to vfio-pci" in line
    assert "a change of sriov_numvfs removes it" in line
    assert read_machine(guest).bindings == before
    assert guest.run(f"cat {NUMBER}").stdout.strip() == "2"


@pytest.mark.nightly
def test_a_driver_without_virtual_functions_is_named_and_all_is_rolled_back(
    guest: Guest, inventory: Path
) -> None:
    guest.run("modprobe pci-stub")
    before = read_machine(guest).bindings
    entry = of_physical(4, policy="driver", driver="pci-stub")
    (task,) = refused(inventory, [("host_policy", list_of(entry))])
    assert "cannot set sriov_numvfs to 4 (was 0)" in task.refusal
    assert "It is bound to pci-stub, which creates no virtual functions" in task.refusal
    assert "all changes of this run were rolled back" in task.refusal
    assert read_machine(guest).bindings == before


def test_a_last_device_that_fails_rolls_back_all_buses_and_virtual_functions(
    guest: Guest, inventory: Path
) -> None:
    before = read_machine(guest).bindings
    # Its probe rejects the function.
    failing = {"pci_address": EDU, "policy": "driver", "driver": "e1000e"}
    ethernet = {"pci_address": ETHERNET, "policy": "vfio"}
    listed = list_of(of_physical(4), *ON_VFIO, ethernet, failing)
    (task,) = refused(inventory, [("host_policy", listed)])
    assert f"{EDU}: cannot bind to e1000e" in task.refusal
    assert "all changes of this run were rolled back" in task.refusal
    assert read_machine(guest).bindings == before
    assert guest.run(f"cat {NUMBER}").stdout.strip() == "0"


@pytest.mark.nightly
def test_no_number_changes_while_a_function_is_open(guest: Guest, inventory: Path) -> None:
    listed = list_of(of_physical(2), *ON_VFIO)
    assert apply(inventory, listed["devices"], reset_required=False).code == 0
    before = read_machine(guest)
    assert [before.named(address).driver for address in VIRTUAL[:2]] == ["vfio-pci"] * 2
    node = f"/dev/vfio/{before.named(VIRTUAL[1]).group}"
    guest.run(f"setsid sleep infinity < {node} > /dev/null 2>&1 & echo $! > /run/holder")
    try:
        asked = [
            ("host_policy", list_of(of_physical(number), *ON_VFIO[:kept]))
            for number, kept in ((0, 0), (1, 1), (4, 2))
        ]
        for task in refused(inventory, [*asked, ("host_policy", {"state": "absent"})]):
            assert f"{VIRTUAL[1]} is in use: {node} is held open by" in task.refusal
        assert read_machine(guest).bindings == before.bindings
    finally:
        guest.run("kill $(cat /run/holder)")
