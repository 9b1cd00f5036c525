"""Runs that fail, are killed or wait for another, on a real kernel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from tests.harness import calls
from tests.harness.guests import released
from tests.harness.sysfs import bindings, read_machine, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

RINGS = [f"/soc/ring@b1{number:02x}000" for number in range(8)]
LIST = [{"dt_path": path, "policy": "vfio"} for path in RINGS]
VFIO, NATIVE = ("vfio-platform", "vfio-platform"), ("acme-ring", None)

# Kills the module as soon as the first device is bound to VFIO, before the others are.
_KILL = """
import os, signal, sys
first = "/sys/bus/platform/devices/%s/driver" % sys.argv[1]
while os.path.basename(os.path.realpath(first)) != "vfio-platform":
    pass
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open("/proc/%s/cmdline" % name, "rb") as stream:
            command = stream.read()
    except OSError:
        continue
    if int(name) != os.getpid() and command.startswith(b"/usr/bin/python3"):
        os.kill(int(name), signal.SIGKILL)
"""
_HOLD = """
import fcntl, os, signal
os.makedirs("/run/armfleet-vfio", mode=0o700, exist_ok=True)
lock = os.open("/run/armfleet-vfio/lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.ftruncate(lock, 0)
os.pwrite(lock, b"process %d (a test)" % os.getpid(), 0)
open("/run/held", "w").close()
signal.pause()
"""


@pytest.fixture(autouse=True)
def _from_nothing_to_nothing(guest: Guest, inventory: Path) -> Iterator[None]:
    with released(guest, inventory):
        yield
    left = guest.run("ls /run/armfleet-vfio").stdout.split()
    assert {name for name in left if not name.startswith("last-answer-")} == {"lock"}


apply = functools.partial(calls.apply, reset_required=False)


def test_if_the_last_of_eight_fails_the_first_seven_are_back(guest: Guest, inventory: Path) -> None:
    before = state(guest)
    pinned = {"dt_path": RINGS[-1], "policy": "driver", "driver": "gpio-keys"}
    reported = apply(inventory, [*LIST[:-1], pinned]).refusal
    assert RINGS[-1] in reported
    assert "Nothing was changed: all changes of this run were rolled back" in reported
    assert state(guest) == before


def test_a_run_that_was_killed_is_undone_by_the_next_one_which_says_so(
    guest: Guest, inventory: Path
) -> None:
    first = read_machine(guest).at(RINGS[0]).name
    guest.run("cat > /root/kill.py", input=_KILL)
    guest.run(["systemd-run", "--unit=kill", "/usr/bin/python3", "/root/kill.py", first])
    killed = apply(inventory, LIST)
    assert killed.code != 0
    halfway = bindings(guest, RINGS)
    assert halfway[0][1] == "vfio-platform"
    assert halfway[-1][0] != "vfio-platform"
    assert "journal" in guest.run("ls /run/armfleet-vfio").stdout
    rings = apply(inventory, LIST[4:])
    assert rings.code == 0, rings.output
    assert bindings(guest, RINGS) == [NATIVE] * 4 + [VFIO] * 4
    assert "[WARNING]: An earlier run on this host was interrupted: process" in rings.output
    again = apply(inventory, LIST[4:])
    assert again.changed == {"test-a": 0}
    assert "WARNING" not in again.output


def test_a_run_that_waits_in_vain_says_who_holds_the_lock(guest: Guest, inventory: Path) -> None:
    guest.run("cat > /root/hold.py", input=_HOLD)
    guest.run("systemd-run --unit=hold /usr/bin/python3 /root/hold.py")
    guest.run("until [ -e /run/held ]; do :; done")
    holder = guest.run("systemctl show --value -p MainPID hold").stdout.strip()
    reported = apply(inventory, LIST, timeout=2).refusal
    assert f"process {holder} (a test) holds the lock /run/armfleet-vfio/lock" in reported
    assert "Nothing was changed" in reported
    assert bindings(guest, RINGS) == [NATIVE] * 8
    guest.run("systemctl kill --signal=KILL hold")
    assert apply(inventory, LIST).code == 0
