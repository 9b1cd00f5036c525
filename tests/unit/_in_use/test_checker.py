"""Uses of a device are found in /sys and /proc, and refused unless `allow` accepts them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, Board, acme_board
from hazards import HOME, NAME, assert_acceptable, assert_free, refusal

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._system.rtnetlink import Networks
from ansible_collections.armfleet.vfio.plugins.module_utils._system.rtnetlink import (
    read as read_networks,
)

VDA, VDA1, VDA2 = "254:0", "254:1", "254:2"


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
    """Return a dictionary of block devices in /dev, major:minor by path, that a test fills."""
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


@pytest.mark.parametrize(
    "path",
    [
        "mmc_host/mmc0/mmc0:0001/block/mmcblk0",
        "usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/sda",
        "xhci-hcd.0.auto/usb2/2-1/2-1.4/2-1.4:1.0/host3/target3:0:0/3:0:0:0/block/sdb",
        "ata1/host0/target0:0:0/0:0:0:0/block/sda",
    ],
)
def test_a_mounted_disk_behind_a_host_of_cards_or_of_usb_is_in_use(board: Board, path: str) -> None:
    board.kernel.put(f"{HOME}/{path}/dev", "8:0\n")
    board.kernel.put(f"{HOME}/{path}/part1/dev", "8:1\n")
    board.kernel.put(f"{HOME}/{path}/part1/partition", "1\n")
    board.mount("8:1", "/srv")
    assert f"disk {path.rpartition('/')[2]}: part1 is mounted on /srv" in refusal(board)
    assert_acceptable(board, "storage")


@pytest.mark.parametrize(("number", "block"), [(VDA, "vda"), (VDA2, "vda2")])
def test_a_mounted_disk_or_partition_is_in_use(disk: Board, number: str, block: str) -> None:
    disk.mount(number, "/data")
    assert f"disk vda: {block} is mounted on /data" in refusal(disk)
    assert_acceptable(disk, "storage")


def test_a_device_that_firmware_calls_power_hides_no_use(disk: Board) -> None:
    disk.kernel.add_device("power", "/power", ("regulator-fixed",))
    disk.mount(VDA, "/data")
    assert "disk vda: vda is mounted on /data" in refusal(disk)


def test_so_does_none_below_the_device(board: Board) -> None:
    disk = f"{HOME}/power/block/vda"
    board.kernel.put(f"{HOME}/power/uevent", "")
    board.kernel.put(f"{disk}/dev", VDA + "\n")
    board.mount(VDA, "/data")
    assert "disk vda: vda is mounted on /data" in refusal(board)


@pytest.mark.parametrize("name", ["net", "tty", "rtc", "watchdog", "iommu", "dma", "ieee80211"])
def test_so_does_none_that_is_called_as_a_class_is(board: Board, name: str) -> None:
    disk = f"{HOME}/{name}/virtio0/block/vda"
    board.kernel.put(f"{HOME}/{name}/uevent", "")
    board.kernel.put(f"{HOME}/{name}/virtio0/uevent", "")
    board.kernel.put(f"{disk}/dev", VDA + "\n")
    board.mount(VDA, "/data")
    assert "disk vda: vda is mounted on /data" in refusal(board)


@pytest.mark.parametrize("name", ["net", "tty", "rtc", "watchdog", "iommu", "dma"])
def test_nor_does_the_name_of_the_device_itself(board: Board, name: str) -> None:
    board.kernel.add_device(name, f"/{name}", ("acme,crypto",))
    home = f"devices/platform/{name}"
    board.kernel.put(f"{home}/virtio0/uevent", "")
    board.kernel.put(f"{home}/block/vda/dev", VDA + "\n")
    board.mount(VDA, "/data")
    with pytest.raises(PolicyError, match="disk vda: vda is mounted on /data"):
        board.apply([{"dt_path": f"/{name}", "policy": "no_autobind"}])


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


def test_a_volume_that_is_not_mounted_and_its_parts_are_in_use(disk: Board) -> None:
    kernel = disk.kernel
    kernel.put("devices/virtual/block/dm-0/dev", "253:0\n")
    kernel.put("devices/virtual/block/dm-0/dm/name", "vg-data\n")
    kernel.point("class/block/dm-0", "devices/virtual/block/dm-0")
    kernel.point("class/block/vda2", f"{HOME}/virtio0/block/vda/vda2")
    kernel.point(f"{HOME}/virtio0/block/vda/vda2/holders/dm-0", "devices/virtual/block/dm-0")
    assert "vda2 is part of dm-0" in refusal(disk)
    disk.mount("253:0", "/var")
    assert "dm-0 (vg-data) is mounted on /var" in refusal(disk)


def test_a_disk_that_a_process_has_open_is_in_use(disk: Board) -> None:
    disk.process(12, "qemu-system-aar", "/dev/vda1")
    assert "vda1 is held open by qemu-system-aar (pid 12)" in refusal(disk)
    assert_acceptable(disk, "storage")


def test_a_loop_device_on_a_disk_is_in_use(disk: Board, devices: dict[str, str]) -> None:
    devices["/dev/vda"] = VDA
    disk.kernel.put("class/block/loop0/dev", "7:0\n")
    disk.kernel.put("class/block/loop0/loop/backing_file", "/dev/vda\n")
    disk.kernel.put("class/block/loop1/loop/backing_file", "/srv/image\n")
    message = refusal(disk)
    assert "vda is part of loop0" in message
    assert "loop1" not in message
    disk.mount("7:0", "/data")
    assert "loop0 is mounted on /data" in refusal(disk)


def test_a_disk_that_only_another_mount_namespace_has_mounted_is_in_use(disk: Board) -> None:
    for process, namespace in (("self", "mnt:[1]"), ("1", "mnt:[1]"), ("70", "mnt:[2]")):
        directory = disk.proc / process
        (directory / "ns").mkdir(parents=True, exist_ok=True)
        (directory / "ns/mnt").symlink_to(namespace)
    (disk.proc / "70/comm").write_text("containerd\n")
    (disk.proc / "70/mountinfo").write_text(f"9 1 {VDA1} / /data rw - ext4 /dev/vda1 rw\n")
    assert "vda1 is mounted on /data by containerd (pid 70)" in refusal(disk)


@pytest.mark.parametrize("blank", ["\x1c", "\x85", "\xa0", "\u2028", "\v", "\r", "\x1b[2J"])
def test_a_mount_point_may_have_any_characters(disk: Board, blank: str) -> None:
    # An unprivileged user can mount at a path with such a character; the kernel escapes none.
    forged = f"/home/eve/a{blank}31 1 {VDA} / /data rw - ext4 /dev/vda rw"
    disk.mount("0:50", forged.replace(" ", "\\040"))
    assert_free(disk)


def test_such_a_mount_point_neither_hides_nor_garbles_another(disk: Board) -> None:
    disk.mount("0:50", "/home/eve/\x1c\u2028")
    disk.mount(VDA, "/srv/my\\040\x1b[31mdata\\012")
    reported = refusal(disk)
    assert r"disk vda: vda is mounted on /srv/my \x1b[31mdata\n" in reported


def test_a_source_that_is_no_text_is_found(disk: Board, devices: dict[str, str]) -> None:
    devices["/dev/disk/by-label/\udcff x"] = VDA2
    with (disk.proc / "self/mountinfo").open("ab") as stream:
        stream.write(b"30 1 0:35 / / rw - btrfs /dev/disk/by-label/\xff\\040x rw\n")
    assert "vda2 is mounted on /" in refusal(disk)


@pytest.mark.parametrize(
    ("file", "line", "what"),
    [
        ("self/mountinfo", "30 1", "mounted"),
        ("self/mountinfo", "30 1 x:y / / rw - ext4 /dev/vda rw", "mounted"),
        ("self/mountinfo", "30 1 254:0 / /data rw ext4 /dev/vda rw", "mounted"),
        ("swaps", "/dev/vda1", "swap"),
        ("swaps", "", "swap"),
    ],
)
def test_a_disk_may_be_in_a_line_that_cannot_be_read(
    disk: Board, file: str, line: str, what: str
) -> None:
    with (disk.proc / file).open("a") as stream:
        stream.write(line + "\n")
    reported = refusal(disk)
    assert (
        f"disk vda: a line of {disk.proc}/{file} cannot be parsed, so it may be {what}" in reported
    )
    assert_acceptable(disk, "storage")


def test_a_namespace_is_known_by_any_of_its_processes_that_is_left(disk: Board) -> None:
    for process in ("70", "71"):
        (disk.proc / process / "ns").mkdir(parents=True)
        (disk.proc / process / "ns/mnt").symlink_to("mnt:[2]")
    # Process 70 has ended since.
    (disk.proc / "71/comm").write_text("containerd\n")
    (disk.proc / "71/mountinfo").write_text(f"9 1 {VDA1} / /data rw - ext4 /dev/vda1 rw\n")
    assert "vda1 is mounted on /data by containerd (pid 71)" in refusal(disk)


def test_a_thread_can_have_mounts_of_its_own(disk: Board) -> None:
    for task in ("70", "70/task/70", "70/task/72"):
        (disk.proc / task / "ns").mkdir(parents=True)
    for task, namespace in (
        ("70", "mnt:[1]"),
        ("70/task/70", "mnt:[1]"),
        ("70/task/72", "mnt:[2]"),
    ):
        (disk.proc / task / "ns/mnt").symlink_to(namespace)
    (disk.proc / "70/comm").write_text("vmm\n")
    (disk.proc / "70/task/72/mountinfo").write_text(f"9 1 {VDA1} / /d rw - ext4 /dev/vda1 rw\n")
    assert "vda1 is mounted on /d by vmm (pid 70)" in refusal(disk)


def test_of_many_holders_some_are_named(disk: Board) -> None:
    for pid in range(100, 160):
        disk.process(pid, "eve", "/dev/vda1")
    reported = refusal(disk)
    assert reported.count("(pid ") == 10
    assert " and 50 more. " in reported


def test_a_disk_that_the_kernel_keeps_for_itself_is_in_use(disk: Board) -> None:
    disk.kernel.claimed.add("/dev/vda")
    assert "disk vda: it is in use by the kernel, which does not report the user" in refusal(disk)
    assert_acceptable(disk, "storage")


def test_a_disk_of_nvme_is_in_no_folder_of_disks(board: Board) -> None:
    home = f"{HOME}/pci0000:00/0000:00:01.0/nvme/nvme0"
    board.kernel.point(f"{home}/subsystem", "class/nvme")
    board.kernel.put(f"{home}/nvme0n1/dev", "259:0\n")
    board.kernel.point(f"{home}/nvme0n1/subsystem", "class/block")
    board.mount("259:0", "/")
    assert "disk nvme0n1: nvme0n1 is mounted on /" in refusal(board)


def test_a_disk_of_nvme_with_several_paths_belongs_to_all_its_controllers(board: Board) -> None:
    kernel = board.kernel
    home = f"{HOME}/pci0000:00/0000:00:01.0/nvme/nvme0"
    kernel.point(f"{home}/subsystem", "class/nvme")
    subsystem = "class/nvme-subsystem/nvme-subsys0"
    kernel.point(f"{subsystem}/nvme0", home)
    kernel.put(f"{subsystem}/nvme0n1/dev", "259:0\n")
    kernel.make_directory(f"{subsystem}/nvme0n1/holders")
    kernel.make_directory(f"{subsystem}/power")
    board.mount("259:0", "/")
    assert "disk nvme0n1: nvme0n1 is mounted on /" in refusal(board)


def test_an_interface_that_is_up_is_in_use(board: Board) -> None:
    board.kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x1003\n")
    assert "network interface eth0 is up" in refusal(board)
    assert_acceptable(board, "network")


@pytest.fixture
def stack(board: Board) -> Board:
    """A board with eth0 on the device in a bond, which is in a bridge with the host's address."""
    kernel = board.kernel
    kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x1002\n")
    kernel.put(f"{HOME}/virtio1/net/eth0/ifindex", "2\n")
    kernel.point(f"{HOME}/virtio1/net/eth0/upper_bond0", "devices/virtual/net/bond0")
    for index, (name, flags) in enumerate([("bond0", "0x1002"), ("br0", "0x1003")], start=3):
        kernel.put(f"devices/virtual/net/{name}/flags", f"{flags}\n")
        kernel.put(f"devices/virtual/net/{name}/ifindex", f"{index}\n")
        kernel.point(f"class/net/{name}", f"devices/virtual/net/{name}")
    kernel.point("devices/virtual/net/bond0/upper_br0", "devices/virtual/net/br0")
    board.networks = Networks({4: ["10.0.2.15", "fec0::15"], 9: ["192.0.2.1"]}, {4})
    return board


