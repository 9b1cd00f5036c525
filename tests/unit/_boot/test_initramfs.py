"""Runs configure the initramfs for a list, on hosts with either tool and with none."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board, acme_board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    initramfs,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError

HOOK, CONFIGURATION = initramfs.InitramfsTools.path, initramfs.Dracut.path
SETTINGS = {"reset_required": False, "unsafe_interrupts": False}
TOOLS = {tool.name: tool.programs for tool in initramfs.TOOLS}


DEPENDENCIES = """\
kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz
kernel/drivers/vfio/platform/vfio-platform.ko.xz: kernel/drivers/vfio/vfio.ko.xz
kernel/drivers/vfio/platform/reset/vfio-platform-acme.ko.xz:
kernel/drivers/vfio/platform/reset/vfio-platform-other.ko.xz:
"""
ALIASES = """\
# Aliases extracted from modules themselves.
alias vfio-reset:acme,crypto-v1 vfio_platform_acme
alias vfio-reset:acme,other vfio_platform_other
"""


def host(root: Path, *programs: str, release: str = os.uname().release) -> Board:
    board = acme_board(root)
    modules = board.files_root / "lib/modules" / release
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(DEPENDENCIES)
    (modules / "modules.alias").write_text(ALIASES)
    for program in programs:
        path = board.files_root / program[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    (board.files_root / "boot").mkdir()
    for name in ("vmlinuz-", "initrd.img-"):
        board.write_file(f"/boot/{name}{os.uname().release}", "")
    return board


def built(board: Board, seconds: float | None = None) -> None:
    """Set the image's time of modification, as a build now or at ``seconds`` would."""
    image = board.files_root / "boot" / ("initrd.img-%s" % os.uname().release)
    os.utime(image, None if seconds is None else (seconds, seconds))


@pytest.fixture
def debian(tmp_path: Path) -> Board:
    return host(tmp_path, *TOOLS["initramfs-tools"])


@pytest.fixture
def fedora(tmp_path: Path) -> Board:
    return host(tmp_path, *TOOLS["dracut"])


def test_a_hook_adds_what_the_rules_load(debian: Board) -> None:
    outcome = debian.apply([CRYPTO], **SETTINGS)
    hook = debian.file(HOOK)
    assert hook is not None
    assert hook.splitlines()[-1] == (
        "manual_add_modules vfio_iommu_type1 vfio_platform vfio_platform_acme"
    )
    assert (debian.files_root / HOOK[1:]).stat().st_mode & 0o777 == 0o755
    assert outcome.initramfs == (
        "initramfs-tools",
        ["/usr/sbin/update-initramfs", "-u", "-k", "all"],
    )


def test_dracut_is_told_of_rules_and_modules(fedora: Board) -> None:
    outcome = fedora.apply([CRYPTO], **SETTINGS)
    reported = (fedora.file(CONFIGURATION) or "").splitlines()
    assert reported[1:] == [
        f'install_items+=" {last_applied.RULES} {last_applied.MODPROBE} "',
        'add_drivers+=" vfio_iommu_type1 vfio_platform vfio_platform_acme "',
    ]
    assert fedora.file(HOOK) is None
    assert outcome.initramfs.tool == "dracut"


def test_what_is_no_file_is_not_added(fedora: Board) -> None:
    dependencies = fedora.files_root / "lib/modules" / os.uname().release / "modules.dep"
    dependencies.write_text(DEPENDENCIES.splitlines()[1])
    fedora.apply([CRYPTO], **SETTINGS)
    added = (fedora.file(CONFIGURATION) or "").splitlines()[-1]
    assert added == 'add_drivers+=" vfio_platform vfio_platform_acme "'


def test_an_image_that_is_prepared_has_modules_of_its_own(tmp_path: Path) -> None:
    board = host(tmp_path, *TOOLS["dracut"], release="7.2.12-arm64")
    board.apply([CRYPTO], **SETTINGS)
    assert "vfio_iommu_type1" in (board.file(CONFIGURATION) or "")


def test_no_module_is_added_for_a_list_that_needs_none(debian: Board) -> None:
    debian.apply([DMA])
    assert debian.file(HOOK) is None


