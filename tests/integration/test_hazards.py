"""Devices in use are refused before anything changes, and the machine keeps running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.calls import apply
from tests.harness.playbook import play, task_play
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

KEYS, GPIO = "/gpio-keys", "/pl061@9030000"
# By device-tree path: each kind of use that `allow` accepts, and what the refusal must contain.
CARRIED = {
    "/pcie@10000000": [
        ("storage", "disk vda: vda is mounted on /"),
        ("network", "network interface eth0 is up with 10.0.2.15"),
        ("network", "and this run is connected through it"),
    ],
    "/pl011@9000000": [("console", "ttyAMA0 is the system console")],
    GPIO: [("consumers", "gpio-keys")],
    "/smmuv3@9050000": [("consumers", "it is the IOMMU")],
    "/pl031@9010000": [("clock", "rtc0 is the clock that sets the system time")],
}
ENTRIES = [{"dt_path": path, "policy": "no_autobind"} for path in CARRIED]


@pytest.fixture(autouse=True)
def _nothing_changes(unchanged_guest: None) -> None:
    """No test changes the guest."""


def test_all_of_them_are_refused_at_once_and_a_check_says_the_same(inventory: Path) -> None:
    message = apply(inventory, ENTRIES).refusal
    for path, hazards in CARRIED.items():
        for kind, sentence in hazards:
            (line,) = [line for line in message.splitlines() if sentence in line]
            assert line.startswith(f"{path} (")
            assert f"add '{kind}' to `allow`" in line
    assert apply(inventory, ENTRIES, "--check").refusal == message


def test_what_is_allowed_is_done_and_can_be_given_back(guest: Guest, inventory: Path) -> None:
    options = {
        "devices": [{"dt_path": GPIO, "policy": "no_autobind"}],
        "allow": ["consumers"],
        "persistent": False,
    }
    run = play(inventory, task_play("armfleet.vfio.host_policy", options))
    assert run.code == 0, run.output
    assert read_machine(guest).at(GPIO).binding == (None, "none")
    # No device link shows that gpio-keys needs it: gpio-keys stays bound, but no longer works.
    assert read_machine(guest).at(KEYS).driver == "gpio-keys"
    back = {"devices": [{"dt_path": GPIO}], "state": "absent"}
    run = play(inventory, task_play("armfleet.vfio.no_autobind", back))
    assert run.code == 0, run.output
    assert read_machine(guest).at(GPIO).driver == "pl061_gpio"