def test_an_interface_below_a_bond_below_a_bridge_that_is_up_is_in_use(stack: Board) -> None:
    message = refusal(stack)
    assert "network interface eth0 is up, below bond0, br0 with 10.0.2.15, fec0::15" in message
    assert "the default route" in message
    assert "this run" not in message
    assert_acceptable(stack, "network")


def test_an_interface_below_what_is_down_is_free(stack: Board) -> None:
    stack.kernel.put("devices/virtual/net/br0/flags", "0x1002\n")
    assert_free(stack)


@pytest.mark.parametrize("address", ["10.0.2.15", "::ffff:10.0.2.15", "fec0::15%br0"])
def test_the_interface_that_the_run_comes_in_by_is_said_to_be_it(
    stack: Board, address: str
) -> None:
    # sudo removes the variable: only a parent process has it.
    (stack.proc / "self/environ").write_text("PATH=/bin\0")
    (stack.proc / "self/status").write_text("Name:\tpython3\nPPid:\t77\n")
    (stack.proc / "77").mkdir()
    (stack.proc / "77/environ").write_text(f"A=b\0SSH_CONNECTION=10.0.2.2 40000 {address} 22\0")
    assert "and this run is connected through it" in refusal(stack)


def test_a_run_that_came_in_over_another_interface_is_not_said_to_come_over_this_one(
    stack: Board,
) -> None:
    (stack.proc / "self/environ").write_text("SSH_CONNECTION=10.0.2.2 40000 192.0.2.1 22\0")
    assert "this run" not in refusal(stack)