def test_rules_alone_are_enough_for_dracut(fedora: Board) -> None:
    fedora.apply([DMA])
    assert "add_drivers" not in (fedora.file(CONFIGURATION) or "add_drivers")


@pytest.mark.parametrize("tool", TOOLS)
def test_the_second_run_has_nothing_to_build(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path, *TOOLS[tool])
    board.apply([CRYPTO], **SETTINGS)
    built(board)
    again = board.apply([CRYPTO], **SETTINGS)
    assert not again.is_changed
    assert again.initramfs == (tool, None)


def test_a_kernel_that_is_not_in_the_boot_folder_is_named(debian: Board) -> None:
    release = os.uname().release
    (debian.files_root / f"boot/vmlinuz-{release}").unlink()
    assert debian.check([CRYPTO], **SETTINGS).initramfs.command == [
        *("/usr/sbin/update-initramfs", "-u", "-k", release)
    ]
    debian.write_file("/boot/vmlinuz-" + release, "")
    assert debian.check([CRYPTO], **SETTINGS).initramfs.command == [
        *("/usr/sbin/update-initramfs", "-u", "-k", "all")
    ]


@pytest.mark.parametrize("image", ["initrd.img-%s", "initramfs-%s.img"])
def test_a_rebuilding_that_failed_is_repeated(debian: Board, image: str) -> None:
    debian.apply([CRYPTO], **SETTINGS)
    built(debian, 1)
    other = debian.files_root / "boot" / (image % os.uname().release)
    other.touch()
    os.utime(other, (2, 2))
    assert debian.apply([CRYPTO], **SETTINGS).initramfs.command
    os.utime(other)
    assert debian.apply([CRYPTO], **SETTINGS).initramfs.command is None


def test_files_from_a_wrong_clock_do_not_repeat_it_for_ever(debian: Board) -> None:
    debian.apply([CRYPTO], **SETTINGS)
    built(debian)
    for path in (*last_applied.PATHS, HOOK, initramfs.OUTDATED):
        file = debian.files_root / path[1:]
        if file.exists():
            os.utime(file, (2**32, 2**32))
    assert debian.apply([CRYPTO], **SETTINGS).initramfs.command is None


@pytest.mark.parametrize("tool", TOOLS)
def test_a_release_takes_the_file_away_and_rebuilds(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path, *TOOLS[tool])
    board.apply([CRYPTO], **SETTINGS)
    assert board.apply([]).initramfs.command
    assert board.file(HOOK) is board.file(CONFIGURATION) is None


def test_never_leaves_the_initramfs_alone(debian: Board) -> None:
    assert debian.apply([CRYPTO], initramfs="never", **SETTINGS).initramfs == (None, None)
    assert debian.file(HOOK) is None


def test_always_needs_one_of_the_tools_before_anything_is_touched(tmp_path: Path) -> None:
    board = host(tmp_path)
    assert initramfs.NO_TOOL in board.refusal([CRYPTO], initramfs="always", **SETTINGS)


def test_a_host_with_neither_has_no_such_file(tmp_path: Path) -> None:
    board = host(tmp_path)
    assert board.apply([CRYPTO], **SETTINGS).initramfs == (None, None)
    assert board.file(HOOK) is board.file(CONFIGURATION) is None


def test_a_hook_that_somebody_else_wrote_is_not_replaced(debian: Board) -> None:
    (debian.files_root / HOOK[1:]).parent.mkdir(parents=True)
    debian.write_file(HOOK, "#!/bin/sh\nmanual_add_modules mine\n")
    with pytest.raises(PolicyError, match="was not written by this collection"):
        debian.apply([CRYPTO], **SETTINGS)


def test_without_an_image_there_is_nothing_to_rebuild(debian: Board) -> None:
    (debian.files_root / f"boot/initrd.img-{os.uname().release}").unlink()
    outcome = debian.apply([CRYPTO], **SETTINGS)
    assert outcome.initramfs == ("initramfs-tools", None)
    assert debian.file(initramfs.OUTDATED) is None


def test_always_needs_an_image_to_rebuild_before_anything_is_touched(debian: Board) -> None:
    (debian.files_root / f"boot/initrd.img-{os.uname().release}").unlink()
    before = debian.everything()
    for run in (debian.check, debian.apply):
        with pytest.raises(PolicyError, match=r"no /boot/initrd.img-\* for update-initramfs"):
            run([CRYPTO], initramfs="always", **SETTINGS)
    assert debian.everything() == before


