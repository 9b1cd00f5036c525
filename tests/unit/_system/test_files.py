"""Files are replaced atomically, and nodes get their group and mode."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.initramfs import (
    OUTDATED,
    is_stale,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_reads import (
    ANY_ENTRY,
    NO_DIRECTORY,
    WHAT_EXISTS,
    open_own,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files, is_group

RULES = "/etc/udev/rules.d/x.rules"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path))


def test_a_file_and_the_folders_to_it_are_made(files: Files, tmp_path: Path) -> None:
    files.write_atomic(RULES, "ä\n")
    file = tmp_path / RULES[1:]
    assert file.read_text(encoding="utf-8") == "ä\n"
    assert file.stat().st_mode & 0o7777 == 0o644
    assert files.read(RULES) == "ä\n"


def test_a_file_is_replaced_and_never_written_into(files: Files, tmp_path: Path) -> None:
    files.write_atomic(RULES, "old\n")
    with (tmp_path / RULES[1:]).open() as reader:
        files.write_atomic(RULES, "new\n")
        assert reader.read() == "old\n"
    assert os.listdir((tmp_path / RULES[1:]).parent) == ["x.rules"]


def test_a_file_that_shall_not_be_is_removed_and_may_be_missing(files: Files) -> None:
    files.write_atomic(RULES, "x")
    files.write_atomic(RULES, None)
    files.write_atomic(RULES, None)
    assert files.read(RULES) is None


def test_bytes_that_are_no_text_come_back_as_they_were(files: Files, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe\n")
    content = files.read("/f")
    files.write_atomic("/g", content)
    assert (tmp_path / "g").read_bytes() == b"\xff\xfe\n"


@pytest.mark.parametrize("name", ["\0", "/etc\0", "/etc/a\0b", "/\ud800"])
def test_a_name_that_no_file_can_have_names_nothing(files: Files, name: str) -> None:
    files.write_atomic("/etc/a", "x")
    assert [files.read(name), files.link(name), files.status(name)] == [None] * 3
    assert [files.changed_at(name), files.placed_at(name), files.version(name)] == [None] * 3
    assert [files.node_access(name), files.block_number(name)] == [None] * 2
    assert [files.names(name), files.links(name), files.drop_in_files([name], "", "/c")] == [
        [],
        {},
        [],
    ]
    assert not files.is_executable(name)
    assert not files.is_same(name, "/etc/a")
    assert not files.is_same("/etc/a", name)


def test_layers_are_read_by_name_and_a_file_hides_its_namesakes_further_back(files: Files) -> None:
    for path in ("/etc/b.conf", "/run/a.conf", "/run/b.conf", "/lib/c.conf", "/lib/ours.conf"):
        files.write_atomic(path, "")
    files.write_atomic("/lib/notes.txt", "")
    paths = files.drop_in_files(["/etc", "/run", "/usr/lib", "/lib"], ".conf", "/etc/ours.conf")
    assert paths == ["/run/a.conf", "/etc/b.conf", "/lib/c.conf"]


@pytest.mark.parametrize(
    ("hiding", "expected"),
    [
        (ANY_ENTRY, ["/etc/a.conf", "/etc/b.conf", "/etc/c.conf", "/etc/d.conf"]),
        (WHAT_EXISTS, ["/etc/a.conf", "/lib/b.conf", "/etc/c.conf", "/etc/d.conf"]),
        (NO_DIRECTORY, ["/lib/a.conf", "/lib/b.conf", "/lib/c.conf", "/etc/d.conf"]),
    ],
)
def test_each_reader_has_its_own_idea_of_what_hides_a_file(
    files: Files, tmp_path: Path, hiding: str, expected: list[str]
) -> None:
    for name in "abcd":
        files.write_atomic(f"/lib/{name}.conf", "")
    etc = tmp_path / "etc"
    (etc / "a.conf").mkdir(parents=True)
    (etc / "b.conf").symlink_to("nowhere")
    (etc / "c.conf").symlink_to("a.conf")
    (etc / "d.conf").symlink_to("/dev/null")
    assert files.drop_in_files(["/etc", "/lib"], ".conf", "", hiding) == expected


def test_a_file_in_the_place_of_a_folder_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    with pytest.raises(PolicyError, match="is a file or a dangling link"):
        files.write_atomic(RULES, "x")
    with pytest.raises(PolicyError, match="is a file or a dangling link"):
        files.read(RULES)


def test_a_folder_in_the_place_of_a_file_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / RULES[1:]).mkdir(parents=True)
    for content in ("x", None):
        with pytest.raises(PolicyError, match="Cannot write"):
            files.write_atomic(RULES, content)
    with pytest.raises(PolicyError, match="Cannot read"):
        files.read(RULES)


def test_a_circle_of_links_in_the_place_of_our_file_is_named(files: Files, tmp_path: Path) -> None:
    path = tmp_path / RULES[1:]
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)
    with pytest.raises(PolicyError, match="its symbolic links lead in a circle; remove them"):
        files.read(RULES)
    assert files.read_drop_in(RULES) is None
    assert files.names(RULES) == []
    assert files.link("/" + "x" * 5000) is files.status("/" + "x" * 5000) is None


def test_a_device_is_named_and_never_opened(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a watchdog starts it."""
    (tmp_path / "watchdog").symlink_to("/dev/zero")
    monkeypatch.setattr(os, "open", lambda *_arguments, **_options: pytest.fail("it was opened"))
    with pytest.raises(PolicyError, match="it is a device node, not a regular file"):
        files.read_drop_in("/watchdog")


