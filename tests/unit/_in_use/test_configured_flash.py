"""Flash memory that the next boot mounts or attaches is in use, whether or not it is now."""

from __future__ import annotations

import pytest
from board import CRYPTO, Board
from hazards import AHEAD, HOME, refusal_ahead

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.flash import (
    Attachment,
    FlashName,
    attachments,
    flash_name,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

IN_FSTAB = "in /etc/fstab for /data"
ON_COMMAND_LINE = "root= of the kernel command line"


@pytest.fixture
def board(board: Board) -> Board:
    """A board whose first crypto engine has flash memory in partitions that nothing uses."""
    for path, label in (("mtd0", "spi0.0"), ("mtd0/mtd2", "boot"), ("mtd0/mtd3", "root fs")):
        board.kernel.point(f"{HOME}/spi0.0/mtd/{path}/subsystem", "class/mtd")
        board.kernel.put(f"{HOME}/spi0.0/mtd/{path}/name", label + "\n")
    return board


def attach(board: Board, ubi: str, mtd: str) -> None:
    board.kernel.put(f"class/ubi/{ubi}/mtd_num", mtd + "\n")


def assert_refused(board: Board, *sentences: str) -> None:
    """Assert a refusal with each sentence for both values of `runtime`, unless it is allowed."""
    others = [kind for kind in ACCEPTABLE if kind != "storage"]
    for runtime in (True, False):
        message = refusal_ahead(board, allow=others, runtime=runtime)
        assert [sentence for sentence in sentences if sentence not in message] == []
        assert "add 'storage' to `allow`" in message
    board.check([CRYPTO], reset_required=False, runtime=True, persistent=False)
    assert board.apply([CRYPTO], allow=["storage"], **AHEAD).needs_boot


def assert_free(board: Board) -> None:
    assert board.apply([CRYPTO], **AHEAD).is_changed


def test_flash_that_no_file_names_is_free(board: Board) -> None:
    board.write_file("/etc/fstab", "/dev/sda1 / ext4\nmtd:other /data jffs2\nmtd7 /x jffs2\n")
    board.write_file("/proc/cmdline", "root=/dev/sda1 ubi.block=0,root mtdparts=spi0.0:1m(boot)\n")
    board.write_file("/etc/modprobe.d/ubi.conf", "# options ubi mtd=2\noptions mtdblock mtd=2\n")
    assert_free(board)


@pytest.mark.parametrize(
    "source", ["/dev/mtdblock2", "mtd2", "mtd:boot", "/dev/flash/boot", "31:2", "1f02"]
)
def test_a_partition_of_fstab_is_taken_by_the_next_boot(board: Board, source: str) -> None:
    link = board.files_root / "dev/flash/boot"
    link.parent.mkdir(parents=True)
    link.symlink_to("../mtdblock2")
    board.write_file("/etc/fstab", f"{source} /data jffs2 noauto\n")
    assert_refused(board, f"flash mtd2: mtd2 is {IN_FSTAB}. ")


def test_so_is_one_whose_name_has_a_blank(board: Board) -> None:
    board.write_file("/etc/fstab", "mtd:root\\040fs /data jffs2\n")
    assert_refused(board, f"flash mtd3: mtd3 is {IN_FSTAB}. ")


@pytest.mark.parametrize(
    ("path", "content", "use"),
    [
        ("/proc/cmdline", "rootfstype=jffs2 root=/dev/mtdblock2\n", ON_COMMAND_LINE),
        ("/proc/cmdline", "root=mtd:boot\n", ON_COMMAND_LINE),
        ("/proc/cmdline", "root=31:2\n", ON_COMMAND_LINE),
        ("/proc/cmdline", "root=1f02 ro\n", ON_COMMAND_LINE),
        ("/proc/cmdline", "mount.usr=mtd2\n", "mount.usr= of the kernel command line"),
        ("/proc/cmdline", "ubi.mtd=2,2048\n", "ubi.mtd= of the kernel command line"),
        ("/proc/cmdline", "ubi.mtd=boot\n", "ubi.mtd= of the kernel command line"),
        ("/proc/cmdline", "ubi.mtd=/dev/mtd2\n", "ubi.mtd= of the kernel command line"),
        (
            "/etc/modprobe.d/ubi.conf",
            "options ubi mtd=boot,,,1\n",
            "attached to UBI by /etc/modprobe.d/ubi.conf",
        ),
        (
            "/etc/modprobe.d/ubi.alias",
            "options \\\n ubi block=0,x m\\\ntd=boot\n",
            "attached to UBI by /etc/modprobe.d/ubi.alias",
        ),
        (
            "/etc/systemd/system/data.mount",
            "[Mount]\nWhat=mtd:boot\n",
            "What= of /etc/systemd/system/data.mount",
        ),
        ("/etc/fstab", "/dev/mtdblock2 none swap sw\n", "in /etc/fstab as swap"),
        ("/etc/crypttab", "x /dev/mtdblock2 none luks\n", "in /etc/crypttab as x"),
    ],
)
def test_so_is_what_other_files_have(board: Board, path: str, content: str, use: str) -> None:
    board.write_file(path, content)
    assert_refused(board, f"flash mtd2: mtd2 is {use}. ")


@pytest.mark.parametrize(
    ("path", "content", "use"),
    [
        ("/proc/cmdline", 'ubi.mtd="root fs" ro\n', "ubi.mtd= of the kernel command line"),
        ("/proc/cmdline", 'ro "ubi.mtd=root fs"\n', "ubi.mtd= of the kernel command line"),
        ("/proc/cmdline", 'root="mtd:root fs"\n', ON_COMMAND_LINE),
        (
            "/etc/modprobe.d/ubi.conf",
            'options ubi mtd="root fs,2048"\n',
            "attached to UBI by /etc/modprobe.d/ubi.conf",
        ),
    ],
)
def test_quotes_keep_a_name_with_a_blank_together(
    board: Board, path: str, content: str, use: str
) -> None:
    board.write_file(path, content)
    assert_refused(board, f"flash mtd3: mtd3 is {use}. ")


def test_the_root_of_a_disk_can_be_a_number_in_hexadecimal(board: Board) -> None:
    disk = f"{HOME}/virtio0/block/vda"
    board.kernel.put(f"{disk}/dev", "254:0\n")
    board.kernel.point("class/block/vda", disk)
    board.kernel.point("dev/block/254:0", disk)
    board.write_file("/proc/cmdline", "root=fe00\n")
    assert_refused(board, f"disk vda: vda is {ON_COMMAND_LINE}")


VOLUMES = [
    "ubi0:data",
    "ubi:data",
    "ubi0!data",
    "ubi0_1",
    "ubi1",
    "/dev/ubi0_1",
    "/dev/ubiblock0_1",
]


@pytest.mark.parametrize("source", VOLUMES)
def test_flash_below_a_volume_that_a_parameter_attaches_is_named(board: Board, source: str) -> None:
    board.write_file("/etc/fstab", f"{source} /data ubifs\n")
    board.write_file("/proc/cmdline", "ubi.mtd=3\n")
    message = refusal_ahead(board)
    reported = (
        f"mtd3 is ubi.mtd= of the kernel command line, {source}, which is on mtd3, is {IN_FSTAB}. "
    )
    assert "flash mtd3: " + reported in message
    assert "mtd2" not in message
    assert_refused(board, reported)


def test_so_is_a_root_file_system(board: Board) -> None:
    board.write_file("/proc/cmdline", "ubi.mtd=boot root=ubi0:rootfs rootfstype=ubifs\n")
    assert_refused(
        board,
        "mtd2 is ubi.mtd= of the kernel command line, ubi0:rootfs, which is on mtd2, is root= of",
    )


@pytest.mark.parametrize("source", VOLUMES)
def test_a_volume_that_nothing_attaches_may_be_on_any_flash(board: Board, source: str) -> None:
    board.write_file("/etc/fstab", f"{source} /data ubifs\n")
    attach(board, "ubi4", "3")
    board.write_file("/proc/cmdline", "quiet\n")
    assert f"flash mtd2: {source}, which may be on mtd2, is {IN_FSTAB}. " in refusal_ahead(board)
    assert "mtd3 is part of ubi4. " in refusal_ahead(board)
    assert "on mtd3" not in refusal_ahead(board)


def test_it_is_on_that_flash_alone_to_which_ubi_is_attached_now(board: Board) -> None:
    board.write_file("/etc/fstab", "ubi0:data /data ubifs\n")
    attach(board, "ubi0", "7")
    assert_free(board)


def test_a_number_that_the_parameter_gives_counts(board: Board) -> None:
    board.write_file("/proc/cmdline", "ubi.mtd=9,0,0,1 ubi.mtd=8 ubi.mtd=7\n")
    board.write_file("/etc/fstab", "ubi1:data /data ubifs\nubi3:x /x ubifs\n")
    sentence = "flash mtd2: ubi3:x, which may be on mtd2, is in /etc/fstab for /x. "
    assert sentence in refusal_ahead(board)
    board.write_file("/etc/fstab", "ubi1:data /data ubifs\nubi2:x /x ubifs\n")
    assert_free(board)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mtd03", FlashName(mtd="3")),
        ("/dev/mtd3ro", FlashName(mtd="3")),
        ("mtd:3", FlashName(label="3")),
        ("ubi00:x", FlashName(ubi="0")),
        ("ubi12_3", FlashName(ubi="12")),
        ("mtd:", None),
        ("ubi:", None),
        ("ubifs", None),
        ("mtdram", None),
        ("/dev/mtdblock", None),
        ("/dev/ubi_ctrl", None),
        ("/dev/ubi0", None),
        ("32:3", None),
    ],
)
def test_flash_is_named_as_the_kernel_reads_it(source: str, name: FlashName | None) -> None:
    assert flash_name(source) == name


def test_parameters_of_ubi_number_what_they_attach() -> None:
    values = ["3", "root fs,2048", "5,0,0,0", "/dev/mtd07,,,x", "boot,0,0,9"]
    assert attachments(values) == [
        Attachment(FlashName(mtd="3"), "0"),
        Attachment(FlashName(label="root fs"), "1"),
        Attachment(FlashName(mtd="5"), "0"),
        Attachment(FlashName(mtd="7"), "2"),
        Attachment(FlashName(label="boot"), "9"),
    ]