def test_dracut_makes_images_that_are_not_there_yet(fedora: Board) -> None:
    (fedora.files_root / f"boot/initrd.img-{os.uname().release}").unlink()
    assert fedora.apply([CRYPTO], initramfs="always", **SETTINGS).initramfs.command


def test_the_rebuilding_after_a_release_is_repeated_too(debian: Board) -> None:
    debian.apply([CRYPTO], **SETTINGS)
    built(debian)
    assert debian.apply([]).initramfs.command
    built(debian, 1)
    assert debian.apply([]).initramfs.command
    assert not debian.apply([]).is_changed
    built(debian)
    assert debian.apply([]).initramfs.command is None


SIGNS = {
    "ostree": "/run/ostree-booted",
    "mkinitcpio": "/usr/bin/mkinitcpio",
    "booster": "/usr/bin/booster",
}
ADDED = {
    "ostree": f"'rpm-ostree initramfs-etc --track={last_applied.RULES} "
    f"--track={last_applied.MODPROBE}' and 'rpm-ostree initramfs --enable --arg=--add-drivers "
    '--arg="vfio_iommu_type1 vfio_platform vfio_platform_acme"',
    "mkinitcpio": f"Write 'FILES+=({last_applied.RULES} {last_applied.MODPROBE})' and "
    "'MODULES+=(vfio_iommu_type1 vfio_platform vfio_platform_acme)' to /etc/mkinitcpio.conf.d/"
    "armfleet-vfio.conf, or to the file that a preset in /etc/mkinitcpio.d sets as its config, and "
    "run 'mkinitcpio -P'",
    "booster": "Add '-NAME' to `modules` in /etc/booster.yaml for each native driver of the list, "
    "and run '/usr/lib/booster/regenerate_images'",
}


def sign(board: Board, tool: str) -> None:
    path = board.files_root / SIGNS.get(tool, f"/usr/sbin/{tool}")[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)


# Of hosts that boot an image: the kernel command line, and what is mounted.
DIGEST = "d41d8cd9"
ROOT = "/dev/vda2 / ext4 ro 0 0\n"
IMAGES = {
    "composefs of bootc": (f"rw composefs={DIGEST}", f"composefs:{DIGEST} / overlay ro 0 0\n"),
    "without fs-verity": (f"composefs=?{DIGEST}", f"composefs:{DIGEST} / overlay ro 0 0\n"),
    "rebooted softly": (f"composefs={DIGEST}", "composefs:0 / overlay ro 0 0\n"),
    "transient root": (
        f"composefs={DIGEST}",
        f"rootfs / rootfs rw 0 0\ntransient:composefs={DIGEST} / overlay rw 0 0\n",
    ),
    "EROFS of the first version": (
        f"composefs.digest=v1-sha512-12:{DIGEST}",
        f"composefs:{DIGEST} / overlay ro 0 0\n",
    ),
    "dm-verity": (f"roothash={DIGEST}", "/dev/mapper/root / erofs ro 0 0\n"),
    "dm-verity of /usr": (f"usrhash={DIGEST}", f"{ROOT}/dev/mapper/usr /usr erofs ro 0 0\n"),
    "Flatcar": (f"verity.usrhash={DIGEST}", f"{ROOT}/dev/mapper/usr /usr btrfs ro 0 0\n"),
}
IS_IMAGE = (
    "This host boots an image (composefs, as of bootc, or dm-verity), and its initramfs comes with "
    f"that image. Add them to the image, with 'install_items+=\" {last_applied.RULES} "
    f"{last_applied.MODPROBE} \"' and 'add_drivers+=\" vfio_iommu_type1 vfio_platform "
    "vfio_platform_acme \"' in /usr/lib/dracut/dracut.conf.d/armfleet-vfio.conf if dracut builds "
    "its initramfs"
)


