# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulated boards and two guests, one of them with PCI, in one inventory and all playbooks.

There are 8 boards, and 200 in make nightly.

The boards are made from device trees of real ones, so that no two lists are the same. One board
fails in the second wave. In the last wave, two others fail and a host is unreachable.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from extensions.simulator.host import Host, Plan
from tests.boards import device_trees
from tests.guest import Guest
from tests.guest.packages import DEFAULT_SERIES
from tests.harness.playbook import Run, play, rows, task_play
from tests.harness.sysfs import read_machine
from tests.pci.functions import ETHERNET, ETHERNET_ID, ETHERNET_NODE
from tests.simulated.counts import Counts
from tests.simulated.fleet import (
    Fleet,
    dt_path,
    fill,
    fleet,
    on_vfio,
    passthrough_list,
    put_file_for_directory,
    root,
)

pytestmark = pytest.mark.nightly

FORKS = "4"
# KiB that one more simulated board may need.
MOST_MEMORY = 24 * 1024
ON_GUEST: list[dict[str, Any]] = [{"compatible": "acme,dma", "policy": "vfio"}]
LISTS_OF_GUESTS = {
    "fleet-b": ON_GUEST,
    "fleet-pci": [
        *ON_GUEST,
        {"pci_address": ETHERNET, "pci_id": ETHERNET_ID, "policy": "vfio"},
    ],
}
# The nodes of the devices that these lists claim.
ON_GUESTS_BY_PATH = {
    "fleet-b": {"/soc/dma@b001000"},
    "fleet-pci": {"/soc/dma@b001000", "/soc/dma@b002000", ETHERNET_NODE},
}
# Their boards and kernels.
GUESTS = {"fleet-b": ("b", DEFAULT_SERIES), "fleet-pci": ("pci", "debian")}
GONE = "not-there"
RULES = "/etc/udev/rules.d"
SETTINGS = {
    "passthrough_reset_required": False,
    "passthrough_unsafe_noiommu": True,
    # The lists of boards are chosen without regard to what depends on a device or shares its group,
    # and what is lost with a dependent is refused by its own kind.
    "passthrough_allow": ["clock", "console", "consumers", "group", "network", "watchdog"],
    "passthrough_initramfs": "never",
}


class Size(NamedTuple):
    """The number of boards, and the waves in which they are rolled out after the guests."""

    boards: int
    waves: Sequence[int | str]


SIZES = {"nightly": Size(200, [20, 60, "100%"])}
SMALL = Size(8, [3, 2, "100%"])


class Whole(NamedTuple):
    """The fleet: boards, guests, the list of each, and the names of the boards that fail."""

    waves: Sequence[int | str]
    boards: Fleet
    guests: Mapping[str, Guest]
    lists: Mapping[str, Sequence[Mapping[str, Any]]]
    in_wave_two: str
    full: str
    without_vfio: str

    def claimed(self) -> dict[str, set[str]]:
        """Return the device-tree paths of the devices that are bound to VFIO, by host."""
        of_boards = {
            name: set(map(dt_path, on_vfio(board))) for name, board in self.boards.boards.items()
        }
        of_guests = {
            name: {
                str(device.tree_path)
                for device in read_machine(guest).devices
                if device.driver in ("vfio-platform", "vfio-pci")
            }
            for name, guest in self.guests.items()
        }
        return {**of_boards, **of_guests}

    def asked(self, names: Container[str]) -> dict[str, set[str]]:
        """Return what the lists of these hosts claim, and an empty set for each other host."""
        of_boards = {name: {entry["dt_path"] for entry in self.lists[name]} for name in self.lists}
        every = {**of_boards, **ON_GUESTS_BY_PATH}
        return {name: paths if name in names else set() for name, paths in every.items()}


