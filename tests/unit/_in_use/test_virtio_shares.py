"""9p and virtiofs that are mounted from virtio devices are storage in use."""

from __future__ import annotations

import pytest
from board import Board
from hazards import HOME, assert_acceptable, assert_free, refusal

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

# Below a platform device (virtio-mmio) or a function of a PCI host below one (virtio-pci).
PATHS = ("virtio0", "pci0000:00/0000:00:01.0/virtio0")


def add_share(board: Board, driver: str, path: str = "virtio0", tag: str = "home") -> None:
    """Add a virtio device with this driver below the device; the tag is that of 9p."""
    home = f"{HOME}/{path}"
    name = path.rpartition("/")[2]
    board.kernel.put(f"{home}/uevent", "")
    board.kernel.point(f"{home}/subsystem", "bus/virtio")
    board.kernel.make_directory(f"bus/virtio/drivers/{driver}")
    board.kernel.point(f"bus/virtio/drivers/{driver}/{name}", home)
    board.kernel.point(f"{home}/driver", f"bus/virtio/drivers/{driver}")
    if driver == "9pnet_virtio":
        board.kernel.put(f"{home}/mount_tag", f"{tag}\0")


def name_tag(board: Board, tag: str) -> None:
    """Add what Linux 6.9 and later tell of a virtiofs device."""
    board.kernel.put("fs/virtiofs/0/tag", f"{tag}\n")
    board.kernel.point("fs/virtiofs/0/device", f"{HOME}/virtio0")


@pytest.mark.parametrize("mount_point", ["/", "/home/alice"])
@pytest.mark.parametrize("path", PATHS)
def test_a_mounted_9p_is_never_unbound(board: Board, path: str, mount_point: str) -> None:
    add_share(board, "9pnet_virtio", path)
    board.mount("0:40", mount_point, "9p", "home")
    message = refusal(board, allow=ACCEPTABLE)
    assert f"virtio0 (9p home): it is mounted on {mount_point}. Unmount it" in message
    assert "a mounted 9p device is never unbound" in message


def test_9p_that_nobody_has_mounted_is_free(board: Board) -> None:
    add_share(board, "9pnet_virtio")
    board.mount("0:40", "/other", "9p", "other")
    board.mount("0:41", "/home", "virtiofs", "home")
    board.mount("254:0", "/srv", "ext4", "home")
    assert_free(board)


@pytest.mark.parametrize(("clients", "is_hidden"), [("2", True), ("1", False)])
def test_9p_that_was_unmounted_lazily_may_be_in_use(
    board: Board, clients: str, *, is_hidden: bool
) -> None:
    add_share(board, "9pnet_virtio")
    add_share(board, "9pnet_virtio", "virtio1", "other")
    board.kernel.rename(f"{HOME}/virtio1", "devices/platform/b002000.dma/virtio1")
    board.kernel.remove("bus/virtio/drivers/9pnet_virtio/virtio1")
    board.kernel.point(
        "bus/virtio/drivers/9pnet_virtio/virtio1", "devices/platform/b002000.dma/virtio1"
    )
    # One file system, at two places.
    board.mount("0:40", "/other", "9p", "other")
    board.mount("0:40", "/bind", "9p", "other")
    board.kernel.put("module/9pnet_virtio/refcnt", f"{clients}\n")
    if is_hidden:
        reported = "virtio0 (9p home): it may be in use by a mount that is no longer visible"
        assert reported in refusal(board, allow=ACCEPTABLE)
    else:
        assert_free(board)


@pytest.mark.parametrize("mount_point", ["/", "/home/alice"])
@pytest.mark.parametrize("path", PATHS)
def test_a_mounted_virtiofs_is_in_use(board: Board, path: str, mount_point: str) -> None:
    add_share(board, "virtiofs", path)
    name_tag(board, "home")
    board.mount("0:41", mount_point, "virtiofs", "home")
    message = refusal(board, allow=["consumers"])
    assert f"virtio0 (virtiofs home): it is mounted on {mount_point}. To accept this" in message
    assert_free(board, allow=["consumers", "storage"])


def test_virtiofs_of_which_the_tag_is_not_told_may_be_what_is_mounted(board: Board) -> None:
    add_share(board, "virtiofs")
    board.mount("0:41", "/home", "virtiofs", "home")
    assert "virtio0 (virtiofs): it may be mounted on /home" in refusal(board)
    assert_acceptable(board, "storage")


def test_another_virtiofs_is_free(board: Board) -> None:
    add_share(board, "virtiofs")
    name_tag(board, "cache")
    board.mount("0:41", "/home", "virtiofs", "home")
    assert_free(board)


def test_a_line_of_mounts_that_cannot_be_parsed_may_be_any(board: Board) -> None:
    add_share(board, "9pnet_virtio")
    with (board.proc / "self/mountinfo").open("a") as stream:
        stream.write("nothing\n")
    assert "virtio0 (9p home): a line of " in refusal(board)
    assert_acceptable(board, "storage")


def test_other_virtio_devices_are_no_storage(board: Board) -> None:
    add_share(board, "virtio_rng")
    board.mount("0:40", "/home", "9p", "home")
    assert_free(board)
