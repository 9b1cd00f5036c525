"""The main job on the same guest when it boots with ACPI, as most ARM servers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply_role
from tests.harness.playbook import Run, play
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

SLOTS = 32
VFIO = ("vfio-platform", "vfio-platform")
SETTINGS = {"passthrough_reset_required": False, "passthrough_unsafe_noiommu": True}
LIST: list[dict[str, Any]] = [
    {"acpi_path": "\\_SB_.VR00", "policy": "vfio", "when_board": "QEMU Virtual Machine"},
    {"acpi_path": "\\_SB.VR01", "policy": "no_autobind"},
    {"name": "LNRO0005:02", "policy": "vfio"},
    # The name that the same machine has when it boots with a device tree.
    {"acpi_hid": "LNRO0005", "policy": "no_autobind", "when_board": "linux,dummy-virt"},
]


class Story:
    """What later tests compare with."""

    untouched: dict[str, tuple[str | None, str | None]]


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    return start("test-acpi", "acpi")


def apply(inventory: Path, devices: list[dict[str, Any]], *arguments: str) -> Run:
    return apply_role(inventory, dict(SETTINGS, passthrough_devices=devices), *arguments)


def assert_in_sync(guest: Guest) -> None:
    machine = read_machine(guest)
    assert machine.named("LNRO0005:00").binding == VFIO
    assert machine.named("LNRO0005:01").binding == (None, "none")
    assert machine.named("LNRO0005:02").binding == VFIO
    assert f"noiommu-{machine.named('LNRO0005:00').group}" in machine.nodes
    link = guest.run("readlink /dev/vfio/by-path/_SB_.VR00").stdout.strip()
    assert link == f"../noiommu-{machine.named('LNRO0005:00').group}"
    assert machine.named("LNRO0005:03").binding == Story.untouched["platform/LNRO0005:03"]


def test_the_board_is_named_by_its_dmi_table(guest: Guest, inventory: Path) -> None:
    board = play(inventory, "armfleet.vfio.boards").of("armfleet.vfio.device_info")["board"]
    shown = guest.run("cat /sys/class/dmi/id/product_name").stdout.strip()
    assert board == {"compatible": [], "product_name": shown, "board_name": None}


def test_apply_by_path_and_name(guest: Guest, inventory: Path) -> None:
    Story.untouched = read_machine(guest).bindings
    predicted = apply(inventory, LIST, "--check").of("armfleet.vfio.host_policy")
    done = apply(inventory, LIST).of("armfleet.vfio.host_policy")
    assert done["diff"] == predicted["diff"]
    (skipped,) = done["skipped_entries"]
    assert skipped.startswith("acpi_hid 'LNRO0005' applies to linux,dummy-virt only")
    assert skipped.endswith("this board is QEMU Virtual Machine")
    assert_in_sync(guest)
    assert apply(inventory, LIST).changed == {"test-acpi": 0}


def test_it_holds_after_a_reboot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    guest.run("udevadm settle")
    assert_in_sync(guest)
    assert apply(inventory, LIST).changed == {"test-acpi": 0}


def test_every_device_of_a_hardware_id(guest: Guest, inventory: Path, depth: str) -> None:
    devices = [{"acpi_hid": "LNRO0005", "expect": SLOTS, "policy": "no_autobind"}]
    apply(inventory, devices)
    slots = [
        device for device in read_machine(guest).devices if device.name.startswith("LNRO0005:")
    ]
    assert [slot.binding for slot in slots] == [(None, "none")] * SLOTS
    if depth == "nightly":
        guest.reboot()
        guest.run("udevadm settle")
        slots = [
            device for device in read_machine(guest).devices if device.name.startswith("LNRO0005:")
        ]
        assert [slot.binding for slot in slots] == [(None, "none")] * SLOTS
    assert apply(inventory, devices).changed == {"test-acpi": 0}


def test_release(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
    assert play(inventory, "armfleet.vfio.release").changed == {"test-acpi": 0}
