"""Each platform device that the machine uses is refused, and the machine keeps running."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from extensions.simulator.host import Plan
from tests.guest.board import device_trees
from tests.harness.calls import apply, info, refused
from tests.harness.playbook import (
    Run,
    play,
    refused_tasks_play,
    rows,
    task_play,
)
from tests.harness.sysfs import read_machine
from tests.simulated.fleet import fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.guest import Guest

# vdb has two partitions. One is half of a RAID, and a volume on that RAID is mounted on /mnt/deep.
# The other is mounted in the mount namespace of a single process. vdc is swap, vdd is below a loop
# device, and vdf is the journal of the file system on the NVMe disk.
_FURNISH_DISKS = r"""
set -eu
python3 - <<'END'
import struct
with open("/dev/vdb", "r+b") as disk:
    disk.seek(446)
    disk.write(struct.pack("<B3xB3xII", 0, 0x83, 2048, 40000))
    disk.write(struct.pack("<B3xB3xII", 0, 0x83, 43008, 16384))
    disk.seek(510)
    disk.write(b"\x55\xaa")
END
# udev looks at a disk that was written to, and nobody can read its partitions meanwhile.
until blockdev --rereadpt /dev/vdb 2> /dev/null; do udevadm settle; done
udevadm settle
mkdir -p /mnt/deep /mnt/nvme
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --bitmap=none /dev/vdb1 /dev/vde
pvcreate --yes --quiet /dev/md0
vgcreate --quiet deep /dev/md0
lvcreate --yes --quiet --name volume --extents 100%FREE deep
mke2fs -q /dev/deep/volume
mount /dev/deep/volume /mnt/deep
mkswap --quiet /dev/vdc
swapon /dev/vdc
mke2fs -q -O journal_dev /dev/vdf
mke2fs -q -t ext4 -J device=/dev/vdf /dev/nvme0n1
mount /dev/nvme0n1 /mnt/nvme
mke2fs -q /dev/vdb2
systemd-run --quiet --unit=recluse \
    unshare --mount sh -c 'mount /dev/vdb2 /mnt && touch /run/recluse && exec sleep infinity'
