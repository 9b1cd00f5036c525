"""Functions that driverctl configured: which configuration wins, and the migration to a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply, info
from tests.harness.playbook import play
from tests.harness.sysfs import read_machine
from tests.pci.functions import DISK, ETHERNET, ETHERNET_NODE, NVME_ID, VFIO

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest
    from tests.harness.sysfs import Binding

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("released_guest")]

FUNCTIONS = [{"pci_address": ETHERNET}, {"pci_address": DISK}]
# By the node if there is one, and with the very driver that was stored.
LIST: list[dict[str, Any]] = [
    {"dt_path": ETHERNET_NODE, "policy": "vfio", "vfio_driver": "vfio-pci"},
    {"pci_address": DISK, "pci_id": NVME_ID, "policy": "no_autobind"},
]
WANTED = [VFIO, (None, "none")]


def functions(guest: Guest) -> list[Binding]:
    machine = read_machine(guest)
    return [machine.named(name).binding for name in (ETHERNET, DISK)]


def test_driverctl_is_moved_from_without_a_function_leaving_its_driver(
    guest: Guest, inventory: Path
) -> None:
    guest.run(
        f"driverctl set-override {ETHERNET} vfio-pci; driverctl set-override {DISK} none;"
        " udevadm settle"
    )
    assert functions(guest) == WANTED
    reported = apply(inventory, LIST).refusal
    assert f"driverctl: /etc/driverctl.d/pci-{ETHERNET} sets vfio-pci at each boot" in reported
    assert [device["driverctl"]["entry"] for device in info(inventory, *FUNCTIONS)] == LIST

    before = guest.run("find /dev/vfio -type c -printf %i:").stdout
    assert play(inventory, "armfleet.vfio.migrate_driverctl").code == 0
    assert guest.run("ls -A /etc/driverctl.d").stdout == ""
    assert functions(guest) == WANTED
    # Its node is not a new one, so that user space that has it open keeps it.
    assert guest.run("find /dev/vfio -type c -printf %i:").stdout == before
    assert [device["claimed_by"] for device in info(inventory, *FUNCTIONS)] == LIST
