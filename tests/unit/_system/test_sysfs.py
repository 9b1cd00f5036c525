"""The gateway to /sys and its child process, tested on regular files and pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    KernelRefusedError,
    Sysfs,
)


@pytest.fixture
def sysfs(tmp_path: Path) -> Iterator[Sysfs]:
    gateway = Sysfs(str(tmp_path), timeout=5)
    yield gateway
    gateway.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Sysfs]:
    """A gateway with a short timeout."""
    gateway = Sysfs(str(tmp_path), timeout=0.2)
    yield gateway
    gateway.close()


@pytest.mark.parametrize("name", ["\0", "devices\0", "/dev/a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_names_nothing(sysfs: Sysfs, name: str) -> None:
    assert [sysfs.read(name), sysfs.read_long(name), sysfs.link(name)] == [None] * 3
    assert [sysfs.names(name), sysfs.list_directories(name), sysfs.count_directories(name)] == [
        [],
        [],
        0,
    ]
    assert not sysfs.exists(name)
    assert not sysfs.has_node(name)
    assert not sysfs.is_claimed(name)
    assert sysfs.read_locked([name, "devices"]) == [None, None]
    with pytest.raises(KernelRefusedError, match="No such file"):
        sysfs.write(name, "x")


def children() -> set[int]:
    """Return the running child processes of this process."""
    pids = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                pids.add(int(process.name))
    return pids


def wait_until_gone(pid: int) -> bool:
    for _attempt in range(100):
        if pid not in children():
            return True
        time.sleep(0.02)
    return False


def test_text_is_written_at_once_and_read_without_its_newline(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "driver_override").write_text("(null)\n")
    sysfs.write("driver_override", "\n")
    assert (tmp_path / "driver_override").read_bytes()[:1] == b"\n"
    (tmp_path / "driver_override").write_text("with space \n")
    assert sysfs.read_locked(["driver_override"]) == ["with space "]
    assert sysfs.read("driver_override") == "with space "


def test_a_file_that_is_not_there_is_enoent_and_is_not_made(sysfs: Sysfs, tmp_path: Path) -> None:
    with pytest.raises(KernelRefusedError) as caught:
        sysfs.write("gone", "x")
    assert caught.value.code == errno.ENOENT
    assert caught.value.path == "gone"
    assert not (tmp_path / "gone").exists()
    assert sysfs.read_locked(["gone"]) == [None]


@pytest.mark.parametrize(
    ("path", "code"), [("directory", errno.EISDIR), ("file/below", errno.ENOTDIR)]
)
def test_the_errno_is_the_kernels_own(sysfs: Sysfs, tmp_path: Path, path: str, code: int) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(KernelRefusedError) as caught:
        sysfs.write(path, "x")
    assert caught.value.code == code
    assert errno.errorcode[code] in str(caught.value)


def test_the_errno_of_the_write_itself_comes_through(sysfs: Sysfs) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    sysfs.root = "/dev"
    with pytest.raises(KernelRefusedError) as caught:
        sysfs.write("full", "x")
    assert caught.value.code == errno.ENOSPC


def test_a_write_that_does_not_return_is_given_up_and_its_process_left(
    hasty: Sysfs, tmp_path: Path
) -> None:
    before = children()
    os.mkfifo(tmp_path / "unbind")
    start = time.monotonic()
    with pytest.raises(KernelBlockedError, match=r"did not answer within 0\.2 s") as caught:
        hasty.write("unbind", "x")
    assert time.monotonic() - start < 2
    (left,) = children() - before
    assert str(left) in str(caught.value)
    descriptor = os.open(tmp_path / "unbind", os.O_RDONLY)
    assert wait_until_gone(left)
    os.close(descriptor)


def test_a_second_thing_that_hangs_is_waited_for_less_and_less_long(tmp_path: Path) -> None:
    sysfs = Sysfs(str(tmp_path), timeout=0.4)
    given = []
    for number in range(4):
        os.mkfifo(tmp_path / str(number))
        with pytest.raises(KernelBlockedError) as caught:
            sysfs.write(str(number), "x")
        given.append(re.findall(r"within (\S+) s", str(caught.value)))
    assert given == [["0.4"], ["0.2"], ["0.1"], ["0.05"]]
    for number in range(4):
        os.close(os.open(tmp_path / str(number), os.O_RDONLY | os.O_NONBLOCK))
    sysfs.close()


def test_where_in_the_kernel_a_process_waits_is_said(hasty: Sysfs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "unbind")
    with pytest.raises(KernelBlockedError) as caught:
        hasty.write("unbind", "x")
    (pid,) = re.findall(r"Process (\d+) is still", str(caught.value))
    function = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    os.close(os.open(tmp_path / "unbind", os.O_RDONLY | os.O_NONBLOCK))
    assert not function or f"waiting there (in {function})" in str(caught.value)


def test_a_read_that_does_not_return_is_given_up_too(hasty: Sysfs, tmp_path: Path) -> None:
    before = children()
    os.mkfifo(tmp_path / "driver_override")
    (tmp_path / "fine").write_text("x")
    with pytest.raises(KernelBlockedError, match="/sys/driver_override"):
        hasty.read_locked(["fine", "driver_override"])
    for left in children() - before:
        os.kill(left, signal.SIGKILL)


def test_of_many_reads_the_one_that_does_not_return_is_named(hasty: Sysfs, tmp_path: Path) -> None:
    before = children()
    paths = ["%d.ring" % number for number in range(150)]
    for path in paths:
        (tmp_path / path).write_text("(null)\n", encoding="ascii")
    os.unlink(tmp_path / paths[97])
    os.mkfifo(tmp_path / paths[97])
    with pytest.raises(KernelBlockedError, match=r"^/sys/97\.ring did not answer within 0\.2 s"):
        hasty.read_locked(paths)
    assert hasty.read_locked(paths[:97]) == ["(null)"] * 97
    hasty.close()
    for left in children() - before:
        os.kill(left, signal.SIGKILL)


def test_many_reads_together_may_take_longer_than_one(tmp_path: Path) -> None:
    paths = ["%d.ring" % number for number in range(5)]
    for path in paths:
        os.mkfifo(tmp_path / path)
    sysfs = Sysfs(str(tmp_path), timeout=2)

    def answer() -> None:
        for path in paths:
            time.sleep(0.5)
            (tmp_path / path).write_text("slow\n", encoding="ascii")

    kernel = threading.Thread(target=answer)
    kernel.start()
    try:
        assert sysfs.read_locked(paths) == ["slow"] * 5
    finally:
        kernel.join()
        sysfs.close()


def test_after_a_write_that_hangs_the_next_one_has_a_process_of_its_own(
    hasty: Sysfs, tmp_path: Path
) -> None:
    before = children()
    os.mkfifo(tmp_path / "hangs")
    (tmp_path / "works").touch()
    with pytest.raises(KernelBlockedError):
        hasty.write("hangs", "x")
    hasty.write("works", "y")
    assert (tmp_path / "works").read_text() == "y"
    assert hasty.read_locked(["works"]) == ["y"]
    hasty.close()
    for left in children() - before:
        os.kill(left, signal.SIGKILL)


def test_one_process_serves_all_requests_and_ends_with_the_door(
    sysfs: Sysfs, tmp_path: Path
) -> None:
    before = children()
    (tmp_path / "f").touch()
    for text in "abc":
        sysfs.write("f", text)
    (child,) = children() - before
    sysfs.close()
    assert wait_until_gone(child)
    sysfs.close()


def test_a_child_that_waits_holds_none_of_our_files_open(sysfs: Sysfs, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    before = children()
    (tmp_path / "f").touch()
    sysfs.write("f", "x")
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    (child,) = children() - before
    opened = [os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()]
    assert sorted(opened)[:3] == ["/dev/null"] * 3
    assert len(opened) == 5
    assert os.getsid(child) == child


def test_a_child_that_is_killed_is_a_sentence(sysfs: Sysfs, tmp_path: Path) -> None:
    before = children()
    (tmp_path / "f").touch()
    sysfs.write("f", "x")
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    assert wait_until_gone(child)
    with pytest.raises(PolicyError, match="was killed"):
        sysfs.write("f", "y")
    sysfs.write("f", "z")
    assert (tmp_path / "f").read_text() == "z"


def test_thousands_of_long_reads_neither_hang_nor_get_mixed_up(
    sysfs: Sysfs, tmp_path: Path
) -> None:
    paths = []
    for number in range(1200):
        name = f"{number:04d}" + "n" * 200
        (tmp_path / name).write_text(f"{number} " + "x" * 4000 + "\n")
        paths += [name, name + "-gone"]
    contents = sysfs.read_locked(paths)
    assert [content and content.split()[0] for content in contents[::2]] == [
        str(number) for number in range(1200)
    ]
    assert set(contents[1::2]) == {None}


def test_nothing_is_asked_and_no_process_is_started_for_no_reads(sysfs: Sysfs) -> None:
    before = children()
    assert sysfs.read_locked([]) == []
    assert children() <= before


def test_reads_of_what_is_not_there_are_none_or_empty(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    assert sysfs.read("gone") is None
    assert sysfs.read("directory") is None
    assert sysfs.read_bytes("gone") is None
    assert sysfs.strings("gone") == ()
    assert sysfs.names("gone") == []
    assert sysfs.link("directory") is None
    assert sysfs.link_name("gone") is None
    assert not sysfs.exists("gone")


def test_properties_of_the_device_tree_are_read_as_lists(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "compatible").write_bytes(b"acme,crypto-v1\0acme,crypto\0")
    (tmp_path / "empty").write_bytes(b"")
    assert sysfs.strings("compatible") == ("acme,crypto-v1", "acme,crypto")
    assert sysfs.strings("empty") == ()


def test_links_are_read_whole_or_by_their_last_part(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "driver").symlink_to("../../bus/platform/drivers/acme")
    assert sysfs.link("driver") == "../../bus/platform/drivers/acme"
    assert sysfs.link_name("driver") == "acme"


def test_a_refusal_says_what_was_written_and_where_and_what_helps() -> None:
    error = KernelRefusedError("bus/x/unbind", "b0.x", errno.EROFS)
    assert str(error).startswith("writing 'b0.x' to /sys/bus/x/unbind failed with EROFS")
    assert "run on the host itself" in error.advice
    assert KernelRefusedError("p", "t", errno.EXDEV).advice == ""
    assert "517" in str(KernelRefusedError("p", "t", 517))


def test_this_machines_sys_is_found_to_be_read_only_or_not(sysfs: Sysfs) -> None:
    assert sysfs.is_read_only() is False
    assert sysfs.has_node("/dev/null")
    assert not sysfs.has_node("/dev/no-such-node")
