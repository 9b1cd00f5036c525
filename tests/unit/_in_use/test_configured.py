"""A use configured for boot counts for devices that the next boot unbinds, even if idle now."""

from __future__ import annotations

from typing import Any

import pytest
from board import CRYPTO, LIST, Board
from hazards import AHEAD, HOME, NAME, refusal_ahead
from simulated_kernel import TREE, BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    Outcome,
    reconcile,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

MAC = "02:00:00:00:00:01"
UUID = "0a1b2c3d-0000-4000-8000-00000000000f"


def link(board: Board, path: str, target: str) -> None:
    path_on_disk = board.files_root / path[1:]
    path_on_disk.parent.mkdir(parents=True, exist_ok=True)
    path_on_disk.symlink_to(target)


def add_block(board: Board, home: str, number: str) -> None:
    name = home.rpartition("/")[2]
    board.kernel.put(f"{home}/dev", number + "\n")
    board.kernel.point(f"class/block/{name}", home)
    board.kernel.point(f"dev/block/{number}", home)


@pytest.fixture
def board(board: Board) -> Board:
    """A board whose first crypto engine has a disk, an interface and a terminal, all idle."""
    kernel = board.kernel
    base = f"{HOME}/virtio0/block/vda"
    add_block(board, base, "254:0")
    add_block(board, f"{base}/vda1", "254:1")
    kernel.put(f"{base}/vda1/partition", "1\n")
    kernel.put(f"{HOME}/virtio1/net/eth1/flags", "0x1002\n")
    kernel.put(f"{HOME}/virtio1/net/eth1/address", MAC + "\n")
    kernel.point(f"{HOME}/virtio1/net/eth1/device/driver", "bus/virtio/drivers/virtio_net")
    kernel.put(f"{HOME}/tty/ttyAMA3/uevent", "")
    return board


def assert_refused(board: Board, kind: str, sentence: str) -> None:
    """Assert a refusal for both values of `runtime`, unless `allow` has this kind."""
    others = [other for other in ACCEPTABLE if other != kind]
    for runtime in (True, False):
        message = refusal_ahead(board, allow=others, runtime=runtime)
        label = "/soc/crypto@b000000 (platform device b000000.crypto)"
        assert message.startswith(f"{label} is in use: {sentence}. ")
        assert f"add '{kind}' to `allow`" in message
    board.check([CRYPTO], reset_required=False, runtime=True, persistent=False)
    assert board.apply([CRYPTO], allow=[kind], **AHEAD).needs_boot


def test_what_nothing_is_configured_for_is_free(board: Board) -> None:
    board.write_file(
        "/etc/fstab", "# <file system>\nUUID=none / ext4 defaults 0 1\nproc /proc proc\n"
    )
    board.write_file("/etc/network/interfaces", "auto lo eth0\niface eth0 inet dhcp\n")
    board.write_file("/proc/cmdline", "root=/dev/nvme0n1p2 console=ttyS0,115200 quiet\n")
    assert board.apply([CRYPTO], **AHEAD).is_changed


def test_a_mounted_disk_is_refused_for_the_next_boot_by_the_same_words(board: Board) -> None:
    board.mount("254:1", "/data")
    message = refusal_ahead(board)
    assert "is in use: disk vda: vda1 is mounted on /data. " in message
    assert refusal_ahead(board, runtime=True) == message


FSTAB = {
    "/dev/vda1 /data ext4 defaults 0 2": "for /data",
    "/dev/vda /data ext4 noauto 0 2": "for /data",
    "/dev/vda1 none swap sw": "as swap",
    f"UUID={UUID.upper()} /data ext4": "for /data",
    'LABEL="my\\040disk" /my\\040data ext4': "for /my data",
    "PARTUUID=0001-01 /data ext4": "for /data",
    "PARTLABEL=data /data ext4": "for /data",
    "/dev/disk/by-path/platform-b000000.crypto-part1 /data ext4": "for /data",
    "/dev/nvme9n1 /data btrfs device=/dev/vda1": "for /data",
}


@pytest.fixture
def linked(board: Board) -> Board:
    """The board with udev's symlinks to the partition."""
    for name in (
        f"by-uuid/{UUID}",
        "by-label/my\\x20disk",
        "by-partuuid/0001-01",
        "by-partlabel/data",
        "by-path/platform-b000000.crypto-part1",
    ):
        link(board, f"/dev/disk/{name}", "../../vda1")
    return board


