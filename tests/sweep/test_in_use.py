# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is described as in use on a simulated board is found, refused, and lost if it is accepted.

tests/safety/test_carriers.py has the same sentences from a real kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extensions.simulator.host import Plan
from tests.harness.calls import apply, info
from tests.harness.playbook import play, rows
from tests.simulated.fleet import Fleet, dt_path, fleet, root, run_on
from tests.sweep.test_mixed_fleet import BOARDS, dtb

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

DISK, NETWORK, CONSOLE = "/smb/sata@e0300000", "/smb/xgmac@e0700000", "/smb/serial@e1010000"
IDLE_DISK = "/smb/sata@e0d00000"
LINES = (
    f"{DISK} sda1 /",
    f"{DISK} sda2 /srv/data",
    f"{IDLE_DISK} sdb1",
    f"{NETWORK} eth0 10.0.2.15/24 default",
)
# By path: the driver, the kind of use to accept, and the refusal.
IN_USE = {
    DISK: (
        "snps-dwc-ahci",
        "storage",
        "is in use: disk sda: sda1 is mounted on /, sda2 is mounted on /srv/data. ",
    ),
    NETWORK: (
        "amd-xgbe-seattle-v1a",
        "network",
        (
            "is in use: network interface eth0 is up with 10.0.2.15, the default route, and this "
            "run is connected through it. "
        ),
    ),
    CONSOLE: ("arm-pl011", "console", "ttyAMA0 is the system console. "),
}


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    plan = Plan("test-in-use", dtb(BOARDS["overdrive-1"]), uses=LINES)
    with fleet(tmp_path_factory.mktemp("fleet"), [plan], {}) as boards:
        yield boards


def driver_of(boards: Fleet, path: str) -> str | None:
    (board,) = boards.boards.values()
    links = (root(board) / "sys/bus").glob("*/devices/*/of_node")
    (device,) = [link.parent for link in links if dt_path(link.parent) == path]
    return (device / "driver").readlink().name if (device / "driver").is_symlink() else None


@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_a_device_in_use_is_refused_as_on_a_real_board(boards: Fleet, policy: str) -> None:
    entries = [{"dt_path": path, "policy": policy} for path in IN_USE]
    refusal = apply(boards.inventory, entries, reset_required=False, unsafe_noiommu=True).refusal
    for path, (driver, kind, sentence) in IN_USE.items():
        (line,) = [line for line in refusal.splitlines() if line.startswith(f"{path} ")]
        assert f"{sentence}To accept this, add '{kind}' to `allow`" in line
        assert driver_of(boards, path) == driver


def test_device_info_reports_the_use(boards: Fleet) -> None:
    for path, (_driver, kind, sentence) in IN_USE.items():
        (device,) = info(boards.inventory, {"dt_path": path})
        assert [use["kind"] for use in device["in_use_by"]] == [kind]
        assert device["in_use_by"][0]["message"] in sentence


def test_candidates_exclude_devices_in_use(boards: Fleet) -> None:
    run = play(boards.inventory, "armfleet.vfio.candidates")
    assert run.code == 0, run.output
    block = run.output[run.output.index("passthrough_devices:") :]
    assert "- dt_path: /smb/xgmac@e0900000" in block
    assert f"- dt_path: {NETWORK}" not in block
    assert f"- dt_path: {DISK}" not in block


def test_numbers_and_addresses_are_those_of_the_host(boards: Fleet) -> None:
    (board,) = boards.boards.values()
    mounts = {
        fields[4]: fields[2]
        for fields in map(str.split, run_on(board, "cat", "/proc/self/mountinfo").splitlines())
    }
    for block, mount_point in (("sda1", "/"), ("sda2", "/srv/data")):
        number = run_on(board, "cat", f"/sys/class/block/{block}/dev").strip()
        assert number == mounts[mount_point]
    own = Path("/sys/class/net").glob("*/ifindex")
    assert all(int(path.read_text()) < 1000 for path in own)
    assert int(run_on(board, "cat", "/sys/class/net/eth0/ifindex")) >= 1000
    assert not Path("/srv/data").exists()


def test_a_use_that_is_accepted_ends_with_the_driver_and_comes_back(boards: Fleet) -> None:
    (board,) = boards.boards.values()
    entry: dict[str, Any] = {"dt_path": NETWORK, "policy": "vfio"}
    options = {"reset_required": False, "allow": ["network"]}
    done = apply(boards.inventory, [entry], **options)
    assert done.code == 0, done.output
    assert driver_of(boards, NETWORK) == "vfio-platform"
    assert run_on(board, "ls", "/sys/class/net") == ""
    assert apply(boards.inventory, [], **options).code == 0
    assert driver_of(boards, NETWORK) == "amd-xgbe-seattle-v1a"
    assert run_on(board, "cat", "/sys/class/net/eth0/flags") == "0x1003\n"


def test_a_disk_that_came_into_use_stops_the_reboot_that_would_lose_it(boards: Fleet) -> None:
    (board,) = boards.boards.values()
    entries = [{"dt_path": IDLE_DISK, "policy": "no_autobind"}]
    done = apply(boards.inventory, entries, runtime=False)
    assert done.of("armfleet.vfio.host_policy")["reboot_required"]
    run_on(board, "sh", "-c", "echo '/dev/sdb1 /mnt ext4 noauto 0 0' >> /etc/fstab")
    stopped = play(boards.inventory, "armfleet.vfio.reboot")
    (row,) = rows(stopped).values()
    assert (stopped.code, row.outcome) == (2, "failed")
    assert "The next boot unbinds devices that are in use" in row.sentence
    assert f"{IDLE_DISK}: disk sdb: sdb1 is in /etc/fstab" in row.sentence