def boot_by(board: Board, parameters: str, mounts: str) -> Board:
    for path, content in (("cmdline", f"quiet {parameters}\n"), ("self/mounts", mounts)):
        file = board.files_root / "proc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return board


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("tool", TOOLS)
def test_an_image_that_boots_is_recognised_before_anything_is_written(
    tmp_path: Path, image: str, tool: str
) -> None:
    board = boot_by(host(tmp_path, *TOOLS[tool]), *IMAGES[image])
    before = board.everything()
    (problem,) = board.refused([CRYPTO], initramfs="always", **SETTINGS)
    assert problem == f"{IS_IMAGE}. Then set `initramfs: never`"
    (warning,) = board.check([CRYPTO], **SETTINGS).warnings
    assert IS_IMAGE in warning
    assert warning.endswith(". Then set `initramfs: never`")
    assert board.everything() == before
    outcome = board.apply([CRYPTO], **SETTINGS)
    assert list(outcome.warnings) == [warning]
    assert outcome.initramfs == (None, None)
    assert board.file(HOOK) is board.file(CONFIGURATION) is None
    assert list(board.apply([DMA], initramfs="never").warnings) == []


TRANSACTIONAL = (
    "This host has a read-only root that transactional-update changes, so dracut cannot rebuild "
    f"its initramfs. Write 'install_items+=\" {last_applied.RULES} {last_applied.MODPROBE} \"' and "
    "'add_drivers+=\" vfio_iommu_type1 vfio_platform vfio_platform_acme \"' to "
    "/etc/dracut.conf.d/vfio.conf, run 'transactional-update initrd', and reboot"
)


@pytest.mark.parametrize(
    ("mounts", "is_read_only"),
    [
        ("/dev/vda3 / btrfs ro,relatime,subvol=/@/.snapshots/1/snapshot 0 0\n", True),
        ("rootfs / rootfs rw 0 0\n/dev/vda3 / btrfs ro 0 0\n/dev/vda3 /var btrfs rw 0 0\n", True),
        ("/dev/vda3 / btrfs rw,errors=remount-ro 0 0\n", False),
        ("/dev/vda3 /mnt btrfs ro 0 0\n", False),
        # A user who mounts by FUSE chooses the name of that, with any blank but that of ASCII.
        ("/dev/vda3 / btrfs rw 0 0\nz\v/\vext4\vro /home/u/m fuse rw 0 0\n", False),
        ("", False),
    ],
)
def test_a_root_that_transactional_update_changes_is_recognised(
    tmp_path: Path, mounts: str, *, is_read_only: bool
) -> None:
    board = boot_by(host(tmp_path, *TOOLS["dracut"]), "root=UUID=1", mounts)
    sign(board, "transactional-update")
    before = board.everything()
    warnings = list(board.check([CRYPTO], **SETTINGS).warnings)
    assert [TRANSACTIONAL in warning for warning in warnings] == [True] * is_read_only
    assert board.everything() == before
    outcome = board.apply([CRYPTO], **SETTINGS)
    assert outcome.initramfs.tool == (None if is_read_only else "dracut")
    assert board.apply([DMA], initramfs="never").initramfs.tool is None


@pytest.mark.parametrize(
    ("parameters", "mounts"),
    [
        # A container on such a host has its command line.
        (f"composefs={DIGEST}", "overlay / overlay rw 0 0\n"),
        (f"usrhash={DIGEST}", ROOT),
        (f"composefs={DIGEST}", ""),
        # Others can call their mounts so.
        ("root=/dev/mapper/root", "/dev/mapper/root / ext4 rw 0 0\n"),
        ("root=/dev/vda2", f"composefs:{DIGEST} / overlay ro 0 0\n"),
        (f"roothash={DIGEST}", "/dev/mapper/root /mnt erofs ro 0 0\n"),
        (f"roothash={DIGEST}", "/dev/mapper/root-1 / erofs ro 0 0\nx\n"),
        (f"composefs={DIGEST}", f"composefs:{DIGEST} / overlay ro 0 0\n{ROOT}"),
    ],
)
def test_another_root_file_system_is_no_image(tmp_path: Path, parameters: str, mounts: str) -> None:
    board = boot_by(host(tmp_path, *TOOLS["dracut"]), parameters, mounts)
    outcome = board.apply([CRYPTO], **SETTINGS)
    assert outcome.initramfs.tool == "dracut"
    assert list(outcome.warnings) == []