def test_the_name_of_a_process_tells_nothing_of_its_parent(stack: Board) -> None:
    (stack.proc / "self/environ").write_text("PATH=/bin\0")
    (stack.proc / "self/status").write_text("Name:\teve\u2028PPid:\t66\nPPid:\t77\n")
    for pid, address in ((66, "192.0.2.1"), (77, "10.0.2.15")):
        (stack.proc / str(pid)).mkdir()
        content = f"SSH_CONNECTION=10.0.2.2 40000 {address} 22\0"
        (stack.proc / str(pid) / "environ").write_text(content)
    assert "and this run is connected through it" in refusal(stack)


def test_addresses_are_those_that_this_machine_has() -> None:
    known = {address for addresses in read_networks().addresses.values() for address in addresses}
    assert "127.0.0.1" in known


def test_an_interface_whose_flags_cannot_be_read_may_be_up(board: Board) -> None:
    board.kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x\n")
    assert "network interface eth0 is up" in refusal(board)


def test_an_interface_that_is_down_is_free(board: Board) -> None:
    board.kernel.put(f"{HOME}/virtio1/net/eth0/flags", "0x1002\n")
    assert_free(board)


@pytest.mark.parametrize("terminal", ["tty/ttyAMA0", f"{NAME}:0/{NAME}:0.0/tty/ttyAMA0"])
def test_the_system_console_is_in_use_and_another_terminal_is_not(
    board: Board, terminal: str
) -> None:
    board.kernel.put(f"{HOME}/{terminal}/dev", "204:64\n")
    board.kernel.put("class/tty/console/active", "tty0 ttyAMA0\n")
    assert "ttyAMA0 is the system console" in refusal(board)
    board.kernel.put("class/tty/console/active", "tty0 ttyAMA00\n")
    assert_free(board)


