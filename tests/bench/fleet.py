#!/usr/bin/env python
"""What Ansible's own settings do to a run over many hosts; see the table that it prints.

The hosts are simulated boards on this machine: they have no network, and share its processors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from extensions.simulator.host import Plan, start
from extensions.simulator.inventory import inventory
from tests.boards import device_trees
from tests.harness.playbook import play

BOARD = "amd/amd-overdrive-rev-b0.dtb"
SLOW_SSH = Path(__file__).with_name("slow_ssh")
ONE_SLOW_IN = 10
SETTINGS = {
    "passthrough_devices": [
        {"dt_path": "/smb/xgmac@e0700000", "policy": "vfio"},
        {"dt_path": "/smb/xgmac@e0900000", "policy": "vfio"},
    ],
    "passthrough_reset_required": False,
    "passthrough_unsafe_noiommu": True,
    "passthrough_initramfs": "never",
}


class Variant(NamedTuple):
    """One way to run the same play."""

    forks: int
    strategy: str = "linear"
    pipelining: bool = True

    @property
    def title(self) -> str:
        pipelining = "on" if self.pipelining else "off"
        return f"{self.forks:5}  {self.strategy:12}{pipelining:10}"


class Cost(NamedTuple):
    """Seconds of a run, and processor seconds of Ansible and of the modules together."""

    seconds: float
    processor: float


FIRST = Variant(5)
VARIANTS = [
    FIRST,
    Variant(10),
    Variant(20),
    Variant(50),
    Variant(20, "free"),
    Variant(20, "host_pinned"),
    Variant(20, pipelining=False),
]


def run(hosts: Path, variant: Variant) -> None:
    """Call two modules on each host: ping, and the one that applies its list."""
    playbook = [
        {
            "name": "Ping, then apply",
            "hosts": "all",
            "gather_facts": False,
            "strategy": f"ansible.builtin.{variant.strategy}",
            "pre_tasks": [{"name": "Ping", "ansible.builtin.ping": {}}],
            "roles": ["armfleet.vfio.passthrough"],
        }
    ]
    variables = {**SETTINGS, "ansible_pipelining": variant.pipelining}
    forks = ("--forks", str(variant.forks))
    done = play(hosts, playbook, *forks, variables=variables, by_command=True)
    if done.code:
        raise SystemExit(f"a run failed:\n{done.output[-4000:]}")


def timed(hosts: Path, variant: Variant) -> Cost:
    began, used = time.monotonic(), os.times()
    run(hosts, variant)
    ended, after = time.monotonic(), os.times()
    processor = (after.children_user + after.children_system) - (
        used.children_user + used.children_system
    )
    return Cost(ended - began, processor)


def measure(hosts: Path, rounds: int) -> dict[Variant, list[Cost]]:
    """Return costs by variant. Each round runs every variant, so that noise affects all equally."""
    costs: dict[Variant, list[Cost]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds):
        for variant in VARIANTS[number:] + VARIANTS[:number]:
            costs[variant].append(timed(hosts, variant))
    return costs


@contextmanager
def fleet(size: int) -> Iterator[Path]:
    """Start boards of one kind, one in ten of them slow to answer; yield their inventory."""
    (board,) = (path for path in device_trees() if path.match(BOARD))
    with tempfile.TemporaryDirectory(prefix="armfleet-") as directory:
        os.environ["ARMFLEET_SIMULATOR_HOSTS"] = str(Path(directory) / "hosts")
        hosts = start([Plan(f"board-{number}", board) for number in range(size)])
        try:
            written = yaml.safe_load(inventory(hosts))
            members = written["simulated"]["hosts"]
            for name in list(members)[::ONE_SLOW_IN]:
                members[name]["ansible_ssh_executable"] = str(SLOW_SSH)
            path = Path(directory) / "hosts.yml"
            path.write_text(yaml.safe_dump(written))
            yield path
        finally:
            for host in hosts:
                host.stop()


def print_table(costs: dict[Variant, list[Cost]], size: int) -> None:
    rounds = len(costs[FIRST])
    busy = os.getloadavg()[2] / (os.cpu_count() or 1)
    print(f"{size} simulated boards, one in {ONE_SLOW_IN} a second slow to answer each time;")
    print(f"medians of {rounds} interleaved rounds, each beside the first line of its round.")
    print(
        f"{os.cpu_count()} processors; in the last 15 minutes {busy:.1f} programs ran for each.\n"
    )
    print(f"{'forks':>5}  {'strategy':12}{'pipelining':10}{'time':>8}{'/ first':>9}", end="")
    print(f"{'processor':>11}{'/ first':>9}")
    for variant, taken in costs.items():
        pairs = list(zip(taken, costs[FIRST], strict=True))
        print(
            f"{variant.title}{statistics.median(cost.seconds for cost in taken):7.1f}s"
            f"{statistics.median(cost.seconds / first.seconds for cost, first in pairs):9.2f}"
            f"{statistics.median(cost.processor for cost in taken):10.1f}s"
            f"{statistics.median(cost.processor / first.processor for cost, first in pairs):9.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with fleet(arguments.boards) as hosts:
        # Only the first run binds devices.
        run(hosts, Variant(20))
        costs = measure(hosts, arguments.rounds)
    print_table(costs, arguments.boards)
    return 0


if __name__ == "__main__":
    sys.exit(main())