@pytest.mark.parametrize("line", FSTAB)
def test_a_disk_of_fstab_is_taken_by_the_next_boot(linked: Board, line: str) -> None:
    linked.write_file("/etc/fstab", line + "\n")
    assert f"is in /etc/fstab {FSTAB[line]}" in refusal_ahead(linked)


def test_a_disk_below_a_volume_of_fstab_is_known_by_that(board: Board) -> None:
    add_block(board, "devices/virtual/block/dm-0", "253:0")
    holder = f"{HOME}/virtio0/block/vda/vda1/holders/dm-0"
    board.kernel.point(holder, "devices/virtual/block/dm-0")
    link(board, "/dev/mapper/vg-data", "../dm-0")
    board.write_file("/etc/fstab", "/dev/mapper/vg-data /data ext4\n")
    blocks = board.usage.configured.blocks(["vda", "vda1", "dm-0"])
    assert blocks == "dm-0 is in /etc/fstab for /data"
    assert "vda1 is part of dm-0" in refusal_ahead(board)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/etc/fstab", "/dev/vda1 /data ext4\n", "in /etc/fstab for /data"),
        ("/etc/crypttab", "secret /dev/vda1 none luks\n", "in /etc/crypttab as secret"),
        ("/etc/crypttab", "s /dev/x /key:/dev/vda1\n", "in /etc/crypttab for the key of s"),
        ("/proc/cmdline", "root=/dev/vda1 ro\n", "root= of the kernel command line"),
        ("/proc/cmdline", 'ro root="/dev/vda1"\n', "root= of the kernel command line"),
        # What scripts of an initramfs cut at blanks.
        ("/proc/cmdline", 'x="a root=/dev/vda1 ro\n', "root= of the kernel command line"),
        ("/proc/cmdline", 'console=ttyS0" root=/dev/vda1\n', "root= of the kernel command line"),
        ("/proc/cmdline", "root=254:1 ro\n", "root= of the kernel command line"),
        ("/proc/cmdline", "resume=/dev/vda1\n", "resume= of the kernel command line"),
        (
            "/etc/initramfs-tools/conf.d/resume",
            "RESUME=/dev/vda1\n",
            "RESUME= of /etc/initramfs-tools/conf.d/resume",
        ),
        (
            "/etc/systemd/system/data.mount",
            "[Mount]\nWhat=/dev/vda1\n",
            "What= of /etc/systemd/system/data.mount",
        ),
    ],
)
def test_so_is_what_other_files_have(board: Board, path: str, content: str, words: str) -> None:
    board.write_file(path, content)
    assert_refused(board, "storage", f"disk vda: vda1 is {words}")


def add_share(board: Board, driver: str, tag: str | None) -> None:
    home = f"{HOME}/virtio2"
    board.kernel.point(f"{home}/subsystem", "bus/virtio")
    board.kernel.point(f"{home}/driver", f"bus/virtio/drivers/{driver}")
    if tag and driver == "9pnet_virtio":
        board.kernel.put(f"{home}/mount_tag", f"{tag}\0")
    elif tag:
        board.kernel.put("fs/virtiofs/0/tag", f"{tag}\n")
        board.kernel.point("fs/virtiofs/0/device", home)


@pytest.mark.parametrize(("driver", "kind"), [("9pnet_virtio", "9p"), ("virtiofs", "virtiofs")])
@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/etc/fstab", "home /data %s ro 0 0\n", "in /etc/fstab for /data"),
        ("/proc/cmdline", "root=home rootfstype=%s\n", "root= of the kernel command line"),
        (
            "/etc/systemd/system/data.mount",
            "[Mount]\nWhat=home\nType=%s\n",
            "What= of /etc/systemd/system/data.mount",
        ),
    ],
)
def test_files_that_a_virtual_machine_shares_are_known_by_their_tag(
    board: Board, driver: str, kind: str, path: str, content: str, words: str
) -> None:
    add_share(board, driver, "home")
    board.write_file(path, content % kind)
    assert_refused(board, "storage", f"virtio2 ({kind} home): it is {words}")


def test_files_that_are_shared_under_another_tag_are_free(board: Board) -> None:
    add_share(board, "9pnet_virtio", "home")
    board.write_file("/etc/fstab", "other /data 9p\nhome /srv virtiofs\nhome /x ext4\n")
    board.check([CRYPTO], **AHEAD)


