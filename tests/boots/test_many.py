"""udev accepts the rules of a list of 500 entries, and is not slowed down by them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from tests.boots.many import ENTRIES, Figures, boot_files, milliseconds_to_render

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest import Guest

ROUNDS = 5
# Replays the event of each platform device, and prints the milliseconds that each took.
REPLAY = """
import os, subprocess, time
subprocess.run(["udevadm", "control", "--reload"], check=True)
begun = time.monotonic()
replay = ["udevadm", "trigger", "--action=add", "--settle", "--subsystem-match=platform"]
subprocess.run(replay, check=True)
print(1000 * (time.monotonic() - begun) / len(os.listdir("/sys/bus/platform/devices")))
"""


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    return start(f"boots-many-{kernel.replace('.', '-')}", "f", kernel)


@pytest.mark.nightly
def test_udev_takes_its_rules_and_is_not_held_up(
    guest: Guest, request: pytest.FixtureRequest
) -> None:
    rules = boot_files()[RULES] or ""
    assert rules.count("# policy: ") == ENTRIES
    guest.run("cat > /root/many.rules", input=rules)
    verified = guest.run("udevadm verify /root/many.rules").stdout
    assert "Success: 1" in verified
    assert "Fail:    0" in verified
    without, having = [], []
    for _round in range(ROUNDS):
        guest.run(["rm", "-f", RULES])
        without.append(float(guest.run("python3 -", input=REPLAY).stdout))
        guest.run(["cp", "/root/many.rules", RULES])
        having.append(float(guest.run("python3 -", input=REPLAY).stdout))
    rendered = median(milliseconds_to_render() for _round in range(ROUNDS))
    figures = Figures(rendered, median(without), median(having))
    request.node.user_properties.append(("figures", figures))
