"""Boot files that are written to memory are gone after a reboot, so a run warns of it."""

from __future__ import annotations

import pytest
from board import CRYPTO, DMA, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import volatile
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_reads import FileReader

ROOT, RUN = "/dev/vda1 / ext4 rw 0 0", "tmpfs /run tmpfs rw 0 0"
MEDIA = "/media/root-rw"
# Mounts, device numbers of paths other than that of the root, and what the warning names.
FORGETFUL: list[tuple[list[str], dict[str, int], str]] = [
    ([ROOT, "tmpfs /etc tmpfs rw 0 0"], {"/etc": 2}, "tmpfs on /etc"),
    ([ROOT, "tmpfs /etc/udev tmpfs rw 0 0"], {"/etc/udev": 2}, "tmpfs on /etc/udev"),
    # With systemd.volatile=yes.
    (["tmpfs / tmpfs rw 0 0", "/dev/vda1 /usr ext4 ro 0 0"], {"/usr": 2}, "tmpfs on /"),
    (["rootfs / rootfs rw 0 0"], {}, "rootfs on /"),
    (["/dev/ram0 / ext2 rw 0 0"], {}, "ext2 on /"),
    ([ROOT, "/dev/zram1 /etc ext4 rw 0 0"], {"/etc": 2}, "ext4 on /etc"),
    # With overlayroot.
    (
        [
            f"tmpfs-root {MEDIA} tmpfs rw 0 0",
            f"overlayroot / overlay rw,lowerdir=/media/root-ro,upperdir={MEDIA}/overlay 0 0",
        ],
        {MEDIA: 2},
        f"an overlay on /, with tmpfs on {MEDIA}",
    ),
    # A transient /etc of ostree.
    (
        [ROOT, RUN, "overlay /etc overlay rw,lowerdir=/usr/etc,upperdir=/run/ostree/upper 0 0"],
        {"/etc": 2, "/run": 3},
        "an overlay on /etc, with tmpfs on /run",
    ),
    (
        [
            *(ROOT, "tmpfs /with\\040blank tmpfs rw 0 0"),
            "overlay /etc overlay rw,upperdir=/with\\040blank/upper 0 0",
        ],
        {"/etc": 2, "/with blank": 3},
        "an overlay on /etc, with tmpfs on /with blank",
    ),
    # Of more mounts than the kernel shows in a page.
    (
        [
            *(f"none /mnt/{number} nfs rw 0 0" for number in range(200)),
            "tmpfs /etc tmpfs rw 0 0",
        ],
        {"/etc": 2},
        "tmpfs on /etc",
    ),
]
LASTING: list[tuple[list[str], dict[str, int]]] = [
    ([], {}),
    ([ROOT, RUN, "tmpfs /etc/x tmpfs rw 0 0"], {"/run": 2, "/etc/x": 3}),
    (["rootfs / rootfs rw 0 0", ROOT], {}),
    # A container, whose upper directory is on its host, and which has another directory there.
    (["overlay / overlay rw,upperdir=/none/diff 0 0", "tmpfs /none tmpfs rw 0 0"], {"/none": 2}),
    (["overlay / overlay rw,upperdir=/run/x/diff 0 0", RUN], {"/run": 2, "/run/x": 1}),
    # dmsquash-live-root of dracut: the upper directory is a link to a disk.
    (
        [RUN, "x / overlay rw,upperdir=/run/overlayfs 0 0", "/dev/sda3 /run/disk ext4 rw 0 0"],
        {"/run": 2, "/run/overlayfs": 3, "/run/disk": 3},
    ),
    ([ROOT, RUN, "overlay /etc overlay rw,upperdir=/var/etc 0 0"], {"/etc": 2, "/run": 3}),
    ([RUN, "overlay / overlay ro,lowerdir=/run/a:/run/b 0 0"], {"/run": 2}),
    (["tmpfs / tmpfs"], {}),
    (["tmpfs", "", " "], {}),
    # Users choose the names of what they mount by FUSE, with any blank but that of ASCII.
    ([ROOT, "x\v/etc\vtmpfs\vrw /home/u/m fuse rw 0 0"], {}),
    ([ROOT, "tmpfs\f/\ftmpfs\frw /home/u/m fuse.tmpfs rw 0 0"], {"/home/u/m": 2}),
]


def warnings(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    mounts: list[str],
    devices: dict[str, int],
    **settings: bool,
) -> list[str]:
    """Apply a list to a host with these mounts, of which each path has the device number."""
    board.write_file("/proc/self/mounts", "".join(f"{line}\n" for line in mounts))

    def version(path: str) -> tuple[int, ...] | None:
        above = [at for at in devices if f"{path}/".startswith(f"{at}/")]
        number = devices[max(above, key=len)] if above else 1
        return None if path.startswith("/none/") else (number, 0, 0, 0)

    with monkeypatch.context() as patch:
        patch.setattr(volatile, "_device", lambda _files, path: (version(path) or [None])[0])
        outcome = board.apply([CRYPTO], reset_required=False, **settings)
    return [sentence for sentence in outcome.warnings if "in memory" in sentence]


@pytest.mark.parametrize(("mounts", "devices", "where"), FORGETFUL)
def test_files_in_memory_are_a_warning(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    mounts: list[str],
    devices: dict[str, int],
    where: str,
) -> None:
    (warning,) = warnings(board, monkeypatch, mounts, devices)
    assert warning.startswith(f"The boot files of this list are in memory ({where}), ")
    assert "so the next boot does not have them unless something restores them" in warning


@pytest.mark.parametrize(("mounts", "devices"), LASTING)
def test_other_file_systems_are_none(
    board: Board, monkeypatch: pytest.MonkeyPatch, mounts: list[str], devices: dict[str, int]
) -> None:
    assert warnings(board, monkeypatch, mounts, devices) == []


def test_only_a_run_that_writes_boot_files_of_a_list_warns(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: tuple[list[str], dict[str, int]] = (["tmpfs / tmpfs rw 0 0"], {})
    assert warnings(board, monkeypatch, *here, persistent=False) == []
    assert len(warnings(board, monkeypatch, *here)) == 1
    assert warnings(board, monkeypatch, *here) == []
    assert not any("in memory" in sentence for sentence in board.apply([]).warnings)


def test_it_is_told_before_anything_is_written(board: Board) -> None:
    board.write_file("/proc/self/mounts", "tmpfs / tmpfs rw 0 0\n")
    outcome = board.check([DMA])
    assert any("in memory" in sentence for sentence in outcome.warnings)


def test_what_may_hang_is_not_looked_at(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    answer = FileReader.version

    def version(files: FileReader, path: str) -> tuple[int, ...] | None:
        looked_at.append(path)
        return answer(files, path)

    monkeypatch.setattr(FileReader, "version", version)
    board.write_file("/proc/self/mounts", f"{ROOT}\nserver:/ /mnt nfs rw 0 0\nx /u fuse rw 0 0\n")
    board.apply([DMA])
    assert looked_at
    assert not {"/mnt", "/u"} & {*looked_at}
