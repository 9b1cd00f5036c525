"""A DMA engine whose channels are in use, on the distribution's kernel, which has DMA engines."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from tests.guest.packages import STOCK_SERIES
from tests.harness import calls
from tests.harness.playbook import play, task_play
from tests.harness.sysfs import read_machine, state
from tests.harness.tracing import TRACED, state_writes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

ENGINE = "/soc/shared@b009000"
TAKEN = "/sys/module/acme_dma/parameters/taken"
ENTRIES = [{"dt_path": ENGINE, "policy": "no_autobind"}]
ALL = ["clock", "console", "consumers", "group", "network", "storage", "watchdog"]
# Messages that the kernel logs if a channel is freed while a client uses it.
COMPLAINTS = "dmesg | grep -E 'WARNING|Oops|BUG|Unable to handle' || true"
# modprobe does not remove a module of raid456's that another one still uses when it is tried.
UNLOAD = """
modprobe --remove raid456
while grep -q ^async_ /proc/modules; do
    rmmod $(awk '/^async_/ && $3 == 0 { print $1 }' /proc/modules)
done
"""


# Most of it is the boot of a guest of its own; tests/simulated/test_dma.py asks the same.
pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest]) -> Guest:
    guest = start("test-dma", "demo", STOCK_SERIES)
    guest.run("modprobe acme_dma; udevadm settle; dmesg --clear")
    return guest


apply = functools.partial(calls.apply, devices=ENTRIES, persistent=False)


def test_channels_in_use_are_never_taken_away_whatever_is_allowed(
    guest: Guest, inventory: Path
) -> None:
    guest.run(f"echo 2 > {TAKEN}")
    before = state(guest)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("host_policy", {"devices": ENTRIES, "allow": ["consumers"]}),
        ("no_autobind", {"devices": [{"dt_path": ENGINE}], "allow": ALL}),
    ]
    for task in calls.refused(inventory, asked, *TRACED):
        (reported,) = task.refusal.splitlines()
        assert reported.startswith(
            f"{ENGINE} (platform device b009000.shared) is in use: 2 of its 4 DMA channels are in "
            "use: dma0chan0 by 1 client of the kernel, dma0chan1 by 1 client of the kernel. Stop "
            "or unload its clients"
        )
    assert state_writes(guest) == []
    assert state(guest) == before


def test_raid_takes_all_channels_and_returns_them(guest: Guest, inventory: Path) -> None:
    guest.run(f"echo 0 > {TAKEN}; modprobe raid456")
    refused = apply(inventory, allow=ALL).refusal
    assert "4 of its 4 DMA channels are in use: dma0chan0 by 1 client of the kernel" in refused
    assert "(module async_tx claims all channels, for " in refused
    assert "raid456" in refused
    (device,) = calls.info(inventory, {"dt_path": ENGINE})
    (carried,) = device["in_use_by"]
    assert carried["kind"] == "consumers"
    assert carried["message"] in refused
    guest.run(UNLOAD)
    applied = apply(inventory)
    assert applied.code == 0, applied.output
    machine = read_machine(guest)
    assert machine.at(ENGINE).binding == (None, "none")
    back = {"devices": [{"dt_path": ENGINE}], "state": "absent"}
    assert play(inventory, task_play("armfleet.vfio.no_autobind", back)).code == 0
    assert read_machine(guest).at(ENGINE).binding == ("acme-dma", None)
    assert guest.run(COMPLAINTS).stdout == ""
