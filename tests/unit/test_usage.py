"""What a device carries is found in /sys and /proc, and refused unless the user accepts it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError

NAME = "b000000.crypto"
HOME = f"devices/platform/{NAME}"
VDA, VDA1, VDA2 = "254:0", "254:1", "254:2"


def refusal(board: Board, **settings: Any) -> str:
    before = board.everything()
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], reset_required=False, **settings)
    assert not board.kernel.writes
    assert board.everything() == before
    return str(caught.value)


def assert_free(board: Board, **settings: Any) -> None:
    board.apply([CRYPTO], reset_required=False, **settings)
    assert board.kernel.driver_of(NAME) == "vfio-platform"


def assert_acceptable(board: Board, kind: str) -> None:
    others = [other for other in ("console", "storage", "network", "consumers") if other != kind]
    assert f"add '{kind}' to allow" in refusal(board, allow=others)
    assert_free(board, allow=[kind])


@pytest.fixture
def disk(board: Board) -> Board:
    """A board with a disk and two partitions on the device."""
    base = f"{HOME}/virtio0/block/vda"
    board.kernel.put(f"{base}/dev", VDA + "\n")
    for number, partition in enumerate((VDA1, VDA2), start=1):
        board.kernel.put(f"{base}/vda{number}/dev", partition + "\n")
        board.kernel.put(f"{base}/vda{number}/partition", f"{number}\n")
    return board


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Block devices in /dev, as major:minor by path; fill it in."""
    numbers: dict[str, str] = {}
    stat = os.stat

    def fake(path: Any, **settings: Any) -> os.stat_result:
        if path in numbers:
            major, minor = map(int, numbers[path].split(":"))
            fields = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), 0.0)
            return os.stat_result(
                (0o60600, *[0] * 9), {**fields, "st_rdev": os.makedev(major, minor)}
            )
        return stat(path, **settings)

    monkeypatch.setattr(os, "stat", fake)
    return numbers


def test_a_device_that_carries_nothing_is_free(board: Board) -> None:
    assert_free(board)


def test_a_disk_that_nothing_uses_is_free(disk: Board) -> None:
    disk.mount("254:16", "/elsewhere")
    assert_free(disk)


@pytest.mark.parametrize(("number", "block"), [(VDA, "vda"), (VDA2, "vda2")])
def test_a_mounted_disk_or_partition_is_in_use(disk: Board, number: str, block: str) -> None:
    disk.mount(number, "/data")
    assert f"disk vda: {block} is mounted on /data" in refusal(disk)
    assert_acceptable(disk, "storage")


def test_a_file_system_with_a_number_of_its_own_is_found_by_its_source(
    disk: Board, devices: dict[str, str]
) -> None:
    devices["/dev/vda2"] = VDA2
    disk.mount("0:35", "/", "btrfs", "/dev/vda2")
    assert "vda2 is mounted on /" in refusal(disk)


def test_swap_is_in_use(disk: Board, devices: dict[str, str]) -> None:
    devices["/dev/vda1"] = VDA1
    with (disk.proc / "swaps").open("a") as stream:
        stream.write("/dev/vda1 partition 1048572 0 -2\n")
    assert "vda1 is swap" in refusal(disk)
    assert_acceptable(disk, "storage")


def test_what_is_stacked_on_a_partition_is_in_use(disk: Board) -> None:
    kernel = disk.kernel
    kernel.put("devices/virtual/block/dm-0/dev", "253:0\n")
    kernel.point(f"{HOME}/virtio0/block/vda/vda2/holders/dm-0", "devices/virtual/block/dm-0")
    kernel.put("devices/virtual/block/dm-1/dev", "253:1\n")
    kernel.point("devices/virtual/block/dm-0/holders/dm-1", "devices/virtual/block/dm-1")
    disk.mount("253:1", "/var")
    assert "dm-1 is mounted on /var" in refusal(disk)


def test_an_interface_that_is_up_is_in_use(board: Board) -> None:
    board.kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x1003\n")
    assert "network interface eth0 is up" in refusal(board)
    assert_acceptable(board, "network")


def test_an_interface_that_is_down_is_free(board: Board) -> None:
    board.kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x1002\n")
    assert_free(board)


