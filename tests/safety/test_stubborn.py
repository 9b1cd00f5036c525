"""Devices that cannot be unbound or that VFIO does not accept: runs end and report why."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply_vfio, call, info, refused, to_vfio
from tests.harness.playbook import Run
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

VFIO, RING_NATIVE, STUCK_NATIVE = (
    ("vfio-platform", "vfio-platform"),
    ("acme-ring", None),
    ("acme-stuck", None),
)
RING, SECOND_RING, THIRD_RING = (f"/soc/ring@b1{number:02x}000" for number in range(3))
STUCK, SECOND_STUCK = "/soc/stuck@b010000", "/soc/stuck@b011000"
PAIR, SIBLING = "/soc/pair@b015000", "/soc/pair@b014000"
# Nothing waits that long, however slow the machine is, unless it waits for the timeout.
TIMEOUT = 100
# The timeout for a driver that never answers.
STUCK_TIMEOUT = 4

# Holds nodes open until it is stopped, as a virtual machine does.
_HOLD = """
import os, signal, sys
held = [os.open(node, os.O_RDWR) for node in sys.argv[1:]]
open("/run/held", "w").close()
signal.pause()
"""
# The same through a node of another name, which is then deleted, in a thread with its own file
# descriptors (CLONE_FILES).
_HOLD_ASIDE = """
import ctypes, os, signal, sys, threading
def hold():
    ctypes.CDLL(None).unshare(0x400)
    os.mknod("/root/aside", 0o20600, os.stat(sys.argv[1]).st_rdev)
    held = os.open("/root/aside", os.O_RDWR)
    os.unlink("/root/aside")
    open("/run/held", "w").close()
    threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
signal.pause()
"""
# Commands that package upgrades and administrators run.
_RESTARTS = (
    "udevadm control --reload",
    "udevadm trigger --action=add --settle",
    "udevadm trigger --action=change --settle",
    "udevadm trigger --settle",
    "systemctl daemon-reexec",
    "systemctl restart systemd-udevd systemd-modules-load systemd-udev-trigger kmod-static-nodes",
    "udevadm settle",
)
# VFIO_GROUP_GET_STATUS of linux/vfio.h: whether VFIO could use the group.
_VIABLE = """
import fcntl, os, struct, sys
status = bytearray(struct.pack("II", 8, 0))
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), 0x3B67, status)
print(struct.unpack("II", status)[1] & 1)
"""


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    guest = start("test-d", "d")
    guest.run("cat > /root/hold.py", input=_HOLD)
    guest.run("cat > /root/hold_aside.py", input=_HOLD_ASIDE)
    guest.run("cat > /root/viable.py", input=_VIABLE)
    return guest


@pytest.fixture(autouse=True)
def _from_nothing_to_nothing(released_guest: None) -> None:
    """Each test's list is released."""


def seconds(run: Run) -> float:
    (task,) = run.tasks
    return task.seconds


@contextmanager
def held(guest: Guest, node: str, program: str = "hold.py") -> Iterator[str]:
    """Hold a node open by a process, and yield what a refusal reports of it."""
    guest.run(f"systemd-run --quiet --unit=vm /usr/bin/python3 /root/{program} {node}")
    guest.run("until [ -e /run/held ]; do :; done")
    pid = guest.run("systemctl show --value -p MainPID vm").stdout.strip()
    try:
        yield f"{node} is held open by python3 (pid {pid})"
    finally:
        guest.run("systemctl stop vm; rm /run/held")


@pytest.fixture
def nodes(guest: Guest, inventory: Path) -> dict[str, str]:
    """Bind a ring to VFIO, and return its group node and its device node."""
    assert apply_vfio(inventory, RING).code == 0
    ring = read_machine(guest).at(RING)
    directory = f"/sys/bus/platform/devices/{ring.name}/vfio-dev"
    own = guest.run(["ls", directory]).stdout.strip()
    return {"group": f"/dev/vfio/{ring.group}", "cdev": f"/dev/vfio/devices/{own}"}


def test_a_device_that_is_held_open_stays_bound_whatever_is_asked(
    guest: Guest, inventory: Path, nodes: dict[str, str]
) -> None:
    device = [{"dt_path": RING}]
    everything = ["console", "storage", "network", "consumers", "clock", "watchdog", "group"]
    common = {"timeout": TIMEOUT, "allow": everything}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("vfio_binding", {"devices": device, "state": "released"}),
        ("no_autobind", {"devices": device}),
        ("driver_override", {"devices": device, "state": "absent", "rebind": True}),
        ("host_policy", {"state": "absent"}),
        ("host_policy", to_vfio(SECOND_RING)),
    ]
    for kind, program, modules in (
        ("group", "hold.py", asked),
        ("group", "hold_aside.py", asked[:1]),
        ("cdev", "hold.py", asked[:1]),
        ("cdev", "hold_aside.py", asked[:1]),
    ):
        calls = [(module, {**options, **common}) for module, options in modules]
        with held(guest, nodes[kind], program) as sentence:
            tasks = refused(inventory, calls)
        for task in tasks:
            reported = task.refusal
            assert f"{RING} (platform device b100000.ring) is in use: {sentence}" in reported
            assert "Stop the process that uses it; an open device is never unbound" in reported
        # The refusal comes without waiting for the timeout.
        assert max(task.seconds for task in tasks) < TIMEOUT
    machine = read_machine(guest)
    assert (machine.at(RING).binding, machine.at(SECOND_RING).binding) == (VFIO, RING_NATIVE)