def test_a_write_that_fails_leaves_the_file_and_no_rubbish(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(RULES, "old\n")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(PolicyError, match="No space left"):
            files.write_atomic(RULES, "new\n")
    assert files.read(RULES) == "old\n"
    assert os.listdir((tmp_path / RULES[1:]).parent) == ["x.rules"]


def test_group_and_mode_of_a_node_are_told_and_set(files: Files, tmp_path: Path) -> None:
    (tmp_path / "node").touch(mode=0o600)
    own = grp.getgrgid(os.getgid()).gr_name
    files.set_node_access("/node", NodeAccess(own, None))
    assert files.node_access("/node") == NodeAccess(own, "0600")
    files.set_node_access("/node", NodeAccess(None, "0660"))
    assert (tmp_path / "node").stat().st_mode & 0o7777 == 0o660
    assert files.node_access("/node") == NodeAccess(own, "0660")


def test_a_node_that_is_not_there_has_no_access(files: Files) -> None:
    assert files.node_access("/gone") is None
    files.set_node_access("/gone", NodeAccess(None, "0660"))
    assert files.node_access("/gone") is None


def test_a_group_that_is_not_there_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / "node").touch()
    assert not is_group("no-such-group")
    assert is_group(grp.getgrgid(os.getgid()).gr_name)
    with pytest.raises(PolicyError, match="no-such-group"):
        files.set_node_access("/node", NodeAccess("no-such-group", None))


def test_a_link_is_made_replaced_and_removed_with_its_folder(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    for target in ("../1", "../2", "../2"):
        files.set_symlink("/by-tag/left", target)
        assert files.link("/by-tag/left") == target
    assert files.links("/by-tag") == {"/by-tag/left": "../2"}
    files.set_symlink("/by-tag/left", None)
    files.set_symlink("/by-tag/left", None)
    assert not (tmp_path / "by-tag").exists()
    assert files.links("/by-tag") == {}


def test_what_is_no_link_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "left").write_text("mine")
    files = Files(str(tmp_path))
    assert files.link("/left") is None
    files.set_symlink("/left", None)
    with pytest.raises(PolicyError, match="Cannot link /left"):
        files.set_symlink("/left", "../1")
    assert (tmp_path / "left").read_text() == "mine"


@pytest.mark.parametrize("made", ["link", "directory's mode", "mode", "directory", "fifo"])
def test_what_others_may_have_written_is_not_what_a_run_goes_by(
    tmp_path: Path, files: Files, made: str
) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    path = directory / "record"
    path.write_text("list")
    assert files.read_own("/state/record") == "list"
    if made == "link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif made == "directory's mode":
        directory.chmod(0o1777)
    elif made == "mode":
        path.chmod(0o646)
    else:
        path.unlink()
        os.mkfifo(path) if made == "fifo" else path.mkdir()
    with pytest.raises(PolicyError, match="a user other than root may have written"):
        files.read_own("/state/record")


def test_a_directory_of_state_may_be_on_another_disk(tmp_path: Path, files: Files) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "disk/record").write_text("list")
    (tmp_path / "state").symlink_to("disk")
    assert files.read_own("/state/record") == "list"
    assert files.read_own("/state/other") is None
    assert files.read_own("/nowhere/record") is None


@pytest.mark.parametrize("swapped", ["record", "directory"])
@pytest.mark.parametrize("method", ["read_own", "own_changed_at"])
def test_what_was_checked_is_what_is_read(
    tmp_path: Path,
    files: Files,
    swapped: str,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = tmp_path / "state"
    other = tmp_path / "other"
    for directory, content in ((state, "list"), (other, "planted")):
        directory.mkdir(mode=0o755)
        (directory / "record").write_text(content)
    os.utime(other / "record", (1, 1))
    read = getattr(files, method)
    expected = read("/state/record")
    is_of = {"record": stat.S_ISREG, "directory": stat.S_ISDIR}[swapped]
    real = os.fstat
    swaps = []

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if is_of(status.st_mode) and not swaps:
            swaps.append(descriptor)
            if swapped == "record":
                (other / "record").replace(state / "record")
            else:
                state.rename(tmp_path / "moved")
                other.rename(state)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    assert read("/state/record") == expected
    assert swaps


def test_a_foreign_mark_of_outdated_images_is_refused(tmp_path: Path, files: Files) -> None:
    files.write_atomic(OUTDATED, "")
    release = os.uname().release
    files.write_atomic("/boot/initrd.img-" + release, "")
    os.utime(tmp_path / OUTDATED[1:], (2, 2))
    os.utime(tmp_path / ("boot/initrd.img-" + release), (1, 1))
    assert is_stale(files, [])
    (tmp_path / OUTDATED[1:]).chmod(0o666)
    with pytest.raises(PolicyError, match="a user other than root may have written"):
        is_stale(files, [])


def test_what_is_no_file_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "own")
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(PolicyError, match=r"own is a FIFO"):
        open_own(str(tmp_path / "own"), os.O_RDONLY, os.getuid())


def test_the_start_of_a_file_is_read_whole_where_the_kernel_gives_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read
    (tmp_path / "mounts").write_text("x" * 70_000)
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 4096)))
    assert Files(str(tmp_path)).read_start("/mounts") == "x" * 65_536