def test_any_virtiofs_may_be_that_of_a_device_whose_tag_is_not_known(board: Board) -> None:
    add_share(board, "virtiofs", None)
    board.write_file("/etc/fstab", "home /data virtiofs\n")
    assert_refused(board, "storage", "virtio2 (virtiofs): it is in /etc/fstab for /data")


def test_encrypted_disks_of_the_command_line_count(board: Board) -> None:
    link(board, f"/dev/disk/by-uuid/{UUID}", "../../vda1")
    board.write_file("/proc/cmdline", f"root=/dev/mapper/root rd.luks.uuid=luks-{UUID}\n")
    assert_refused(board, "storage", "disk vda: vda1 is rd.luks.uuid= of the kernel command line")


INTERFACES = "/etc/network/interfaces"
NETWORKD = "/etc/systemd/network/10-wan.network"
NM = "/etc/NetworkManager/system-connections/wan.nmconnection"
NETPLAN = "/etc/netplan/50-cloud-init.yaml"
CONFIGURED = [
    (INTERFACES, "auto eth1\niface eth1 inet dhcp\n"),
    (INTERFACES, "allow-hotplug /eth*\n"),
    (INTERFACES, "iface br0 inet static\n  bridge-ports eth0 eth1\n"),
    (INTERFACES, "auto eth1.5\niface eth1.5 inet manual\n"),
    (NETWORKD, "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n"),
    (NETWORKD, f"[Match]\nMACAddress={MAC.upper().replace(':', '-')}\n"),
    (NETWORKD, "[Match]\nPath=platform-b000000.*\n"),
    (NETWORKD, "[Match]\nDriver=virtio_net\nType=!wlan\n"),
    (NETWORKD, "[Match]\nName=!eth0\nHost=anybody\n"),
    (NM, "[connection]\nid=wan\ntype=ethernet\ninterface-name=eth1\n"),
    (NM, f"[connection]\nid=wan\n[ethernet]\nmac-address={MAC.upper()}\n"),
    (NM, "[match]\ninterface-name=!eth0;eth*;\n"),
    (NETPLAN, "network:\n  ethernets:\n    eth1:\n      dhcp4: true\n"),
    (NETPLAN, f"network: {{ethernets: {{wan: {{match: {{macaddress: '{MAC}'}}}}}}}}\n"),
    (NETPLAN, 'network:\n  ethernets:\n    a:\n      match:\n        name: "eth*"\n'),
    (NETPLAN, "network:\n  bonds:\n    bond0:\n      interfaces: [eth0, eth1]\n"),
    ("/etc/sysconfig/network-scripts/ifcfg-wan", 'DEVICE="eth1"\nONBOOT=yes\n'),
    ("/etc/sysconfig/network/ifcfg-eth1", "STARTMODE=auto\n"),
]


@pytest.mark.parametrize(("path", "content"), CONFIGURED)
def test_an_interface_that_is_configured_is_in_use_at_each_boot(
    board: Board, path: str, content: str
) -> None:
    board.write_file(path, content)
    assert_refused(board, "network", f"network interface eth1 is configured in {path}")


def test_files_that_are_included_count(board: Board) -> None:
    board.write_file(
        INTERFACES, "source /etc/network/interfaces.d/*\nsource /etc/network/interfaces\n"
    )
    board.write_file("/etc/network/interfaces.d/wan", "auto eth1\n")
    (board.files_root / "etc/network/interfaces.d/directory").mkdir()
    sentence = "network interface eth1 is configured in /etc/network/interfaces.d/wan"
    assert_refused(board, "network", sentence)


def test_so_does_what_the_command_line_configures(board: Board) -> None:
    board.write_file("/proc/cmdline", 'root=/dev/nfs ip="10.0.0.2::10.0.0.1:255.0.0.0::eth1:off"\n')
    sentence = "network interface eth1 is configured in /proc/cmdline (ip=)"
    assert_refused(board, "network", sentence)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (INTERFACES, "# auto eth1\nauto eth10\niface eth0 inet dhcp\n"),
        (NETWORKD, "[Match]\nName=eth1\n[Link]\nUnmanaged=yes\n"),
        (NETWORKD, "[Match]\nName=eth*\nType=wlan\n"),
        (NETWORKD, "[Match]\nName=eth*\nKind=bridge\n"),
        (NM, "[connection]\nid=any\ntype=ethernet\n"),
        (NETPLAN, "network:\n  ethernets:\n    # eth1: no\n    eth0: {dhcp4: true}\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-eth1.bak", "DEVICE=eth1\n"),
    ],
)
def test_another_interface_or_none_is_no_reason(board: Board, path: str, content: str) -> None:
    board.write_file(path, content)
    assert board.apply([CRYPTO], **AHEAD).is_changed


