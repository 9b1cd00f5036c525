"""The main job on the same functions when the machine boots with ACPI, as most ARM servers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply_role
from tests.harness.playbook import Run, play
from tests.harness.sysfs import files, read_machine
from tests.pci.functions import (
    DISK,
    ETHERNET,
    ETHERNET_ID,
    ETHERNET_NODE,
    FIRST,
    NETWORK,
    NVME_ID,
    PORT,
    SECOND,
    SWITCH,
    VFIO,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest
    from tests.harness.sysfs import Binding

pytestmark = pytest.mark.nightly

SETTINGS = {"passthrough_reset_required": False, "passthrough_unsafe_noiommu": True}
LIST: list[dict[str, Any]] = [
    {"acpi_path": "\\_SB_.VR00", "policy": "vfio"},
    {"acpi_hid": "LNRO0005", "policy": "no_autobind", "when_board": "linux,dummy-virt"},
    {"pci_address": ETHERNET, "pci_id": ETHERNET_ID, "policy": "vfio"},
    {"pci_address": DISK, "pci_id": NVME_ID, "policy": "no_autobind"},
    {"pci_address": FIRST, "policy": "vfio"},
    {"pci_address": SECOND, "policy": "vfio"},
    # The same function as that of the device tree, on machines that have one.
    {"dt_path": ETHERNET_NODE, "policy": "vfio", "when_board": "linux,dummy-virt"},
]
WANTED: dict[str, Binding] = {
    "platform/LNRO0005:00": ("vfio-platform", "vfio-platform"),
    f"pci/{ETHERNET}": VFIO,
    f"pci/{DISK}": (None, "none"),
    f"pci/{FIRST}": VFIO,
    f"pci/{SECOND}": VFIO,
}


class Story:
    """What later tests compare with."""

    untouched: dict[str, Binding]


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    return start(f"test-pci-acpi-{kernel.replace('.', '-')}", "pci-acpi", kernel)


def apply(inventory: Path, *arguments: str) -> Run:
    return apply_role(inventory, dict(SETTINGS, passthrough_devices=LIST), *arguments)


def assert_in_sync(guest: Guest) -> None:
    assert read_machine(guest).bindings == {**Story.untouched, **WANTED}


def test_groups_are_those_of_single_functions_where_ports_isolate(guest: Guest) -> None:
    machine = read_machine(guest)
    assert [machine.group_of(name) for name in (PORT, ETHERNET, FIRST, NETWORK)] == [
        {PORT},
        {ETHERNET},
        {FIRST, SECOND},
        # The port of a switch does not isolate.
        {SWITCH[1], NETWORK},
    ]


def test_apply_does_what_the_check_predicted(guest: Guest, inventory: Path) -> None:
    Story.untouched = read_machine(guest).bindings
    predicted = apply(inventory, "--check").of("armfleet.vfio.host_policy")
    done = apply(inventory).of("armfleet.vfio.host_policy")
    assert done["diff"] == predicted["diff"]
    assert_in_sync(guest)
    machine = read_machine(guest)
    assert {machine.named(name).group for name in (ETHERNET, FIRST)} <= set(machine.nodes)
    assert apply(inventory).changed == {guest.name: 0}


def test_it_holds_after_a_reboot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert_in_sync(guest)
    assert apply(inventory).changed == {guest.name: 0}


def test_release(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
