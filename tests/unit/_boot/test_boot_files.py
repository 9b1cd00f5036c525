"""Each change to a boot file is reported, counts as drift, and is undone by a run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Callable

import pytest
from board import AMBA, CRYPTO, DMA, LIST, Board
from test_initramfs import TOOLS, host

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import (
    initramfs,
    last_applied,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results

HOOK, CONFIGURATION = initramfs.InitramfsTools.path, initramfs.Dracut.path
SETTINGS: dict[str, Any] = {"reset_required": False}
NO_LIST = "but other boot files exist, so the last-applied configuration is unknown"
Damage = Callable[[Path], None]


def reported(board: Board) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = device_info.inspections(board.inspect(None))["boot_files"]
    return files


def drift(board: Board) -> list[str]:
    return [sentence for file in reported(board) for sentence in file["drift"]]


def on_disk(board: Board, path: str) -> Path:
    return board.files_root / path[1:]


def edit_last_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], "# " + lines[-1]]))


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def add(path: Path) -> None:
    path.write_text(path.read_text() + "# mine\n")


def empty(path: Path) -> None:
    path.write_text("")


def remove(path: Path) -> None:
    path.unlink()


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


def hide_from_all(path: Path) -> None:
    path.chmod(0)


def move_elsewhere(path: Path) -> None:
    elsewhere = path.parents[1] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def lead_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: dict[Damage, str] = {
    edit_last_line: "differs from the last-applied configuration from line",
    cut: "differs from the last-applied configuration from line",
    add: "differs from the last-applied configuration from line",
    empty: "is empty",
    remove: "does not exist, but",
    open_to_all: "mode 0777, but must be",
    hide_from_all: "mode 0000, but must be",
    move_elsewhere: "is a symbolic link to",
    lead_nowhere: "is a symbolic link to nowhere",
}


@pytest.fixture
def debian(tmp_path: Path) -> Board:
    board = host(tmp_path, *TOOLS["initramfs-tools"])
    board.apply([CRYPTO], **SETTINGS)
    return board


@pytest.mark.parametrize("path", [RULES, MODPROBE, MODULES_LOAD, HOOK])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_restored(debian: Board, path: str, damage: Damage) -> None:
    assert drift(debian) == []
    sound = debian.everything()
    damage(on_disk(debian, path))
    sentences = drift(debian)
    assert any(
        sentence.startswith(path) and DAMAGES[damage] in sentence for sentence in sentences
    ), sentences
    is_list_lost = path == RULES and damage in (empty, remove, lead_nowhere)
    assert len(sentences) == (4 if is_list_lost else 1)
    checked = debian.check([CRYPTO], **SETTINGS)
    assert checked.is_changed
    assert path in [part["before_header"] for part in results.diff(checked)]
    outcome = debian.apply([CRYPTO], **SETTINGS)
    assert outcome.is_changed
    assert [change.path for change in outcome.files if change.is_needed] == [path]
    assert outcome.initramfs.command
    assert drift(debian) == []
    left = debian.everything()
    if is_list_lost:
        # The lost list also recorded the native driver of the device.
        name = "host" + RULES
        kind, content, mode = sound[name]
        content = re.sub("# Native drivers .*\n# native: .*\n", "", content)
        sound[name] = kind, content, mode
        # The file contains the checksum of all boot files.
        sound["host" + initramfs.OUTDATED] = left["host" + initramfs.OUTDATED]
    assert {name: value for name, value in left.items() if "elsewhere" not in name} == sound
    assert not debian.apply([CRYPTO], **SETTINGS).is_changed


@pytest.mark.parametrize(("user", "group"), [(65534, 65534), (65534, 0), (0, 65534)])
def test_a_file_of_another_user_is_named_and_restored(
    debian: Board, user: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(on_disk(debian, MODPROBE))
    lstat = os.lstat

    def owned(name: str) -> os.stat_result:
        status = lstat(name)
        if name != path or has_been_replaced(status):
            return status
        values = list(status)
        values[4:6] = [user or status.st_uid, group or status.st_gid]
        return os.stat_result(values)

    inode = lstat(path).st_ino

    def has_been_replaced(status: os.stat_result) -> bool:
        return status.st_ino != inode

    monkeypatch.setattr(os, "lstat", owned)
    (sentence,) = drift(debian)
    assert sentence.startswith(MODPROBE)
    assert sentence.endswith("mode 0644, but must be root:root mode 0644")
    outcome = debian.apply([CRYPTO], **SETTINGS)
    assert results.diff(outcome) == [
        {
            "before_header": MODPROBE,
            "after_header": MODPROBE,
            "before": sentence + "\n",
            "after": "",
        }
    ]
    assert drift(debian) == []


def test_the_diff_of_a_mode_is_shown(debian: Board) -> None:
    on_disk(debian, MODULES_LOAD).chmod(0o777)
    (part,) = results.diff(debian.check([CRYPTO], **SETTINGS))
    assert part["before_header"] == MODULES_LOAD
    assert "mode 0777, but must be root:root mode 0644" in part["before"]
    assert part["after"] == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_named_refused_and_not_waited_for(
    debian: Board, make: Callable[[Path], None]
) -> None:
    on_disk(debian, MODPROBE).unlink()
    make(on_disk(debian, MODPROBE))
    (sentence,) = drift(debian)
    assert f"{MODPROBE} is a " in sentence
    with pytest.raises(PolicyError, match=f"Cannot read .*{MODPROBE}"):
        debian.apply([CRYPTO], **SETTINGS)


@pytest.mark.parametrize("target", ["/dev/null", "empty"])
def test_a_file_that_somebody_hid_by_a_link_stays_hidden(debian: Board, target: str) -> None:
    path = on_disk(debian, MODPROBE)
    (path.parent / "empty").touch()
    path.unlink()
    path.symlink_to(target)
    assert any(f"is a symbolic link to {target}" in sentence for sentence in drift(debian))
    with pytest.raises(PolicyError, match="was not written by this collection"):
        debian.apply([CRYPTO], **SETTINGS)


def test_a_file_of_somebody_else_is_named_and_refused(debian: Board) -> None:
    debian.write_file(MODULES_LOAD, "mine\n")
    assert drift(debian) == [f"{MODULES_LOAD} was not written by this collection"]
    with pytest.raises(PolicyError, match="was not written by this collection"):
        debian.apply([CRYPTO], **SETTINGS)


def test_a_header_that_was_edited_does_not_fit_its_rules(debian: Board) -> None:
    path = on_disk(debian, RULES)
    path.write_text(path.read_text().replace('"vfio"', '"no_autobind"'))
    assert [
        sentence.partition(" differs from the last-applied configuration from line ")[0]
        for sentence in drift(debian)
    ] == [RULES]


def test_a_file_without_header_is_not_one_without_a_list(debian: Board) -> None:
    path = on_disk(debian, RULES)
    text = path.read_text()
    path.write_text(
        "".join(line for line in text.splitlines(True) if not line.startswith("# policy"))
    )
    assert f"{RULES} has no policy list in its header: it was edited or truncated" in drift(debian)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        '{"buses": ["isa"]}',
        '{"more": 1}',
        '{"buses": 5}',
        '{"aliases": [1]}',
        '{"variants": {"a": 1}}',
        '{"variants": {"a": "e1000e"}}',
    ],
)
def test_a_header_with_an_odd_machine_is_a_difference(debian: Board, line: str) -> None:
    path = on_disk(debian, RULES)
    head, mark, rest = path.read_text().partition("# machine: ")
    path.write_text(head + mark + line + "\n" + rest.partition("\n")[2])
    assert any(
        sentence.startswith(f"{RULES} differs from the last-applied configuration from line")
        for sentence in drift(debian)
    )
    debian.apply([CRYPTO], **SETTINGS)
    assert drift(debian) == []


def test_files_of_an_earlier_version_are_to_be_applied_again(debian: Board) -> None:
    """Earlier versions did not record the machine in the header."""
    path = on_disk(debian, RULES)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        "".join(line for line in lines if not line.startswith(("# machine", "# It was m")))
    )
    assert any(
        "another version of this collection wrote it" in sentence for sentence in drift(debian)
    )
    assert debian.apply([CRYPTO], **SETTINGS).is_changed
    assert drift(debian) == []


@pytest.mark.parametrize("left", [MODPROBE, MODULES_LOAD, HOOK])
def test_a_file_that_is_left_over_is_named_and_removed(debian: Board, left: str) -> None:
    content = on_disk(debian, left).read_bytes()
    debian.apply([], **SETTINGS)
    assert reported(debian) == []
    on_disk(debian, left).write_bytes(content)
    assert drift(debian) == [
        f"{RULES} does not exist, {NO_LIST}",
        f"{left} is stale: the configuration that it was written for is unknown",
    ]
    debian.apply([], **SETTINGS)
    assert reported(debian) == []


def test_a_file_that_the_list_does_not_need_is_left_over(debian: Board) -> None:
    content = on_disk(debian, MODULES_LOAD).read_bytes()
    debian.apply([DMA], **SETTINGS)
    on_disk(debian, MODULES_LOAD).write_bytes(content)
    assert drift(debian) == [
        f"{MODULES_LOAD} is stale: the last-applied configuration does not require it"
    ]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
@pytest.mark.parametrize("directory", ["/etc/udev/rules.d", "/etc"])
def test_a_directory_in_which_others_can_replace_files_is_named(
    debian: Board, directory: str, mode: int
) -> None:
    on_disk(debian, directory).chmod(mode)
    (sentence,) = drift(debian)
    assert sentence.startswith(f"{directory} is root:root mode {mode:04o}, so users other")
    assert f"'chmod go-w {directory}'" in sentence
    outcome = debian.apply([CRYPTO], **SETTINGS)
    assert not outcome.is_changed
    assert outcome.warnings == [sentence]


def test_a_directory_is_nobodys_business_where_no_list_is_applied(board: Board) -> None:
    on_disk(board, "/etc/udev/rules.d").chmod(0o777)
    assert reported(board) == []
    assert board.apply([]).warnings == []


def test_a_link_to_nowhere_is_removed_where_there_shall_be_no_file(debian: Board) -> None:
    debian.apply([], **SETTINGS)
    on_disk(debian, MODPROBE).symlink_to("nowhere")
    assert f"{MODPROBE} is a symbolic link to nowhere, but must be a regular file" in drift(debian)
    debian.apply([], **SETTINGS)
    assert reported(debian) == []


def test_another_name_of_a_file_is_no_difference(debian: Board) -> None:
    os.link(on_disk(debian, RULES), debian.files_root / "backup")
    assert drift(debian) == []


@pytest.mark.parametrize("tool", [*TOOLS, None])
@pytest.mark.parametrize(
    ("entries", "settings"),
    [
        (LIST, {}),
        ([{"dt_path": "crypto0", "policy": "vfio"}, DMA, AMBA], {}),
        ([{"dt_path": "crypto0", "policy": "vfio"}], {"runtime": False}),
        ([{"dt_path": "dma9", "policy": "no_autobind", "required": False}], {}),
        ([{"dt_path": "other/x@1", "policy": "no_autobind", "required": False}], {}),
        ([{"dt_path": "/soc/keys", "policy": "default"}], {}),
        ([CRYPTO], {"initramfs": "never"}),
        ([CRYPTO, {**DMA, "when_board": "acme,board"}], {"unsafe_noiommu": True}),
        ([], {}),
    ],
)
def test_files_are_as_the_run_that_wrote_them_left_them(
    tmp_path: Path, tool: str | None, entries: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    """Later changes to devices, modules and aliases are no drift of the files."""
    board = host(tmp_path, *TOOLS[tool] if tool else ())
    board.apply(entries, **{**SETTINGS, **settings})
    assert drift(board) == []
    present = [
        path for path in (*last_applied.PATHS, *initramfs.PATHS) if board.file(path) is not None
    ]
    assert [file["path"] for file in reported(board)] == present
    board.kernel.put("firmware/devicetree/base/aliases/crypto0", "/soc/crypto@b001000\0")
    (board.files_root / "lib/modules" / os.uname().release / "modules.dep").write_text("")
    assert drift(board) == []


@pytest.mark.parametrize("path", [MODPROBE, MODULES_LOAD, HOOK])
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a FIFO"), (os.mkdir, "a directory")])
def test_what_is_no_file_is_drift_of_each_file(
    debian: Board, path: str, make: Callable[[Path], None], kind: str
) -> None:
    on_disk(debian, path).unlink()
    make(on_disk(debian, path))
    assert drift(debian) == [f"{path} is {kind}, but must be a regular file. Remove it"]


@pytest.mark.parametrize("path", [RULES, MODPROBE, MODULES_LOAD, HOOK])
@pytest.mark.parametrize("content", [b"mine\n", b"\xff\xfe\0binary"])
def test_a_foreign_file_of_each_name_is_drift(debian: Board, path: str, content: bytes) -> None:
    on_disk(debian, path).write_bytes(content)
    assert drift(debian)[0] == f"{path} was not written by this collection"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_place_of_the_rules_is_drift_and_refused(
    debian: Board, make: Callable[[Path], None]
) -> None:
    on_disk(debian, RULES).unlink()
    make(on_disk(debian, RULES))
    first, *others = drift(debian)
    assert f"{RULES} is a " in first
    assert first.endswith("but must be a regular file. Remove it")
    assert len(others) == 3
    with pytest.raises(PolicyError, match=f"Cannot read {RULES}"):
        debian.apply([CRYPTO], **SETTINGS)