def test_the_first_network_file_that_matches_counts(board: Board) -> None:
    board.write_file(
        "/etc/systemd/network/05-off.network", "[Match]\nName=eth1\n[Link]\nUnmanaged=yes\n"
    )
    board.write_file(NETWORKD, "[Match]\nName=eth1\n")
    assert board.apply([CRYPTO], **AHEAD).is_changed


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/proc/cmdline", 'x="1 console=ttyAMA3\n', "console= of the kernel command line"),
        ("/proc/cmdline", '"console=ttyAMA3"\n', "console= of the kernel command line"),
        ("/proc/cmdline", "console=ttyAMA3,115200n8\n", "console= of the kernel command line"),
        (
            "/etc/systemd/system/getty.target.wants/serial-getty@ttyAMA3.service",
            "",
            "used for logins (/etc/systemd/system/getty.target.wants/serial-getty@ttyAMA3.service)",
        ),
    ],
)
def test_a_terminal_that_is_configured_is_a_console(
    board: Board, path: str, content: str, words: str
) -> None:
    board.write_file(path, content)
    assert_refused(board, "console", f"terminal ttyAMA3 is {words}")


def test_a_list_that_is_applied_already_is_not_judged_again(board: Board) -> None:
    board.write_file("/etc/fstab", "/dev/vda1 /data ext4\n")
    assert board.apply([CRYPTO], allow=["storage"], **AHEAD).is_changed
    waits = board.file(last_applied.WAITS_FOR_BOOT)
    assert waits is not None
    assert waits.endswith("Accepted: storage\n")
    assert not board.apply([CRYPTO], **AHEAD).is_changed
    assert not board.apply([CRYPTO], allow=["storage"], **AHEAD).is_changed
    assert board.file(last_applied.WAITS_FOR_BOOT) == waits


def test_what_is_accepted_later_is_kept_for_the_boot_as_well(board: Board) -> None:
    assert board.apply([CRYPTO], **AHEAD).is_changed
    board.mount("254:1", "/data")
    assert not board.apply([CRYPTO], **AHEAD).is_changed
    assert not board.apply([CRYPTO], allow=["network", "storage"], **AHEAD).devices
    assert (board.file(last_applied.WAITS_FOR_BOOT) or "").endswith("Accepted: storage\n")


