"""The engines of a real board on VFIO: each test continues where the previous one ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import list_applier
from tests.harness.playbook import Run, play
from tests.harness.sysfs import files, read_machine
from tests.harness.tracing import TRACED, state_writes
from tests.versal.devices import DMA, DMA_COMPATIBLE, SPARE_CARD, SPARE_NETWORK

if TYPE_CHECKING:
    from tests.guest import Guest
    from tests.harness.sysfs import Binding

pytestmark = pytest.mark.nightly

HOST_POLICY = "armfleet.vfio.host_policy"
EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"
PROGRAM = "/root/read_registers.py"
VFIO = ("vfio-platform", "vfio-platform")
LIST: list[dict[str, Any]] = [
    {"compatible": DMA_COMPATIBLE, "expect": len(DMA), "policy": "vfio"},
    {"dt_path": SPARE_CARD, "policy": "vfio", "tag": "card"},
    {"dt_path": SPARE_NETWORK, "policy": "no_autobind"},
]
SETTINGS = {"passthrough_reset_required": False, "passthrough_unsafe_noiommu": True}
WANTED: dict[str, Binding] = {
    **dict.fromkeys((*DMA, SPARE_CARD), VFIO),
    SPARE_NETWORK: (None, "none"),
}
# Of the standard for SD hosts: the capabilities, in which bit 19 is ADMA2 and 21 high speed.
CAPABILITIES, ADMA2_AND_HIGH_SPEED = 0x40, 1 << 19 | 1 << 21
apply = list_applier(LIST, SETTINGS)


class Story:
    """What later tests compare with."""

    untouched: dict[str, Binding]
    predicted: Run
    first: Run


def assert_in_sync(guest: Guest) -> None:
    """Assert that each device of the list is as wanted, and each other one as before."""
    machine = read_machine(guest)
    wanted = {
        f"{device.bus}/{device.name}": WANTED[device.tree_path]
        for device in machine.devices
        if device.tree_path in WANTED
    }
    assert len(wanted) == len(WANTED)
    assert machine.bindings == Story.untouched | wanted


def test_a_check_touches_nothing(guest: Guest, inventory: Path) -> None:
    Story.untouched = read_machine(guest).bindings
    Story.predicted = apply(inventory, "--check", "--diff")
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}


def test_the_first_run_does_what_the_check_predicted(guest: Guest, inventory: Path) -> None:
    Story.first = apply(inventory, "--diff")
    predicted, done = Story.predicted.of(HOST_POLICY), Story.first.of(HOST_POLICY)
    for key in ("diff", "boot_files", "host_steps"):
        assert predicted[key] == done[key]
    assert predicted["changed"] is done["changed"] is True
    for path in DMA:
        assert path in Story.first.output
    assert_in_sync(guest)


def test_user_space_opens_each_device_that_was_given(guest: Guest) -> None:
    guest.put(EXAMPLE, PROGRAM)
    guest.run("udevadm settle")
    machine = read_machine(guest)
    nodes = [f"/dev/vfio/noiommu-{machine.at(path).group}" for path in (*DMA, SPARE_CARD)]
    words = guest.run(f"for node in {' '.join(nodes)}; do python3 {PROGRAM} $node; done").stdout
    assert len(re.findall(r"^0x000 0x", words, re.MULTILINE)) == len(nodes)


def test_the_host_of_the_card_shows_its_capabilities_through_the_tag(guest: Guest) -> None:
    command = f"python3 {PROGRAM} /dev/vfio/by-tag/card --offset {CAPABILITIES}"
    _offset, word = guest.run(command).stdout.split()
    assert int(word, 16) & ADMA2_AND_HIGH_SPEED == ADMA2_AND_HIGH_SPEED


def test_the_second_run_writes_nothing(guest: Guest, inventory: Path) -> None:
    run = apply(inventory, *TRACED)
    assert run.changed == {guest.name: 0}
    assert "/sys/bus/platform/devices" in guest.run("cat /root/trace").stdout
    assert state_writes(guest) == []


def test_udev_replays_the_rules_and_nothing_changes(guest: Guest) -> None:
    guest.run("udevadm trigger --action=add --settle --subsystem-match=platform")
    assert_in_sync(guest)


def test_after_a_reboot_everything_is_as_it_was(guest: Guest, inventory: Path) -> None:
    """The model cannot reboot from the inside: its QEMU is started again, with the same disk."""
    before = guest.boot_id()
    guest.reboot()
    assert guest.boot_id() != before
    assert_in_sync(guest)
    assert apply(inventory).changed == {guest.name: 0}
    assert guest.run("systemctl is-system-running").stdout.strip() == "running"
    assert guest.run("swapon --noheadings --show=NAME").stdout.split() == ["/dev/vdb"]
    guest.run("mountpoint --quiet /mnt/card")


def test_what_is_taken_off_the_list_is_released(guest: Guest, inventory: Path) -> None:
    shorter = [entry for entry in LIST if entry.get("dt_path") != SPARE_CARD]
    assert apply(inventory, devices=shorter).changed == {guest.name: 1}
    machine = read_machine(guest)
    assert machine.at(SPARE_CARD).binding == ("sdhci-arasan", None)
    assert machine.at(DMA[0]).binding == VFIO
    # The card is there again as a disk.
    guest.run("udevadm settle; test -b /dev/mmcblk1")


def test_release_restores_everything(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
    assert guest.run("find /etc /boot -name '*armfleet*'").stdout == ""
    assert play(inventory, "armfleet.vfio.release").changed == {guest.name: 0}