def test_a_terminal_that_somebody_works_at_is_in_use(board: Board) -> None:
    board.kernel.put(f"{HOME}/tty/ttyAMA1/dev", "204:65\n")
    assert_free(board)
    board.apply([])
    board.kernel.writes.clear()
    board.process(50, "agetty", "/dev/ttyAMA1")
    assert "terminal ttyAMA1 is held open by agetty (pid 50)" in refusal(board)


def test_the_clock_that_the_system_is_set_by_is_in_use_and_another_is_not(board: Board) -> None:
    board.kernel.put(f"{HOME}/rtc/rtc0/hctosys", "1\n")
    assert "rtc0 is the clock that sets the system time" in refusal(board)
    assert_acceptable(board, "clock")


def test_a_clock_that_nothing_is_set_by_is_free(board: Board) -> None:
    board.kernel.put(f"{HOME}/rtc/rtc1/hctosys", "0\n")
    assert_free(board)


def test_a_watchdog_that_is_running_is_in_use(board: Board) -> None:
    board.kernel.put(f"{HOME}/watchdog/watchdog0/state", "active\n")
    assert "watchdog0 is running and may reset the machine" in refusal(board)
    assert_acceptable(board, "watchdog")


def test_a_watchdog_that_is_stopped_is_free_unless_somebody_has_it_open(board: Board) -> None:
    board.kernel.put(f"{HOME}/watchdog/watchdog0/state", "inactive\n")
    board.process(1, "systemd", "/dev/watchdog0")
    assert "watchdog0 is held open by systemd (pid 1)" in refusal(board)
    (board.proc / "1/fd/0").unlink()
    assert_free(board)