def test_rules_that_are_replayed_and_services_that_restart_leave_an_open_device_alone(
    guest: Guest, inventory: Path, nodes: dict[str, str]
) -> None:
    with held(guest, nodes["group"]) as sentence:
        for command in _RESTARTS:
            guest.run(command)
            assert read_machine(guest).at(RING).binding == VFIO
        (device,) = info(inventory, {"dt_path": RING})
        assert sentence in [hazard["message"] for hazard in device["in_use_by"]]
        # Another run with the same list, such as a nightly one, changes nothing.
        assert apply_vfio(inventory, RING).changed == {"test-d": 0}


@pytest.fixture
def stuck(guest: Guest) -> Iterator[None]:
    """Make the remove of acme-stuck block until the end of the test."""
    guest.run("echo Y > /sys/module/acme_stuck/parameters/stuck")
    yield
    guest.run("echo N > /sys/module/acme_stuck/parameters/stuck")
    guest.run("while ls /proc/[0-9]*/wchan | xargs grep -ls acme_stuck_remove; do :; done")


@pytest.mark.usefixtures("stuck")
def test_a_remove_that_never_returns_does_not_keep_the_run(guest: Guest, inventory: Path) -> None:
    devices = to_vfio(RING, STUCK, SECOND_STUCK, SECOND_RING)
    checked = call(inventory, "host_policy", "--check", **devices)
    tried = call(inventory, "host_policy", timeout=STUCK_TIMEOUT, **devices)
    reported = tried.refusal
    # A run that waited for the remove would never return.
    assert seconds(tried) - seconds(checked) < TIMEOUT
    assert f"{STUCK} (platform device b010000.stuck): cannot unbind from acme-stuck" in reported
    assert f"did not answer within {STUCK_TIMEOUT} s" in reported
    assert "is still waiting there (in acme_stuck_remove)" in reported
    assert "the kernel still holds it; it was bound to acme-stuck" in reported
    machine = read_machine_but(guest, STUCK)
    assert machine[RING] == machine[SECOND_RING] == RING_NATIVE
    assert machine[SECOND_STUCK] == STUCK_NATIVE
    assert files(guest) == {}
    # Other devices can still be bound, and the stuck one can be inspected.
    assert apply_vfio(inventory, THIRD_RING, timeout=STUCK_TIMEOUT).code == 0
    assert read_machine_but(guest, STUCK)[THIRD_RING] == VFIO
    shown = info(inventory, {"dt_path": STUCK})
    assert [device["dt_path"] for device in shown] == [STUCK]
    # Once the remove returns, the next run rolls the device back to its driver.
    guest.run("echo N > /sys/module/acme_stuck/parameters/stuck")
    after = apply_vfio(inventory, THIRD_RING, timeout=STUCK_TIMEOUT)
    assert after.code == 0, after.output
    assert read_machine(guest).at(STUCK).binding == STUCK_NATIVE


def read_machine_but(guest: Guest, path: str) -> dict[str, tuple[str | None, str | None]]:
    """Return bindings by path but for ``path``, whose override cannot be read: its lock is held."""
    script = (
        "for d in /sys/bus/platform/devices/*; do p=$(readlink $d/of_node); p=${p#*/base};"
        f' [ "$p" = "{path}" ] || [ -z "$p" ] ||'
        ' echo "$p $(basename "$(readlink $d/driver)") $(cat $d/driver_override)"; done'
    )
    bindings = {}
    for line in guest.run(script).stdout.splitlines():
        node, driver, override = line.split(" ")
        bindings[node] = (driver or None, None if override == "(null)" else override)
    return bindings


def test_a_group_whose_other_device_stays_on_its_driver_is_of_no_use(
    guest: Guest, inventory: Path
) -> None:
    # On a slow boot, the sibling is probed before the IOMMU and has no group: probe it again.
    for command in ("unbind", "bind"):
        guest.run(f"echo b014000.pair > /sys/bus/platform/drivers/acme-ring/{command}")
    # At the first attempt, the kernel does not show yet that they share a group.
    for words in ("shares IOMMU group", "cannot be opened by VFIO"):
        reported = apply_vfio(inventory, PAIR).refusal
        assert f"{PAIR} (platform device b015000.pair)" in reported
        assert words in reported
        assert "platform/b014000.pair" in reported
        assert read_machine(guest).at(PAIR).binding == (None, None)
    assert apply_vfio(inventory, PAIR, allow=["group"]).code == 0
    group = read_machine(guest).at(PAIR).group
    look = f"python3 /root/viable.py /dev/vfio/{group}"
    assert guest.run(look).stdout == "0\n"
    assert apply_vfio(inventory, PAIR, SIBLING).code == 0
    assert guest.run(look).stdout == "1\n"
    both = [{"dt_path": PAIR, "policy": "vfio"}, {"dt_path": SIBLING, "policy": "no_autobind"}]
    assert call(inventory, "host_policy", devices=both, reset_required=False).code == 0
    assert guest.run(look).stdout == "1\n"


def test_a_missing_reset_function_is_known_before_anything_is_touched(
    guest: Guest, inventory: Path
) -> None:
    devices = [{"dt_path": "/soc/ethernet@b018000"}, {"dt_path": RING}]
    guest.run("modprobe -r vfio_platform")
    reported = call(inventory, "vfio_binding", devices=devices, reset_required=True).refusal
    assert reported == (
        f"{RING} (platform device b100000.ring) has no reset function (acme,ring), and "
        "vfio-platform requires one (ENOENT). If the device may be used without a reset, "
        "set `reset_required: false`"
    )
    assert guest.run("test -e /sys/module/vfio_platform", check=False).returncode == 1
    bound = call(inventory, "vfio_binding", devices=devices[:1], reset_required=True)
    assert bound.code == 0, bound.output
    released = call(inventory, "vfio_binding", devices=devices[:1], state="released")
    assert released.code == 0, released.output
