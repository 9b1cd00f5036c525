"""What a machine of platform devices uses is refused, each with its reason, and nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply
from tests.harness.sysfs import read_machine
from tests.versal.devices import CARD, CLOCK, CONSOLE, DRIVERS, NETWORK, ROOT, SWAP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("unchanged_guest")]

# By device-tree path: the kind of use that `allow` accepts, and what the refusal must contain.
CARRIED = {
    ROOT: [("storage", "disk vda: vda is mounted on /.")],
    SWAP: [("storage", "disk vdb: vdb is swap")],
    CARD: [("storage", "disk mmcblk0: mmcblk0 is mounted on /mnt/card")],
    NETWORK: [
        ("network", "network interface eth0 is up with 10.0.2.15"),
        ("network", "and this run is connected through it"),
    ],
    CONSOLE: [("console", "ttyAMA0 is the system console")],
    CLOCK: [("clock", "rtc0 is the clock that sets the system time")],
}
VFIO = {"reset_required": False, "unsafe_noiommu": True}


def test_each_device_is_bound_to_its_real_driver(guest: Guest) -> None:
    machine = read_machine(guest)
    assert {path: machine.at(path).binding for path in DRIVERS} == {
        path: (driver, None) for path, driver in DRIVERS.items()
    }


@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_all_of_them_are_refused_at_once_and_a_check_says_the_same(
    inventory: Path, policy: str
) -> None:
    entries = [{"dt_path": path, "policy": policy} for path in CARRIED]
    settings = VFIO if policy == "vfio" else {}
    message = apply(inventory, entries, **settings).refusal
    for path, hazards in CARRIED.items():
        for kind, sentence in hazards:
            (line,) = [line for line in message.splitlines() if sentence in line]
            assert line.startswith(f"{path} (")
            assert f"add '{kind}' to `allow`" in line
    assert apply(inventory, entries, "--check", **settings).refusal == message
