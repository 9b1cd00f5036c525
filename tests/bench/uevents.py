#!/usr/bin/env python
"""What the udev rules of a long policy list add to events of devices that are not in it.

Measured on a real ARM kernel, with rules and without in turn on one guest. Run it with PYTHONPATH
such that ansible_collections.armfleet.vfio is found.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    RULES,
    LastApplied,
    Machine,
    boot_plan,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_rules import render
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from tests.guest import Guest, GuestError

ENTRIES = 500
# So few that a program that starts meanwhile disturbs one round, and not the median of all.
EVENTS = 50
# Their directories in /sys. The rules skip devices of other buses, as the last one.
DEVICES = {
    "a platform device": "bus/platform/devices/b003000.plain",
    "a PCI function": "bus/pci/devices/0000:00:03.0",
    "/dev/null": "class/mem/null",
}
# Events of one device are handled one after the other. The write returns when the kernel has sent
# the event, and settle when udev has handled the last.
SEND = """\
set -e
cd /sys/%s
start=$(date +%%s%%N)
for _event in $(seq %d); do echo change > uevent; done
udevadm settle
echo $(( $(date +%%s%%N) - start ))
"""


def lists() -> dict[str, list[dict[str, Any]]]:
    """Return policy lists for devices that the guest does not have, by title."""
    half = range(ENTRIES // 2)
    return {
        "none": [],
        "path, address": [
            *({"dt_path": f"/soc/port@{0xC000000 + number * 0x1000:x}"} for number in half),
            *({"pci_address": f"0001:{number:02x}:00.0"} for number in half),
        ],
        "compatible, id": [
            *({"compatible": f"acme,port-v{number}"} for number in half),
            *({"pci_id": f"15b3:{0x1000 + number:04x}"} for number in half),
        ],
    }


def rules(selectors: list[dict[str, Any]]) -> str | None:
    """Return the content of the rules file, or None if there shall be none."""
    entries = parse_entries([{**selector, "policy": "vfio"} for selector in selectors])
    plan = boot_plan(LastApplied(entries, {}), Machine(buses=("platform", "pci")))
    return render(plan)[RULES]


def install(guest: Guest, content: str | None) -> None:
    """Have udev use these rules, which it reads before the next event."""
    write = f"cat > {RULES}" if content else f"rm -f {RULES}"
    guest.run(f"{write}; udevadm control --reload", input=content)


def send(guest: Guest, path: str, count: int) -> float:
    """Return the seconds until udev has handled so many events of a device."""
    return int(guest.run(SEND % (path, count), timeout=600).stdout) / 1e9


def measure(guest: Guest, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds by list and device; each round has them in another order."""
    contents = {title: rules(selectors) for title, selectors in lists().items()}
    seconds: dict[str, dict[str, list[float]]] = {
        title: {device: [] for device in DEVICES} for title in contents
    }
    titles = list(contents)
    for number in range(rounds):
        first = number % len(titles)
        for device, path in DEVICES.items():
            for title in titles[first:] + titles[:first]:
                install(guest, contents[title])
                send(guest, path, 1)
                seconds[title][device].append(send(guest, path, EVENTS))
    return seconds


def print_table(seconds: dict[str, dict[str, list[float]]]) -> None:
    without, *others = seconds
    rounds = len(next(iter(seconds[without].values())))
    print(f"udev handling events of a device, with the rules of {ENTRIES} entries for others and")
    print(f"without: medians of {rounds} interleaved rounds of {EVENTS} events each, beside those")
    print("without rules in the same round. Half of each list is on PCI.\n")
    print(f"{'events of':20}{'no rules':>12}" + "".join(f"{title:>16}" for title in others))
    for device, base in seconds[without].items():
        ratios = [
            statistics.median(
                taken / first for taken, first in zip(seconds[title][device], base, strict=True)
            )
            for title in others
        ]
        each = statistics.median(base) / EVENTS * 1000
        print(f"{device:20}{each:9.2f} ms" + "".join(f"{ratio:16.2f}" for ratio in ratios))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    guest = Guest("bench", "bench")
    try:
        guest.start(fresh=True)
        print_table(measure(guest, arguments.rounds))
    except GuestError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        guest.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