def test_of_ostree_with_composefs_its_own_commands_are_reported(tmp_path: Path) -> None:
    board = boot_by(host(tmp_path), *IMAGES["composefs of bootc"])
    sign(board, "ostree")
    (warning,) = board.check([CRYPTO], **SETTINGS).warnings
    assert ADDED["ostree"] in warning


@pytest.mark.parametrize("tool", SIGNS)
def test_what_else_builds_the_initramfs_is_told_what_to_add(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path)
    sign(board, tool)
    outcome = board.apply([CRYPTO], **SETTINGS)
    (warning,) = outcome.warnings
    assert warning.startswith("The list applies when the root file system is mounted, not in the ")
    assert ADDED[tool] in warning
    assert warning.endswith(". Then set `initramfs: never`")
    assert outcome.initramfs == (None, None)
    assert list(board.apply([CRYPTO], **SETTINGS).warnings) == []
    assert list(board.apply([DMA], initramfs="never").warnings) == []


@pytest.mark.parametrize("tool", SIGNS)
def test_a_check_tells_what_to_add_before_anything_is_written(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path, *TOOLS["dracut"] if tool == "ostree" else ())
    sign(board, tool)
    before = board.everything()
    (warning,) = board.check([CRYPTO], **SETTINGS).warnings
    assert ADDED[tool] in warning
    assert board.everything() == before
    assert list(board.apply([CRYPTO], **SETTINGS).warnings) == [warning]


# What the programs themselves make of the words that are to be added.


def test_bash_reads_what_is_to_be_written_for_mkinitcpio(tmp_path: Path) -> None:
    """mkinitcpio is a script of bash that sources its files; the arrays have values before."""
    board = host(tmp_path)
    sign(board, "mkinitcpio")
    (warning,) = board.apply([CRYPTO], **SETTINGS).warnings
    lines = re.findall(r"'((?:FILES|MODULES)\+=\(.*?\))'", warning)
    shown = 'printf "%s\\n" "${FILES[@]}" "${MODULES[@]}"'
    script = "\n".join(["FILES=(/etc/mine)", "MODULES=(ext4)", *lines, shown])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        *("/etc/mine", last_applied.RULES, last_applied.MODPROBE, "ext4"),
        *("vfio_iommu_type1", "vfio_platform", "vfio_platform_acme"),
    ]


def test_a_shell_reads_the_commands_for_rpm_ostree(tmp_path: Path) -> None:
    board = host(tmp_path)
    sign(board, "ostree")
    (warning,) = board.apply([CRYPTO], **SETTINGS).warnings
    commands = re.findall(r"'(rpm-ostree .*?)'", warning)
    assert [shlex.split(command) for command in commands] == [
        [
            *("rpm-ostree", "initramfs-etc"),
            *("--track=" + last_applied.RULES, "--track=" + last_applied.MODPROBE),
        ],
        [
            *("rpm-ostree", "initramfs", "--enable", "--arg=--add-drivers"),
            "--arg=vfio_iommu_type1 vfio_platform vfio_platform_acme",
        ],
    ]


@pytest.mark.parametrize("tool", SIGNS)
def test_always_is_refused_with_what_to_add(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path)
    sign(board, tool)
    (problem,) = board.refused([CRYPTO], initramfs="always", **SETTINGS)
    assert ADDED[tool] in problem
    assert problem.endswith(". Then set `initramfs: never`")


@pytest.mark.parametrize("tool", TOOLS)
def test_images_of_an_ostree_host_are_not_rebuilt_by_its_tools(tmp_path: Path, tool: str) -> None:
    board = host(tmp_path, *TOOLS[tool])
    sign(board, "ostree")
    outcome = board.apply([CRYPTO], **SETTINGS)
    assert outcome.initramfs == (None, None)
    assert board.file(HOOK) is board.file(CONFIGURATION) is None
    assert "This host is managed by ostree (rpm-ostree, bootc)" in outcome.warnings[0]


@pytest.mark.parametrize("other", ["mkinitcpio", "booster"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_of_ours_is_used_where_another_is_installed(
    tmp_path: Path, tool: str, other: str
) -> None:
    board = host(tmp_path, *TOOLS[tool])
    sign(board, other)
    outcome = board.apply([CRYPTO], **SETTINGS)
    assert outcome.initramfs.tool == tool
    assert list(outcome.warnings) == []
