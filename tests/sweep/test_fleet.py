# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hundred boards on this machine, and plain ansible-playbook over all of them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest
import yaml

from tests.boards import device_trees
from tests.harness.playbook import Run, play, task_play
from tests.simulated.counts import Counts
from tests.simulator.devicetree import read_file
from tests.simulator.host import Host, Plan, start
from tests.simulator.inventory import inventory
from tests.simulator.machine import build

SIZE = 200
CHOSEN = 5
MOST_MEMORY = 40 * 1024
FORKS = "8"
ROLE = [
    {
        "name": "The role on all boards",
        "hosts": "all",
        "gather_facts": False,
        "roles": ["armfleet.vfio.passthrough"],
    }
]


class Fleet(NamedTuple):
    """Running hosts, the inventory that the simulator wrote, and each host's list."""

    hosts: list[Host]
    inventory: Path
    lists: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Boards spread evenly over all that there are."""
    boards = device_trees()
    chosen = boards[:: len(boards) // SIZE][:SIZE]
    plans = [Plan(f"board-{number}-{one.stem[:40]}", one) for number, one in enumerate(chosen)]
    hosts = start(plans)
    try:
        place = tmp_path_factory.mktemp("fleet")
        (place / "hosts.yml").write_text(inventory(hosts))
        lists = {plan.name: passthrough_list(plan) for plan in plans}
        (place / "host_vars").mkdir()
        for name, entries in lists.items():
            variables = {
                "passthrough_devices": entries,
                "passthrough_reset_required": False,
                "passthrough_unsafe_noiommu": True,
                # Links do not show all who refer to a device in the tree, or share its group.
                "passthrough_allow": ["consumers", "group"],
                "passthrough_initramfs": "never",
            }
            (place / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(variables))
        yield Fleet(hosts, place / "hosts.yml", lists)
    finally:
        for host in hosts:
            host.stop()


def passthrough_list(plan: Plan) -> list[dict[str, Any]]:
    """Some devices that nothing depends on, for VFIO; what carries a console is refused."""
    assert plan.device_tree
    devices = build(read_file(plan.device_tree)).kernel.devices.values()
    parents = {str(parent) for one in devices for parent in PurePosixPath(one.home).parents}
    free = [
        str(one.of_path)
        for one in devices
        if one.driver
        and not one.carries
        and one.home not in parents
        and not any(link.status == "active" for link in one.consumers)
    ]
    chosen = random.Random(plan.name).sample(free, min(CHOSEN, len(free)))
    return [{"dt_path": path, "policy": "vfio"} for path in chosen]


def test_a_fleet_is_pinged_claimed_and_claimed_again(fleet: Fleet, counts: Counts) -> None:
    ping, ping_seconds = timed(fleet, task_play("ansible.builtin.ping", {}))
    first, first_seconds = timed(fleet, ROLE)
    again, again_seconds = timed(fleet, ROLE)
    counts["boards"] = len(fleet.hosts)
    counts["devices for VFIO"] = sum(map(len, fleet.lists.values()))
    report(ping_seconds, first_seconds, again_seconds)
    assert ping.code == 0, failures(ping)
    assert first.code == 0, failures(first)
    assert again.code == 0, failures(again)
    assert len(first.changed) == SIZE
    assert {host for host, number in first.changed.items() if not number} == {
        name for name, entries in fleet.lists.items() if not entries
    }
    assert set(again.changed.values()) == {0}
    for host in fleet.hosts:
        assert on_vfio(host) == {entry["dt_path"] for entry in fleet.lists[host.name]}


def test_no_board_needs_much_memory(fleet: Fleet, counts: Counts) -> None:
    memory = sorted(proportional_memory(host) for host in fleet.hosts)
    counts["KiB of memory for the largest board"] = memory[-1]
    counts["KiB of memory for the median board"] = memory[len(memory) // 2]
    assert memory[-1] <= MOST_MEMORY


def timed(fleet: Fleet, playbook: Sequence[dict[str, Any]]) -> tuple[Run, float]:
    began = time.monotonic()
    run = play(fleet.inventory, playbook, "--forks", FORKS)
    return run, time.monotonic() - began


def failures(run: Run) -> list[tuple[str, object]]:
    """What each failed host said, and the end of the output if none did."""
    failed = [(task.host, task.result.get("msg")) for task in run.tasks if task.status == "failed"]
    return failed or [("all", run.output[-2000:])]


def report(ping: float, first: float, again: float) -> None:
    print(f"\n{SIZE} boards, seconds per host (and beside ping's):")
    for title, seconds in (("ping", ping), ("role, first run", first), ("role, rerun", again)):
        print(f"  {title:16}{seconds / SIZE:7.3f}  {seconds / ping:6.2f}")


def on_vfio(host: Host) -> set[str]:
    """The device-tree paths of what is bound to VFIO, as the host's own /sys shows it."""
    drivers = Path(f"/proc/{host.pid}/root/sys/bus")
    return {
        str(device.joinpath("of_node").readlink()).partition("/devicetree/base")[2]
        for driver in ("platform/drivers/vfio-platform", "amba/drivers/vfio-amba")
        for device in drivers.joinpath(driver).glob("*")
        if device.joinpath("of_node").is_symlink()
    }


def proportional_memory(host: Host) -> int:
    """KiB that the host's processes need, their part of shared memory included."""
    rollup = Path(f"/proc/{host.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found.group(1))
