"""The main job on the same guest when it boots with ACPI, as most ARM servers do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from extensions.simulator import acpi
from extensions.simulator.host import Plan
from tests.harness.calls import apply_role
from tests.harness.playbook import Run, play
from tests.harness.sysfs import files, read_machine
from tests.simulated.fleet import fleet, run_on

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


# All that the kernel shows of platform devices with an ACPI node, and of their nodes.
_SHOW = r"""
cd /sys/bus/platform/devices
for device in *:*; do
    readlink -f $device $device/firmware_node $device/firmware_node/physical_node
    readlink -f $device/subsystem $device/firmware_node/subsystem
    [ ! -e $device/driver ] || echo $device is bound to $(basename $(readlink $device/driver))
    for file in $device/* $device/firmware_node/*; do
        [ -d $file ] || echo "$file:" $(cat $file)
    done
done
"""
# A list has no _STA, and drivers of the ACPI bus itself are not simulated.
BUTTON = "PNP0C0C:00/firmware_node/uevent:"
ONLY_REAL = [
    f"{BUTTON} DRIVER=button MODALIAS=acpi:PNP0C0C:",
    "QEMU0002:00/firmware_node/status: 11",
]
ONLY_SIMULATED = [f"{BUTTON} MODALIAS=acpi:PNP0C0C:"]


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


@pytest.mark.nightly
@pytest.mark.skipif(
    bool(os.geteuid()) or not os.access("/dev/fuse", os.W_OK),
    reason="simulated boards need root and /dev/fuse",
)
def test_the_simulator_makes_the_same_devices_from_a_list(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "guest.acpi"
    path.write_text(guest.run("sh -s", input=acpi.LISTING.read_text()).stdout)
    real = guest.run("sh -s", input=_SHOW).stdout.splitlines()
    with fleet(tmp_path, [Plan("test-acpi", None, acpi=path)], {}) as boards:
        (board,) = boards.boards.values()
        simulated = run_on(board, "sh", "-c", _SHOW).splitlines()
        again = run_on(board, "sh", "-c", acpi.LISTING.read_text())
    assert len(real) > 10 * SLOTS
    assert [line for line in real if line not in simulated] == ONLY_REAL
    assert [line for line in simulated if line not in real] == ONLY_SIMULATED
    assert again == path.read_text()


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


@pytest.mark.nightly
def test_it_holds_after_a_reboot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert_in_sync(guest)
    assert apply(inventory, LIST).changed == {"test-acpi": 0}


@pytest.mark.nightly
def test_every_device_of_a_hardware_id(guest: Guest, inventory: Path, depth: str) -> None:
    devices = [{"acpi_hid": "LNRO0005", "expect": SLOTS, "policy": "no_autobind"}]
    apply(inventory, devices)
    slots = [
        device for device in read_machine(guest).devices if device.name.startswith("LNRO0005:")
    ]
    assert [slot.binding for slot in slots] == [(None, "none")] * SLOTS
    if depth == "nightly":
        guest.reboot()
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