@pytest.fixture(scope="module")
def whole(
    depth: str, start: Callable[..., Guest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    """Start boards, chosen evenly from all device trees, and guests."""
    directory = tmp_path_factory.mktemp("fleet")
    size = SIZES.get(depth, SMALL)
    trees = device_trees()
    plans = [
        Plan(f"board-{number}-{tree.stem[:30]}", tree)
        for number, tree in enumerate(trees[:: len(trees) // size.boards][: size.boards])
    ]
    lists = {plan.name: passthrough_list(plan) for plan in plans}
    # Only a board whose list claims a device can fail.
    claiming = [number for number, plan in enumerate(plans) if lists[plan.name]]
    last = claiming[-1]
    (directory / "no-vfio.yml").write_text("kernel: {vfio: absent}\n")
    plans[last] = replace(plans[last], drivers=directory / "no-vfio.yml")
    guests = {name: start(name, *of_guest) for name, of_guest in GUESTS.items()}
    write_lists(directory / "host_vars", {**lists, **LISTS_OF_GUESTS, GONE: ON_GUEST})
    others = {
        "guests": {name: guest.inventory_entry() for name, guest in guests.items()},
        "lost": {GONE: {"ansible_host": "127.0.0.1", "ansible_port": 1}},
    }
    with fleet(directory, plans, SETTINGS, others) as boards:
        # Wave 1 has only guests.
        names = [plans[number].name for number in (claiming[1], claiming[-2], last)]
        yield Whole(size.waves, boards, guests, lists, *names)


def write_lists(directory: Path, lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    directory.mkdir()
    for name, entries in lists.items():
        text = yaml.safe_dump({"passthrough_devices": entries})
        (directory / f"{name}.yml").write_text(text)


class Clock:
    """Runs playbooks over the whole fleet, and reports their times relative to ping."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self._seconds: dict[str, tuple[float, int]] = {}

    def run(
        self, title: str, playbook: str | Sequence[Mapping[str, Any]], *arguments: str, **given: Any
    ) -> Run:
        began = time.monotonic()
        inventory = self._whole.boards.inventory
        run = play(inventory, playbook, "--forks", FORKS, *arguments, variables=given)
        self._seconds[title] = (time.monotonic() - began, len(run.changed))
        assert "Traceback" not in run.output
        return run

    def report(self) -> None:
        ping, _hosts = self._seconds["ping"]
        print(f"\n{'':34}  hosts  seconds per host  beside ping")
        for title, (seconds, hosts) in self._seconds.items():
            print(f"  {title:32}{hosts:7}{seconds / hosts:18.3f}{seconds / ping:13.2f}")


def test_a_fleet_is_rolled_out_put_back_rolled_out_again_and_watched(
    whole: Whole, tmp_path: Path, counts: Counts
) -> None:
    clock = Clock(whole)
    rollout = {
        "passthrough_rollout": "show",
        "rollout_waves": whole.waves,
        "rollout_canaries": sorted(whole.guests),
    }
    broken = whole.boards.boards[whole.in_wave_two]
    put_file_for_directory(broken, RULES)
    fill(whole.boards.boards[whole.full], RULES)
    before = whole.claimed()
    assert not any(before.values())
    clock.run("ping", task_play("ansible.builtin.ping", {}))

    stopped = clock.run("rollout that stops in wave 2", "armfleet.vfio.rollout", **rollout)
    assert stopped.code == 2
    assert "Rollout show stopped in wave 2 of 4: 1 failed, " in stopped.output
    reported = rows(stopped)
    assert {name for name, row in reported.items() if row.outcome == "failed"} == {
        whole.in_wave_two
    }
    assert RULES in reported[whole.in_wave_two].sentence
    begun = {name for name, row in reported.items() if row.wave != "-"}
    assert len(begun) == len(whole.guests) + int(whole.waves[0])
    assert whole.claimed() == whole.asked(begun - {whole.in_wave_two})

    back = clock.run("rollback", "armfleet.vfio.rollback", passthrough_rollout="show")
    assert whole.claimed() == before
    assert {name for name, row in rows(back).items() if row.outcome == "unreachable"} == {GONE}

    (root(broken) / RULES[1:]).unlink()
    clock.run("rollout to its end", "armfleet.vfio.rollout", **rollout)
    again = clock.run("rollout again", "armfleet.vfio.rollout", **rollout)
    assert set(again.changed.values()) == {0}
    reported = rows(again)
    assert {row.wave for row in reported.values()} == {"1", "2", "3", "4"}
    sentences = {
        name: row.sentence
        for name, row in reported.items()
        if row.outcome in ("failed", "unreachable")
    }
    assert set(sentences) == {whole.full, whole.without_vfio, GONE}
    assert "No space left on device" in sentences[whole.full]
    assert "has no vfio-platform" in sentences[whole.without_vfio]
    assert "Connection refused" in sentences[GONE]
    assert whole.claimed() == whole.asked(set(reported) - set(sentences))

    changed = take_from_vfio(whole)
    drift = clock.run("drift", "armfleet.vfio.drift", drift_file=str(tmp_path / "drift.jsonl"))
    assert drift.code == 2
    lines = [json.loads(line) for line in (tmp_path / "drift.jsonl").read_text().splitlines()]
    assert len(lines) == len(reported)
    assert {line["host"] for line in lines if line["state"] == "drift"} == changed
    assert {line["host"] for line in lines if line["state"] == "unreachable"} == {GONE}

    report = clock.run("report", "armfleet.vfio.report", report_path=str(tmp_path / "report"))
    assert report.code == 0, report.output
    assert ETHERNET in (tmp_path / "report/report.json").read_text()
    clock.report()
    counts["boards"] = len(whole.boards.boards)
    counts["guests"] = len(whole.guests)
    counts["devices for VFIO"] = sum(map(len, whole.asked(set(reported)).values()))


def test_hosts_that_wait_for_a_boot_are_booted_and_looked_at(whole: Whole) -> None:
    released = play(
        whole.boards.inventory,
        "armfleet.vfio.apply",
        "--limit=guests",
        variables={"passthrough_devices": [], "passthrough_runtime": False},
    )
    assert released.code == 0, released.output
    ids = {name: guest.boot_id() for name, guest in whole.guests.items()}
    arguments = ("armfleet.vfio.reboot", "--limit=guests,lost")
    run = play(whole.boards.inventory, *arguments, variables={"rollout_waves": ["100%"]})
    reported = {name: row.outcome for name, row in rows(run).items()}
    assert reported == {**dict.fromkeys(GUESTS, "changed"), GONE: "unreachable"}
    for name, guest in whole.guests.items():
        assert guest.boot_id() != ids[name]
        assert not whole.claimed()[name]
    again = play(whole.boards.inventory, *arguments, variables={"rollout_waves": ["100%"]})
    assert {row.outcome for name, row in rows(again).items() if name != GONE} == {"unchanged"}


def test_no_board_needs_much_memory(whole: Whole, counts: Counts) -> None:
    memory = sorted(map(private_memory, whole.boards.boards.values()))
    counts["KiB of memory for the largest board"] = memory[-1]
    counts["KiB of memory for the median board"] = memory[len(memory) // 2]
    assert memory[-1] <= MOST_MEMORY


def take_from_vfio(whole: Whole) -> set[str]:
    """Unbind a device of two boards and of a guest, as others do; return the hosts' names."""
    boards = [board for board in whole.boards.boards.values() if on_vfio(board)][:2]
    for board in boards:
        device = min(on_vfio(board))
        device.joinpath("driver/unbind").write_text(device.name)
    guest = whole.guests["fleet-pci"]
    guest.run(f"echo {ETHERNET} > /sys/bus/pci/drivers/vfio-pci/unbind")
    return {*(board.name for board in boards), guest.name}


def private_memory(board: Host) -> int:
    """Return the private memory of the board's process in KiB: the cost of one more board."""
    rollup = Path(f"/proc/{board.pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE)))
