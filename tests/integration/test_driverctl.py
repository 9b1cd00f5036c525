"""Devices that driverctl configured: which configuration wins, and the migration to a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply, info
from tests.harness.guests import released
from tests.harness.playbook import Run, play
from tests.harness.sysfs import bindings, files, read_machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

RINGS = ["/soc/ring@b100000", "/soc/ring@b101000"]
DEVICES = [{"dt_path": path} for path in RINGS]
STORED = "/etc/driverctl.d/platform-b100000.ring"
VFIO, NONE = ("vfio-platform", "vfio-platform"), (None, "none")
LIST = [
    {"dt_path": RINGS[0], "policy": "vfio"},
    {"dt_path": RINGS[1], "policy": "no_autobind"},
]
MIGRATE = "armfleet.vfio.migrate_driverctl"


@pytest.fixture(autouse=True, scope="module")
def _from_nothing_to_nothing(guest: Guest, inventory: Path) -> Iterator[None]:
    with released(guest, inventory):
        guest.run(
            "modprobe vfio-platform reset_required=0;"
            " driverctl --bus platform set-override b100000.ring vfio-platform;"
            " driverctl --bus platform set-override b101000.ring none"
        )
        yield


def migrate(inventory: Path, *arguments: str) -> Run:
    done = play(inventory, MIGRATE, *arguments, variables={"passthrough_reset_required": False})
    assert done.code == 0, done.output
    return done


def test_a_list_that_claims_the_same_device_is_refused(guest: Guest, inventory: Path) -> None:
    assert bindings(guest, RINGS) == [VFIO, NONE]
    reported = apply(inventory, LIST, reset_required=False).refusal
    assert f"driverctl: {STORED} sets vfio-platform at each boot" in reported
    assert bindings(guest, RINGS) == [VFIO, NONE]
    assert files(guest) == {}
    assert [device["driverctl"]["entry"] for device in info(inventory, *DEVICES)] == LIST


def test_driverctl_is_moved_from_without_a_device_leaving_its_driver(
    guest: Guest, inventory: Path
) -> None:
    # Every probe of an unbound device assigns the number of its group again.
    node = read_machine(guest).at(RINGS[0]).group
    before = guest.run("find /dev/vfio -type c -printf %i:").stdout
    migrate(inventory, "--check")
    assert guest.run("ls /etc/driverctl.d").stdout.split() == [
        "platform-b100000.ring",
        "platform-b101000.ring",
    ]
    done = migrate(inventory)
    assert guest.run("ls /etc/driverctl.d").stdout == ""
    assert bindings(guest, RINGS) == [VFIO, NONE]
    assert read_machine(guest).at(RINGS[0]).group == node
    assert guest.run("find /dev/vfio -type c -printf %i:").stdout == before
    assert all(entry["dt_path"] in done.output for entry in LIST)
    assert [device["claimed_by"] for device in info(inventory, *DEVICES)] == LIST


def test_it_can_be_run_again_and_holds_after_a_boot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert bindings(guest, RINGS) == [VFIO, NONE]
    assert [device["drift"] for device in info(inventory, *DEVICES)] == [[], []]
    assert migrate(inventory).changed == {guest.name: 0}
