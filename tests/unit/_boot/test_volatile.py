"""Boot files that are written to memory are gone after a reboot, so a run warns of it."""

from __future__ import annotations

import pytest
from board import CRYPTO, DMA, Board

ROOT, RUN = "/dev/vda1 / ext4 rw 0 0", "tmpfs /run tmpfs rw 0 0"
MEDIA = "/media/root-rw"
FORGETFUL = [
    ([ROOT, "tmpfs /etc tmpfs rw 0 0"], "tmpfs on /etc"),
    # With systemd.volatile=yes.
    (["tmpfs / tmpfs rw,mode=755 0 0", "/dev/vda1 /usr ext4 ro 0 0"], "tmpfs on /"),
    (["rootfs / rootfs rw 0 0"], "rootfs on /"),
    # With overlayroot.
    (
        [
            "/dev/vda1 /media/root-ro ext4 ro 0 0",
            f"tmpfs-root {MEDIA} tmpfs rw 0 0",
            f"overlayroot / overlay rw,lowerdir=/media/root-ro,upperdir={MEDIA}/overlay 0 0",
        ],
        f"an overlay on /, with tmpfs on {MEDIA}",
    ),
    # A transient /etc of ostree.
    (
        [ROOT, RUN, "overlay /etc overlay rw,lowerdir=/usr/etc,upperdir=/run/ostree/upper 0 0"],
        "an overlay on /etc, with tmpfs on /run",
    ),
    (
        [
            *(ROOT, "tmpfs /with\\040blank tmpfs rw 0 0"),
            "overlay /etc overlay rw,upperdir=/with\\040blank/upper 0 0",
        ],
        "an overlay on /etc, with tmpfs on /with blank",
    ),
]
LASTING = [
    [],
    [ROOT, RUN, "tmpfs /etc/x tmpfs rw 0 0"],
    [ROOT, "tmpfs /etc2 tmpfs rw 0 0"],
    ["rootfs / rootfs rw 0 0", ROOT],
    # A container, whose upper directory is on its host.
    ["overlay / overlay rw,lowerdir=/l/1:/l/2,upperdir=/var/x/diff 0 0", RUN],
    [ROOT, RUN, "overlay /etc overlay rw,upperdir=/var/etc 0 0"],
    [RUN, "overlay / overlay ro,lowerdir=/run/a:/run/b 0 0"],
    ["tmpfs / tmpfs"],
    ["tmpfs", "", " "],
]


def warnings(board: Board, mounts: list[str], **settings: bool) -> list[str]:
    board.write_file("/proc/self/mounts", "".join(f"{line}\n" for line in mounts))
    outcome = board.apply([CRYPTO], reset_required=False, **settings)
    return [sentence for sentence in outcome.warnings if "in memory" in sentence]


@pytest.mark.parametrize(("mounts", "where"), FORGETFUL)
def test_files_in_memory_are_a_warning(board: Board, mounts: list[str], where: str) -> None:
    (warning,) = warnings(board, mounts)
    assert warning.startswith(f"The boot files of this list are in memory ({where}), ")
    assert "so the next boot does not have them unless something restores them" in warning


@pytest.mark.parametrize("mounts", LASTING)
def test_other_file_systems_are_none(board: Board, mounts: list[str]) -> None:
    assert warnings(board, mounts) == []


def test_only_a_run_that_writes_boot_files_of_a_list_warns(board: Board) -> None:
    mounts, _where = FORGETFUL[0]
    assert warnings(board, mounts, persistent=False) == []
    assert len(warnings(board, mounts)) == 1
    assert warnings(board, mounts) == []
    assert not any("in memory" in sentence for sentence in board.apply([]).warnings)


def test_it_is_told_before_anything_is_written(board: Board) -> None:
    board.write_file("/proc/self/mounts", "tmpfs / tmpfs rw 0 0\n")
    outcome = board.check([DMA])
    assert any("in memory" in sentence for sentence in outcome.warnings)