def test_the_first_watchdog_has_an_old_name_too(board: Board) -> None:
    board.kernel.put(f"{HOME}/watchdog/watchdog0/state", "inactive\n")
    board.process(30, "watchdogd", "/dev/watchdog")
    assert "watchdog0 is held open by watchdogd (pid 30)" in refusal(board)


def test_any_other_node_that_a_process_has_open_is_in_use(board: Board) -> None:
    board.kernel.put(f"{HOME}/gpiochip0/dev", "254:0\n")
    board.kernel.put(f"{HOME}/gpiochip0/uevent", "MAJOR=254\nMINOR=0\nDEVNAME=gpiochip0\n")
    board.process(31, "gpio-manager", "/dev/gpiochip0")
    assert "/dev/gpiochip0 is held open by gpio-manager (pid 31)" in refusal(board)
    assert_acceptable(board, "consumers")


def test_an_interface_that_a_container_has_is_in_use(board: Board) -> None:
    board.kernel.make_directory(f"{HOME}/net")
    assert "a network interface on it is in another network namespace" in refusal(board)
    assert_acceptable(board, "network")


def test_the_console_may_be_given_away_if_the_user_accepts_it(board: Board) -> None:
    board.kernel.put(f"{HOME}/tty/ttyAMA0/dev", "204:64\n")
    board.kernel.put("class/tty/console/active", "ttyAMA0\n")
    assert_acceptable(board, "console")


