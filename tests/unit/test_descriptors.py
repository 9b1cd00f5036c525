"""Devices that processes hold are found by number, in each thread, and after they were closed."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils import _descriptors
from ansible_collections.armfleet.vfio.plugins.module_utils._descriptors import Descriptors
from ansible_collections.armfleet.vfio.plugins.module_utils._processes import (
    VFIO_DEVICE,
    Processes,
)

CLONE_FILES = 0x400
# Of mem(4) and null(4), on every Linux.
FULL, NULL = "c1:7", "c1:3"


@pytest.fixture
def loner() -> Iterator[int]:
    """A thread of this process with descriptors of its own, which has /dev/full open."""
    is_ready, is_over = threading.Event(), threading.Event()

    def work() -> None:
        ctypes.CDLL(None).unshare(CLONE_FILES)
        descriptor = os.open("/dev/full", os.O_RDONLY)
        is_ready.set()
        is_over.wait()
        os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    is_ready.wait()
    yield thread.native_id or 0
    is_over.set()
    thread.join()


@pytest.mark.parametrize("has_kcmp", [True, False])
@pytest.mark.usefixtures("loner")
def test_a_thread_may_have_descriptors_of_its_own(
    monkeypatch: pytest.MonkeyPatch, has_kcmp: bool
) -> None:
    if not has_kcmp:
        monkeypatch.setattr(_descriptors, "_KCMP", {})
    assert {"/dev/full", FULL} <= Descriptors("/proc").of(str(os.getpid()))
    own = f"(pid {os.getpid()})"
    assert [one for one in Processes().holders("/dev/full") if own in one]


def test_a_thread_that_shares_them_is_not_read_again(loner: int) -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    share = _descriptors._share_descriptors
    assert share(os.getpid(), os.getpid()) in (True, False)
    if share(os.getpid(), os.getpid()):
        assert share(os.getpid(), thread.native_id or 0)
        assert not share(os.getpid(), loner)
    is_over.set()
    thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes nodes")
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_node_of_any_name_is_the_device(tmp_path: Path, is_deleted: bool) -> None:
    node = tmp_path / "other-name"
    try:
        os.mknod(node, 0o20600, os.makedev(1, 7))
        descriptor = os.open(node, os.O_RDONLY)
    except OSError:
        pytest.skip("no nodes can be used here")
    if is_deleted:
        node.unlink()
    held = Descriptors("/proc").of(str(os.getpid()))
    os.close(descriptor)
    assert {str(node), FULL} <= held
    assert str(tmp_path) not in held


def test_holders_are_found_by_name_or_number_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"/dev/vfio/3": "c239:3", "/srv/jail/dev/three": "c239:3"}
    monkeypatch.setattr(_descriptors, "device_number", lambda _link, target: numbers.get(target))
    for pid, target in ((7, "/dev/vfio/3"), (8, "/srv/jail/dev/three"), (9, "/srv/file")):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text("vmm\n")
        (tmp_path / f"{pid}/fd/0").symlink_to(target)
    found = Processes(str(tmp_path)).holders("/dev/vfio/3", "c239:3")
    assert sorted(found) == ["vmm (pid 7)", "vmm (pid 8)"]
    assert Processes(str(tmp_path)).holders("/dev/vfio/3") == ["vmm (pid 7)"]
    assert Processes(str(tmp_path)).holders("/srv/file", "c0:0") == []


MAPS = b"""\
aaaac000-aaaad000 r-xp 00000000 fe:00 11        /usr/bin/vmm
ffff8000-ffff9000 rw-s 00000000 00:0e 1031      anon_inode:[vfio-device]
ffff9000-ffffa000 rw-s 00000000 00:05 300       /dev/uio0
ffffa000-ffffb000 rw-s 00000000 00:1a 9         /dev/shm/pool
ffffb000-ffffc000 rw-s 00000000 00:05 301       /dev/dri/card0 (deleted)
ffffc000-ffffd000 rw-p 00000000 00:00 0         [stack]
"""


def test_a_mapping_outlives_its_descriptor(tmp_path: Path) -> None:
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("vmm\n")
    (tmp_path / "7/maps").write_bytes(MAPS)
    processes = Processes(str(tmp_path))
    for node in (VFIO_DEVICE, "/dev/uio0", "/dev/dri/card0"):
        assert processes.holders(node) == ["vmm (pid 7)"]
    assert processes.holders("/dev/shm/pool") == []


def test_without_statx_nodes_in_dev_are_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_descriptors, "_status", lambda: None)
    assert _descriptors.device_number("/dev/null", "/dev/null") == NULL
    assert _descriptors.device_number("/dev/null", "/srv/null") is None
    assert _descriptors.device_number("/dev/nowhere", "/dev/nowhere") is None


def test_what_is_no_device_has_no_number(tmp_path: Path) -> None:
    assert _descriptors.device_number("/dev/null", "/dev/null") == NULL
    assert _descriptors.device_number(str(tmp_path), str(tmp_path)) is None
    assert _descriptors.device_number(str(tmp_path / "gone"), "/gone") is None