def test_a_list_at_work_is_applied_again_whatever_the_device_carried(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.write_file("/etc/fstab", "/dev/vda1 /data ext4\n")
    assert not board.apply([CRYPTO], **AHEAD).is_changed
    assert board.apply([*LIST[1:2], CRYPTO], **AHEAD).is_changed


def test_an_open_vfio_node_ends_before_the_boot(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.process(7, "qemu", "/dev/vfio/1")
    assert "never unbound" in refusal_ahead(board, [], runtime=True)
    assert board.apply([], **AHEAD).needs_boot


def test_a_pinned_driver_that_the_next_boot_takes_away_carries_what_it_carries(
    board: Board,
) -> None:
    pinned = {"name": "b002000.dma", "policy": "driver", "driver": "acme-dma-uio"}
    board.apply([pinned])
    board.kernel.put("devices/platform/b002000.dma/net/eth9/flags", "0x1003\n")
    assert "network interface eth9 is up" in refusal_ahead(board, [])
    assert board.apply([], allow=["network"], **AHEAD).needs_boot


def test_a_device_of_no_use_to_vfio_is_refused_for_the_next_boot(grouped_board: Board) -> None:
    kernel = grouped_board.kernel
    kernel.add_device("b00c000.dma", "/soc/dma@b00c000", ("acme,dma",), iommus=True, group=NAME)
    assert "cannot be opened by VFIO" in refusal_ahead(grouped_board, [CRYPTO])


def test_all_that_the_machine_stands_on_is_told_at_once(board: Board) -> None:
    board.mount("254:1", "/")
    board.write_file(INTERFACES, "auto eth1\n")
    board.write_file("/proc/cmdline", "console=ttyAMA3\n")
    message = refusal_ahead(board, runtime=False)
    assert [kind for kind in ACCEPTABLE if f"add '{kind}'" in message] == [
        "console",
        "storage",
        "network",
    ]


def test_device_info_tells_what_the_next_boot_takes_until_it_was_accepted(board: Board) -> None:
    board.apply([CRYPTO], **AHEAD)
    assert board.info(NAME)["lost_at_boot"] == []
    board.write_file("/etc/fstab", "/dev/vda1 /data ext4\n")
    sentence = "disk vda: vda1 is in /etc/fstab for /data"
    lost = {"kind": "storage", "subject": "vda", "message": sentence}
    assert board.info(NAME)["lost_at_boot"] == [{**lost, "accepted": False}]
    assert board.info(NAME)["drift"][0] == (
        f"the next boot unbinds it from acme-crypto, but {sentence}"
    )
    board.apply([CRYPTO], allow=["storage"], **AHEAD)
    assert board.info(NAME)["lost_at_boot"] == [{**lost, "accepted": True}]
    assert not [sentence for sentence in board.info(NAME)["drift"] if "fstab" in sentence]


def test_what_uses_a_device_can_be_left_out_but_for_what_the_next_boot_takes(board: Board) -> None:
    def devices(**options: bool) -> list[dict[str, Any]]:
        findings = board.inspect(None, with_candidates=False, **options)
        return list(device_info.inspections(findings)["devices"])

    board.mount("254:1", "/data")
    used = {device["name"]: device["in_use_by"] for device in devices()}
    assert [name for name, uses in used.items() if uses] == [NAME]
    assert devices(with_use=False) == [{**device, "in_use_by": None} for device in devices()]
    board.write_file("/etc/driverctl.d/platform-b000000.crypto", "vfio-platform\n")
    (unbound,) = (device for device in devices(with_use=False) if device["in_use_by"])
    assert unbound in devices()
    assert [lost["subject"] for lost in unbound["lost_at_boot"]] == ["vda"]


def test_device_info_tells_it_of_what_others_do_at_boot_too(board: Board) -> None:
    board.mount("254:1", "/data")
    board.write_file("/etc/driverctl.d/platform-b000000.crypto", "vfio-platform\n")
    assert [lost["subject"] for lost in board.info(NAME)["lost_at_boot"]] == ["vda"]
    assert board.info("b001000.crypto")["lost_at_boot"] == []


UART = "/soc/serial@b030000"


@pytest.fixture
def absent(board: Board) -> Board:
    """The board with nodes of the device tree that have no device yet."""
    kernel = board.kernel
    kernel.add_node(UART, ("acme,uart",))
    kernel.add_node("/soc/mac@b031000", ("acme,mac",))
    kernel.put(f"{TREE}/soc/mac@b031000/local-mac-address", bytes.fromhex("020000000009"))
    kernel.add_alias("serial7", UART)
    kernel.add_alias("ethernet7", "/soc/mac@b031000")
    return board


UARTS = {"compatible": "acme,uart", "policy": "no_autobind", "required": False}
BY_PATH = {"dt_path": UART, "policy": "no_autobind", "required": False}
BY_ALIAS = {"dt_path": "serial7", "policy": "no_autobind", "required": False}


@pytest.mark.parametrize("entry", [UARTS, BY_PATH, BY_ALIAS])
@pytest.mark.parametrize("runtime", [True, False])
@pytest.mark.parametrize("console", ["serial7:115200n8", UART])
def test_the_console_of_the_device_tree_is_not_taken_before_it_is_there(
    absent: Board, entry: dict[str, Any], runtime: bool, console: str
) -> None:
    absent.kernel.put(f"{TREE}/chosen/stdout-path", console + "\0")
    message = refusal_ahead(absent, [entry], runtime=runtime)
    sentence = "is in use: it is /chosen/stdout-path of the device tree. "
    assert message.startswith(f"{UART} (no device yet) {sentence}")
    assert "add 'console' to `allow`" in message
    assert absent.apply([{**entry, "policy": "default"}], **AHEAD).is_changed
    assert absent.apply([entry], allow=["console"], **AHEAD).is_changed


def test_a_console_that_is_not_there_is_known_by_its_alias(absent: Board) -> None:
    absent.write_file("/proc/cmdline", "console=ttyAMA7,115200\n")
    sentence = "it may be ttyAMA7, which is console= of the kernel command line"
    assert sentence in refusal_ahead(absent, [UARTS])
    absent.kernel.put("class/tty/ttyAMA7/uevent", "")
    assert absent.apply([UARTS], **AHEAD).is_changed


def test_a_node_that_is_off_is_none(absent: Board) -> None:
    absent.kernel.put(f"{TREE}/chosen/stdout-path", UART + "\0")
    absent.kernel.put(f"{TREE}{UART}/status", "disabled\0")
    assert absent.apply([UARTS], **AHEAD).is_changed


def test_an_interface_that_is_not_there_is_known_by_its_address(absent: Board) -> None:
    entry = {"compatible": "acme,mac", "policy": "no_autobind", "required": False}
    absent.write_file(NETWORKD, "[Match]\nName=*\n")
    assert absent.check([entry], **AHEAD).is_changed
    absent.write_file(NM, "[ethernet]\nmac-address=02:00:00:00:00:09\n")
    assert f"{NM} configures 02:00:00:00:00:09" in refusal_ahead(absent, [entry])


def test_a_disk_that_is_not_there_is_known_by_the_path_of_its_device(board: Board) -> None:
    entry = {"name": "b040000.mmc", "policy": "no_autobind", "required": False}
    by_path = "/dev/disk/by-path/platform-b040000.mmc"
    board.write_file("/etc/fstab", f"{by_path}2-part1 /data ext4\n")
    assert board.check([entry], **AHEAD).is_changed
    board.write_file("/etc/fstab", f"{by_path}-part1 /data ext4\n")
    assert "Device b040000.mmc (not there yet) is in use" in refusal_ahead(board, [entry])


def test_of_an_image_it_is_told_that_nothing_was_checked(board: Board, tmp_path: Any) -> None:
    image = board.host._replace(sysfs=Sysfs(str(tmp_path / "nothing")))
    request = Request(parse_entries([CRYPTO]), is_whole_list=True, runtime=False, persistent=True)

    def done(request: Request) -> Outcome:
        return reconcile(image, Usage(image.sysfs), board.run_lock(), request, check_mode=False)

    for _again in range(2):
        (sentence,) = done(request).not_checked
        assert sentence.startswith("No device was checked for use")
    assert done(request._replace(entries=[])).not_checked == []


def test_so_it_is_in_a_container_and_not_on_the_machine_itself(board: Board) -> None:
    assert board.apply([CRYPTO], **AHEAD).not_checked == []
    board.write_file("/run/.containerenv", "")
    (sentence,) = board.apply([CRYPTO], **AHEAD).not_checked
    assert "this run is in a container" in sentence


KEYS = {"name": "soc:keys", "policy": "no_autobind"}
BUILT_IN = "that driver has no unbind (suppress_bind_attrs) and is built into the kernel"


@pytest.mark.parametrize("runtime", [True, False])
def test_a_driver_that_is_built_in_and_has_no_unbind_is_never_left(
    board: Board, runtime: bool
) -> None:
    symbol = "0000000000000000 d __initcall__kmod_gpio_keys__2_3_gpio_keys_init6\n"
    board.write_file("/proc/kallsyms", symbol)
    message = refusal_ahead(board, [KEYS], runtime=runtime)
    assert BUILT_IN in message
    assert "initcall_blacklist=gpio_keys_init" in message
    assert "is a module" not in message
    assert "runtime: false" not in message


def test_one_that_is_a_module_can_be_left_by_a_boot(board: Board) -> None:
    board.kernel.unregister(Driver("gpio-keys"))
    keys = Driver(
        "gpio-keys", compatible=("gpio-keys",), module="gpio_keys", suppress_bind_attrs=True
    )
    board.kmod.modules["gpio_keys"] = BoardModule(name="gpio_keys", drivers=(keys,))
    board.kmod.load("gpio_keys")
    message = refusal_ahead(board, [KEYS], runtime=True)
    assert "The driver is a module: set `runtime: false`, and reboot" in message
    assert board.apply([KEYS], **AHEAD).needs_boot
    assert board.info("soc:keys")["next_boot"]["driver"] is None


def test_the_forecast_knows_that_a_built_in_driver_keeps_its_device(board: Board) -> None:
    entry = {"policy": "vfio", "name": "soc:keys"}
    rules = f'{last_applied.MARK}\n# policy: {{"name": "soc:keys", "policy": "vfio"}}\n'
    board.write_file(last_applied.RULES, rules)
    device = board.info("soc:keys")
    assert device["claimed_by"] == {"name": "soc:keys", "policy": "vfio"} == entry
    assert device["next_boot"]["driver"] == "gpio-keys"
    assert "gpio-keys is built into the kernel and has no unbind" in device["next_boot"]["reason"]
    assert device["lost_at_boot"] == []