@pytest.mark.parametrize("place", ["tty/ttyAMA0", f"{NAME}:0/{NAME}:0.0/tty/ttyAMA0"])
def test_the_system_console_is_in_use_and_another_terminal_is_not(board: Board, place: str) -> None:
    board.kernel.put(f"{HOME}/{place}/dev", "204:64\n")
    board.kernel.put("class/tty/console/active", "tty0 ttyAMA0\n")
    assert "ttyAMA0 is the system console" in refusal(board)
    board.kernel.put("class/tty/console/active", "tty0 ttyAMA00\n")
    assert_free(board)


def test_the_console_may_be_given_away_if_the_user_accepts_it(board: Board) -> None:
    board.kernel.put(f"{HOME}/tty/ttyAMA0/dev", "204:64\n")
    board.kernel.put("class/tty/console/active", "ttyAMA0\n")
    assert_acceptable(board, "console")


def test_a_supplier_with_active_consumers_is_in_use(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    assert "platform:b002000.dma depends on it" in refusal(board)
    assert_acceptable(board, "consumers")


def test_a_supplier_of_consumers_that_have_no_driver_is_free(board: Board) -> None:
    board.kernel.add_link(NAME, "b004000.ethernet")
    assert_free(board)


def test_an_iommu_is_in_use_and_a_device_behind_one_is_not(board: Board) -> None:
    board.kernel.put("devices/platform/b002000.dma/iommu/smmu3.b002000/uevent", "")
    board.kernel.point(f"{HOME}/iommu", "devices/platform/b002000.dma/iommu/smmu3.b002000")
    assert_free(board)
    board.apply([])
    with pytest.raises(PolicyError, match="it is the IOMMU"):
        board.apply([{"name": "b002000.dma", "policy": "no_autobind"}])


@pytest.mark.parametrize("entries", [[], [dict(CRYPTO, policy="no_autobind")]])
def test_a_device_that_is_held_open_is_never_taken_whatever_is_allowed(
    board: Board, entries: list[dict[str, Any]]
) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.kernel.writes.clear()
    board.process(4242, "qemu-system-aar", "/dev/null", "/dev/vfio/1")
    board.kernel.held_open.add("/dev/vfio/1")
    with pytest.raises(PolicyError) as caught:
        board.apply(entries, allow=["console", "storage", "network", "consumers"])
    assert "/dev/vfio/1 is held open by qemu-system-aar (pid 4242)" in str(caught.value)
    assert "an open device is never taken" in str(caught.value)
    assert not board.kernel.writes


def test_a_node_of_the_newer_kind_that_is_held_open_is_seen_too(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    (number,) = board.kernel.names(f"{HOME}/vfio-dev")
    board.process(7, "dpdk", f"/dev/vfio/devices/{number}")
    with pytest.raises(PolicyError, match=r"held open by dpdk \(pid 7\)"):
        board.apply([])


def test_a_device_that_another_process_holds_open_is_free(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.process(7, "dpdk", "/dev/vfio/17", "/dev/vfio/vfio", "/dev/null")
    board.apply([])
    assert board.kernel.driver_of(NAME) == "acme-crypto"


def test_a_process_that_ends_meanwhile_is_passed_over(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    (board.proc / "8").mkdir()
    (board.proc / "9/fd").mkdir(parents=True)
    (board.proc / "9/fd/0").write_text("")
    board.apply([])
    assert board.kernel.driver_of(NAME) == "acme-crypto"


def test_a_device_in_use_that_stays_where_it_is_is_no_problem(disk: Board) -> None:
    disk.mount(VDA, "/data")
    disk.apply([{"dt_path": "/soc/crypto@b000000", "policy": "default"}])
    disk.apply([{"name": "b002000.dma", "policy": "no_autobind"}])
    assert disk.kernel.driver_of(NAME) == "acme-crypto"


def test_every_device_in_use_is_named_at_once(disk: Board) -> None:
    disk.mount(VDA, "/data")
    disk.kernel.put("devices/platform/b002000.dma/net/eth0/flags", "0x1003\n")
    with pytest.raises(PolicyError) as caught:
        disk.apply([CRYPTO, {"name": "b002000.dma", "policy": "no_autobind"}], reset_required=False)
    assert len(caught.value.problems) == 2