def test_a_supplier_with_active_consumers_is_in_use(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    assert "platform:b002000.dma depends on it" in refusal(board)
    assert_acceptable(board, "consumers")


def test_the_links_of_an_older_kernel_have_no_bus_in_their_names(board: Board) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    (link,) = board.kernel.names("class/devlink")
    board.kernel.rename(f"class/devlink/{link}", f"class/devlink/{NAME}--b002000.dma")
    assert "platform:b002000.dma depends on it" in refusal(board)


def test_a_supplier_of_consumers_that_have_no_driver_is_free(board: Board) -> None:
    board.kernel.add_link(NAME, "b004000.ethernet")
    assert_free(board)


def refer(board: Board, node: str, name: str, *cells: int) -> None:
    content = b"".join(cell.to_bytes(4, "big") for cell in cells)
    board.kernel.put(f"firmware/devicetree/base{node}/{name}", content)


@pytest.fixture
def provider(board: Board) -> Board:
    """A board whose device is a clock provider with a phandle."""
    refer(board, "/soc/crypto@b000000", "phandle", 7)
    refer(board, "/soc/crypto@b000000", "#clock-cells", 1)
    return board


def test_a_device_that_another_one_refers_to_in_the_device_tree_is_in_use(provider: Board) -> None:
    refer(provider, "/soc/dma@b002000", "clocks", 7, 3)
    message = refusal(provider)
    assert "platform:b002000.dma uses it (clocks in the device tree)" in message
    assert_acceptable(provider, "consumers")


def test_a_reference_in_a_node_below_counts_for_the_device_above(provider: Board) -> None:
    refer(provider, "/soc/dma@b002000/channel", "clocks", 7, 3)
    assert "platform:b002000.dma uses it" in refusal(provider)


def test_a_reference_to_a_node_below_counts_as_one_to_the_device(board: Board) -> None:
    refer(board, "/soc/crypto@b000000/regulator", "phandle", 9)
    refer(board, "/soc/dma@b002000", "vcc-supply", 9)
    assert "platform:b002000.dma uses it (vcc-supply in" in refusal(board)


def test_interrupts_are_from_the_nearest_interrupt_parent(provider: Board) -> None:
    refer(provider, "/soc", "interrupt-parent", 7)
    refer(provider, "/soc/dma@b002000", "interrupts", 1)
    refer(provider, "/soc/dma@b003000", "interrupts", 1)
    refer(provider, "/soc/dma@b003000", "interrupt-parent", 99)
    message = refusal(provider)
    assert "platform:b002000.dma uses it (interrupts in" in message
    assert "b003000" not in message


def test_a_number_that_only_looks_like_the_phandle_is_no_reference(provider: Board) -> None:
    refer(provider, "/soc/dma@b003000", "phandle", 8)
    refer(provider, "/soc/dma@b003000", "#dma-cells", 1)
    refer(provider, "/soc/dma@b002000", "dmas", 8, 7, 8, 7)
    refer(provider, "/soc/dma@b002000", "reg", 7, 7)
    assert_free(provider)


def test_references_of_devices_without_driver_and_of_disabled_nodes_do_not_count(
    provider: Board,
) -> None:
    refer(provider, "/soc/ethernet@e0700000", "clocks", 7, 1)
    provider.kernel.put("firmware/devicetree/base/soc/dma@b002000/status", b"disabled\0")
    refer(provider, "/soc/dma@b002000", "clocks", 7, 1)
    assert_free(provider)


def test_a_consumer_that_a_link_shows_is_named_once(provider: Board) -> None:
    provider.kernel.add_link(NAME, "b002000.dma")
    refer(provider, "/soc/dma@b002000", "clocks", 7, 3)
    assert refusal(provider).count("platform:b002000.dma") == 1


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
        board.apply(entries, allow=ACCEPTABLE)
    assert "/dev/vfio/1 is held open by qemu-system-aar (pid 4242)" in str(caught.value)
    assert "an open device is never unbound" in str(caught.value)
    assert not board.kernel.writes


def test_a_node_of_the_newer_kind_that_is_held_open_is_seen_too(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    (number,) = board.kernel.names(f"{HOME}/vfio-dev")
    board.process(7, "dpdk", f"/dev/vfio/devices/{number}")
    with pytest.raises(PolicyError, match=r"held open by dpdk \(pid 7\)"):
        board.apply([])


def test_a_device_whose_node_was_closed_again_is_seen_by_its_holder(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.process(9, "crosvm", "anon_inode:[vfio-device]")
    with pytest.raises(PolicyError, match=r"it may be the VFIO device .* by crosvm \(pid 9\)"):
        board.apply([])


def test_a_holder_that_has_another_node_open_holds_that_one(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.process(9, "crosvm", "anon_inode:[vfio-device]", "/dev/vfio/17")
    board.apply([])
    assert board.kernel.driver_of(NAME) == "acme-crypto"


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


@pytest.fixture
def pair(tmp_path: Path) -> Board:
    """A board whose crypto device shares its IOMMU group with another one."""
    board = acme_board(tmp_path, groups_at_boot=True)
    kernel = board.kernel
    both = ("acme,crypto-v1", "acme,crypto")
    kernel.add_device("b009000.pair", "/soc/pair@b009000", both, iommus=True, group=NAME)
    return board


SIBLING = {"name": "b009000.pair"}


def test_a_device_whose_sibling_stays_on_its_driver_is_of_no_use_to_vfio(pair: Board) -> None:
    message = refusal(pair)
    assert "platform/b009000.pair of the same IOMMU group (1) is bound to acme-crypto" in message
    assert_acceptable(pair, "group")


@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_a_sibling_that_leaves_its_driver_in_the_same_list_is_no_hazard(
    pair: Board, policy: str
) -> None:
    pair.apply([CRYPTO, dict(SIBLING, policy=policy)], reset_required=False)
    assert pair.kernel.driver_of(NAME) == "vfio-platform"


def test_a_sibling_that_is_found_when_the_device_is_bound_undoes_the_run(board: Board) -> None:
    kernel = board.kernel
    # Before Linux 7, a device that was never probed has no iommu_group.
    kernel.add_device("b009000.pair", "/soc/pair@b009000", ("acme,none",), iommus=True, group=NAME)
    before = kernel.bindings()
    with pytest.raises(PolicyError) as caught:
        board.apply([dict(SIBLING, policy="vfio")], reset_required=False)
    assert "shares IOMMU group 1 with platform/b000000.crypto" in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    assert kernel.bindings() == before


def test_device_info_shows_siblings_too(pair: Board) -> None:
    (inspection,) = pair.inspect([Selector("name", NAME)]).devices
    assert [hazard.kind for hazard in inspection.hazards] == ["group"]


@pytest.mark.parametrize("made", ["mount", "holder", "VFIO"])
def test_what_comes_into_use_during_a_run_is_seen_before_the_unbind(
    disk: Board, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    entries: list[dict[str, Any]] = [CRYPTO]
    if made == "VFIO":
        disk.apply(entries, reset_required=False)
        entries = []
    before = disk.kernel.bindings()
    write = disk.kernel.write

    def come_into_use(path: str, text: str) -> None:
        write(path, text)
        if path.endswith("driver_override") and not (disk.proc / "12").exists():
            node = "/dev/vfio/1" if made == "VFIO" else "/dev/vda1"
            disk.process(12, "qemu", *[node] * (made != "mount"))
            if made == "mount":
                disk.mount(VDA, "/data")

    monkeypatch.setattr(disk.kernel, "write", come_into_use)
    with pytest.raises(PolicyError, match="Nothing was changed: all changes of this run") as caught:
        disk.apply(entries, reset_required=False)
    assert "is in use: " in str(caught.value)
    assert disk.kernel.bindings() == before
    monkeypatch.undo()