systemd-run --quiet --unit=dog sh -c 'exec 9> /dev/watchdog0; touch /run/dog; exec sleep infinity'
until [ -e /run/recluse ] && [ -e /run/dog ]; do :; done
"""
_MOUNT_LOOP = r"""
set -eu
mkdir -p /mnt/loop
loop=$(losetup --find --show /dev/vdd)
mke2fs -q "$loop"
mount "$loop" /mnt/loop
"""
# The loop device still references the removed disk, so that the name of the disk is not free.
_RENEW_LOOP = r"""
set -eu
umount /mnt/loop
losetup --detach-all
cd /sys/bus/platform/drivers/virtio-mmio
echo a000800.virtio_mmio > unbind
echo a000800.virtio_mmio > bind
udevadm settle
"""
_FURNISH_LINKS = """
ip link add team0 type team
ip link set eth1 master team0
ip link set eth1 up
ip link set team0 up
ip link add link team0 name team0.5 type vlan id 5
"""
# Moves the address to the bridge, and ssh with it. The network outside accepts one MAC address.
_STACK = r"""
set -eu
address=$(cat /sys/class/net/eth0/address)
ip link show bond0 > /dev/null 2>&1 || ip link add bond0 type bond
ip link set bond0 address "$address"
ip link add br0 address "$address" type bridge
ip link set eth0 down
ip link set eth0 master bond0
ip link set bond0 master br0
ip address flush dev eth0
for interface in eth0 bond0 br0; do ip link set "$interface" up; done
ip address add 10.0.2.15/24 dev br0
ip route add default via 10.0.2.2
touch /run/stacked
"""
_UNSTACK = r"""
set -eu
ip address flush dev br0
ip link set bond0 nomaster
ip link set eth0 nomaster
ip link delete br0
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
rm /run/stacked
"""

ROOT, RAID, SWAP, LOOP, MIRROR, JOURNAL = (
    f"/virtio_mmio@a000{digit}00" for digit in ("2", "4", "6", "8", "a", "c")
)
NETWORK, SPARE_NETWORK = "/virtio_mmio@a001400", "/virtio_mmio@a001600"
GPIO, CLOCK, REGULATOR = "/pl061@9030000", "/clock-gate", "/regulator"
POWER = "/power"
TIMER, SENSOR, DOG = (
    f"/soc/{node}" for node in ("timer@b016000", "sensor@b017000", "watchdog@b012000")
)
RTC = "/pl031@9010000"
# By device-tree path: the kind to accept, and what the refusal says.
CARRIED = {
    ROOT: ("storage", ["disk vda: vda is mounted on /."]),
    RAID: (
        "storage",
        [
            "vdb1 is part of md0, ",
            "md0 is part of dm-",
            " (deep-volume) is mounted on /mnt/deep",
            "vdb2 is mounted on /mnt by sleep (pid ",
        ],
    ),
    MIRROR: ("storage", ["disk vde: vde is part of md0", "(deep-volume) is mounted on /mnt/deep"]),
    SWAP: ("storage", ["disk vdc: vdc is swap."]),
    LOOP: ("storage", ["disk vdd: vdd is part of loop0, loop0 is mounted on /mnt/loop."]),
    JOURNAL: ("storage", ["disk vdf: it is in use by the kernel, which does not report the user."]),
    NETWORK: (
        "network",
        [
            "network interface eth0 is up with 10.0.2.15, the default route, and this run is",
            " connected through it.",
        ],
    ),
    SPARE_NETWORK: ("network", ["network interface eth1 is up, below team0, team0.5."]),
    "/pl011@9000000": ("console", ["ttyAMA0 is the system console."]),
    GPIO: ("consumers", ["platform:gpio-keys uses it (gpios in the device tree)"]),
    "/smmuv3@9050000": ("consumers", ["it is the IOMMU smmu3.0x0000000009050000"]),
    CLOCK: ("consumers", ["platform:b016000.timer depends on it and would be unbound."]),
    REGULATOR: (
        "consumers",
        [
            "regulator.1 (acme) supplies power, switched on by 1 user.",
            "platform:b017000.sensor depends on it and would be unbound.",
        ],
    ),
    RTC: ("clock", ["rtc0 is the clock that sets the system time."]),
    DOG: ("watchdog", ["watchdog0 is running and may reset the machine."]),
    "/pcie@10000000": ("storage", ["disk nvme0n1: nvme0n1 is mounted on /mnt/nvme."]),
}
ENTRIES = [{"dt_path": path, "policy": "no_autobind"} for path in CARRIED]
# Entries that an operator may write without checking, and the uses that they would end.
CARELESS = [
    {"compatible": "virtio,mmio", "policy": "vfio"},
    {"dt_path": NETWORK, "policy": "vfio"},
    {"dt_path": "/pl011@9000000", "policy": "no_autobind"},
]
LOST = [
    *(sentence for path in (ROOT, RAID, SWAP, LOOP, JOURNAL) for sentence in CARRIED[path][1]),
    *CARRIED[NETWORK][1],
    "that driver has no unbind (suppress_bind_attrs) and is built into the kernel",
]
# The drivers of the others have no unbind, or the machine does not run without the device.
ALLOWED = (LOOP, SPARE_NETWORK, CLOCK, REGULATOR, RTC, DOG)


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    guest = start("test-d", "d")
    guest.run("bash -s", input=_FURNISH_DISKS + _MOUNT_LOOP + _FURNISH_LINKS)
    return guest


@pytest.fixture(autouse=True)
def _nothing_changes(unchanged_guest: None) -> None:
    """No test changes the guest."""


@pytest.fixture
def stacked(guest: Guest) -> Iterator[None]:
    """Put eth0 of the guest below a bond that is below a bridge."""
    for script, word in ((_STACK, "until"), (_UNSTACK, "while")):
        guest.run("cat > /root/network.sh", input=script)
        guest.run("systemd-run --quiet bash /root/network.sh")
        guest.run(f"{word} [ -e /run/stacked ]; do :; done")
        if script == _STACK:
            yield


def refusal_lines(run: Run) -> list[str]:
    return run.refusal.splitlines()


def refusals(inventory: Path, asked: list[tuple[str, dict[str, Any]]]) -> list[list[str]]:
    """Run the modules with their options in one play; return the lines of each refusal."""
    return [task.refusal.splitlines() for task in refused(inventory, asked)]


def lines_about(path: str, lines: list[str], kind: str) -> str:
    matches = [
        line
        for line in lines
        if line.startswith(f"{path} (") and f"add '{kind}' to `allow`" in line
    ]
    return "\n".join(matches)


def test_all_that_the_machine_stands_on_is_refused_at_once(inventory: Path) -> None:
    lines = refusal_lines(apply(inventory, ENTRIES))
    for path, (kind, sentences) in CARRIED.items():
        reported = lines_about(path, lines, kind)
        assert [sentence for sentence in sentences if sentence not in reported] == [], "\n".join(
            lines
        )
    assert refusal_lines(apply(inventory, ENTRIES, "--check")) == lines


def test_each_kind_is_refused_and_what_others_may_lose_does_not_help(inventory: Path) -> None:
    kinds = sorted({kind for kind, _sentences in CARRIED.values()})
    asked = [
        {
            "devices": [
                {"dt_path": path, "policy": "no_autobind"}
                for path, (carried, _sentences) in CARRIED.items()
                if carried == kind
            ],
            "allow": [other for other in kinds if other != kind],
        }
        for kind in kinds
    ]
    answers = refusals(inventory, [("host_policy", options) for options in asked])
    lines = dict(zip(kinds, answers, strict=True))
    for path, (kind, sentences) in CARRIED.items():
        reported = lines_about(path, lines[kind], kind)
        assert [sentence for sentence in sentences if sentence not in reported] == []


def test_what_is_lost_with_a_device_that_depends_is_refused_by_its_own_kind(
    inventory: Path,
) -> None:
    device = {"dt_path": POWER, "policy": "no_autobind"}
    (lines,) = refusals(inventory, [("host_policy", {"devices": [device], "allow": ["consumers"]})])
    reported = lines_about(POWER, lines, "network")
    way = "it supplies platform:a001600.virtio_mmio"
    assert f"network interface eth1 is up, below team0, team0.5 ({way})." in reported


@pytest.mark.skipif(
    bool(os.geteuid()) or not os.access("/dev/fuse", os.W_OK),
    reason="simulated boards need root and /dev/fuse",
)
def test_a_simulated_board_that_is_described_so_refuses_in_the_same_sentences(
    inventory: Path, tmp_path: Path
) -> None:
    entries = [{"dt_path": path, "policy": "no_autobind"} for path in (ROOT, NETWORK)]
    lines = refusal_lines(apply(inventory, entries))
    uses = (f"{ROOT} vda /", f"{NETWORK} eth0 10.0.2.15/24 default")
    plan = Plan("test-carriers", device_trees().ensure() / "d.dtb", uses=uses)
    with fleet(tmp_path, [plan], {}) as boards:
        assert refusal_lines(apply(boards.inventory, entries)) == lines


@pytest.mark.nightly
def test_the_small_modules_refuse_as_well(inventory: Path) -> None:
    devices = [{"dt_path": path} for path in (ROOT, NETWORK)]
    asked = [
        ("no_autobind", {"devices": devices}),
        ("driver_override", {"devices": devices, "driver": "none", "rebind": True}),
        ("vfio_binding", {"devices": devices, "reset_required": False, "unsafe_noiommu": True}),
    ]
    for lines in refusals(inventory, asked):
        reported = "\n".join(lines)
        assert "vda is mounted on /." in reported
        assert "this run is connected through it" in reported


@pytest.mark.nightly
@pytest.mark.usefixtures("stacked")
def test_the_interface_that_ssh_comes_in_by_is_known_below_a_bond_and_a_bridge(
    inventory: Path,
) -> None:
    lines = refusal_lines(apply(inventory, [{"dt_path": NETWORK, "policy": "no_autobind"}]))
    (reported,) = [line for line in lines if "network interface" in line]
    assert (
        "eth0 is up, below bond0, br0 with 10.0.2.15, the default route, and this run is "
        "connected through it" in reported
    )


@pytest.fixture
def boxed(guest: Guest) -> Iterator[None]:
    """Move eth1 of the guest to a network namespace of its own, as container runtimes do."""
    guest.run("ip link delete team0; ip netns add box; ip link set eth1 netns box")
    yield
    guest.run("ip netns exec box ip link set eth1 netns 1; ip netns delete box")
    guest.run("bash -s", input=_FURNISH_LINKS)


@pytest.mark.nightly
@pytest.mark.usefixtures("boxed")
def test_an_interface_that_a_container_has_is_known(inventory: Path) -> None:
    devices = [{"dt_path": SPARE_NETWORK, "policy": "no_autobind"}]
    reported = lines_about(SPARE_NETWORK, refusal_lines(apply(inventory, devices)), "network")
    assert "a network interface on it is in another network namespace" in reported


@pytest.mark.nightly
def test_device_info_shows_the_same(inventory: Path) -> None:
    devices = [{"dt_path": path} for path in CARRIED]
    shown = info(inventory, *devices)
    lines = refusal_lines(apply(inventory, ENTRIES))
    for device in shown:
        kind, _sentences = CARRIED[device["dt_path"]]
        assert kind in [hazard["kind"] for hazard in device["in_use_by"]]
        for hazard in device["in_use_by"]:
            assert hazard["message"] in lines_about(device["dt_path"], lines, hazard["kind"])


def test_what_is_allowed_and_can_be_done_is_done_and_can_be_given_back(
    guest: Guest, inventory: Path
) -> None:
    kinds = sorted({CARRIED[path][0] for path in ALLOWED})
    entries = [{"dt_path": path, "policy": "no_autobind"} for path in ALLOWED]
    done = apply(inventory, entries, allow=kinds, persistent=False)
    assert done.code == 0, done.output
    machine = read_machine(guest)
    assert {machine.at(path).binding for path in ALLOWED} == {(None, "none")}
    # Their suppliers were unbound.
    assert machine.at(TIMER).driver is None
    assert machine.at(SENSOR).driver is None
    back = {"devices": [{"dt_path": path} for path in ALLOWED], "state": "absent"}
    run = play(inventory, task_play("armfleet.vfio.no_autobind", back))
    assert run.code == 0, run.output
    guest.run("bash -s", input=_RENEW_LOOP + _MOUNT_LOOP)


def test_what_has_no_unbind_is_refused_whatever_is_allowed(inventory: Path) -> None:
    paths = ["/pl011@9000000", "/smmuv3@9050000"]
    entries = [{"dt_path": path, "policy": "no_autobind"} for path in paths]
    lines = refusal_lines(apply(inventory, entries, allow=["console", "consumers"]))
    assert [line.partition(" ")[0] for line in lines] == paths
    assert all("no unbind (suppress_bind_attrs)" in line for line in lines)


def test_the_next_boot_is_judged_as_the_running_system_is(guest: Guest, inventory: Path) -> None:
    options = {"runtime": False, "reset_required": False, "unsafe_noiommu": True}
    lines = refusal_lines(apply(inventory, CARELESS, **options))
    reported = "\n".join(lines)
    assert [sentence for sentence in LOST if sentence not in reported] == [], reported
    assert refusal_lines(apply(inventory, CARELESS, "--check", "--diff", **options)) == lines
    assert guest.run("ls /run/armfleet-vfio-reboot-required", check=False).returncode != 0


@pytest.mark.nightly
def test_what_is_accepted_for_the_next_boot_is_done_by_it_and_nothing_else(
    guest: Guest, inventory: Path
) -> None:
    """Comes last, because nothing is mounted after its reboot."""
    guest.run("ip link delete team0; ip link set eth1 down; cp /etc/fstab /root/fstab")
    policies = {LOOP: "vfio", SPARE_NETWORK: "no_autobind"}
    options = {
        "devices": [{"dt_path": path, "policy": policy} for path, policy in policies.items()],
        "runtime": False,
        "reset_required": False,
        "unsafe_noiommu": True,
    }
    accepting = {**options, "allow": ["storage"]}
    asked = [("armfleet.vfio.host_policy", given) for given in (options, accepting, options)]
    refused, done, again = play(inventory, refused_tasks_play(asked)).tasks
    (line,) = refused.refusal.splitlines()
    assert "loop0 is mounted on /mnt/loop" in line
    assert done.result["reboot_required"]
    assert not again.result["changed"]

    # The interface comes into use after the list was accepted.
    guest.run("ip link set eth1 up")
    boot = guest.boot_id()
    stopped = play(inventory, "armfleet.vfio.reboot")
    (row,) = rows(stopped).values()
    assert (stopped.code, row.outcome) == (2, "failed")
    assert "The next boot unbinds devices that are in use" in row.sentence
    assert f"{SPARE_NETWORK}: network interface eth1 is up" in row.sentence
    assert "loop0" not in row.sentence
    (*_others, checked) = [
        task.result["devices"]
        for task in stopped.tasks
        if task.action == "armfleet.vfio.device_info"
    ]
    assert {
        device["dt_path"]: [lost["accepted"] for lost in device["lost_at_boot"]]
        for device in checked
    } == {
        LOOP: [True],
        SPARE_NETWORK: [False],
    }
    assert guest.boot_id() == boot

    guest.run("ip link set eth1 down")
    booted = play(inventory, "armfleet.vfio.reboot")
    (row,) = rows(booted).values()
    assert (booted.code, row.outcome) == (0, "changed")
    assert row.sentence == "All of its list is in sync: 2 devices."
    assert guest.boot_id() != boot
    machine = read_machine(guest)
    assert machine.at(LOOP).binding == ("vfio-platform", "vfio-platform")
    assert machine.at(SPARE_NETWORK).binding == (None, "none")

    # A disk that is idle now is in use after the next boot if /etc/fstab lists it.
    guest.run("echo '/dev/vdc none swap noauto' >> /etc/fstab")
    idle = {"devices": [{"dt_path": SWAP, "policy": "no_autobind"}]}
    asked = [
        ("armfleet.vfio.host_policy", {**idle, "runtime": runtime}) for runtime in (True, False)
    ]
    released = ("armfleet.vfio.host_policy", {"state": "absent"})
    *judged, last = play(inventory, refused_tasks_play([*asked, released])).tasks
    guest.run("cp /root/fstab /etc/fstab")
    for task in judged:
        (line,) = task.refusal.splitlines()
        assert "disk vdc: vdc is in /etc/fstab as swap." in line
    assert last.status == "ok", last
