# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded reads can be repeated; any other call of a gateway makes the record incomplete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from board import Board

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host, open_host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.reads import (
    READS,
    Read,
    digest_again,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.recorded_reads import Record
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    Sysfs,
)

# Methods that change the host, or prepare a change.
ACTS = {
    "sysfs": {"close", "is_claimed", "path", "write"},
    "files": {"clear", "set_node_access", "obstacle", "set_symlink", "stage", "write_atomic"},
}
CRYPTO = Identity("platform", "b000000.crypto")
NOTHING = State()
Change = Callable[[Path], object]


def recording(record: Record, **gateways: Any) -> Host:
    """Return a host with these gateways whose reads are recorded."""
    return record.host(open_host(timeout=5)._replace(**gateways))


def again(record: Record, sysfs: Sysfs, files: Files) -> str | None:
    """Return the digest of the current answers to reads that another process recorded."""
    reads = [Read(*read) for read in json.loads(json.dumps(record.reads))]
    return digest_again(sysfs, files, reads)


@pytest.mark.parametrize(("label", "kind"), [("sysfs", Sysfs), ("files", Files)])
def test_each_method_of_a_gateway_is_known_to_read_or_to_act(label: str, kind: type) -> None:
    methods = {name for name in dir(kind) if not name.startswith("_") and name != "root"}
    assert READS[label] | ACTS[label] == methods
    assert not READS[label] & ACTS[label]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "etc/a").write_text("other"),
        lambda root: (root / "etc/a").unlink(),
        lambda root: (root / "etc/new").write_text(""),
        lambda root: (root / "etc/a").chmod(0o600),
        lambda root: (root / "etc").chmod(0o777),
        lambda root: os.utime(root / "etc/a", (1, 1)),
        lambda root: (root / "etc/link").unlink(),
        lambda root: (root / "etc/program").chmod(0o644),
    ],
)
def test_any_change_of_what_was_read_gives_another_digest(tmp_path: Path, change: Change) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a").write_text("content")
    (tmp_path / "etc/link").symlink_to("a")
    (tmp_path / "etc/program").write_text("#!/bin/sh")
    (tmp_path / "etc/program").chmod(0o755)
    record, files = Record(), Files(str(tmp_path))
    recorded = recording(record, files=files).files
    assert recorded.read("/etc/a") == "content"
    assert recorded.read("/etc/missing") is None
    assert recorded.drop_in_files(["/etc", "/lib"], "", "/etc/own") == [
        "/etc/a",
        "/etc/link",
        "/etc/program",
    ]
    assert recorded.links("/etc")["/etc/link"] == "a"
    assert recorded.is_executable("/etc/program")
    recorded.status("/etc/a")
    recorded.changed_at("/etc/a")
    recorded.directories_above("/etc/a")
    assert record.is_complete
    assert again(record, Sysfs(), files) == record.digest
    change(tmp_path)
    assert again(record, Sysfs(), files) != record.digest


def test_names_of_any_bytes_and_sets_are_the_same_in_another_process(tmp_path: Path) -> None:
    names = [b"\xff", b"\xed\xb2\x80", *(b"%d" % number for number in range(50))]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    record, sysfs = Record(), Sysfs(str(tmp_path))
    recorded = recording(record, sysfs=sysfs).sysfs
    assert len(recorded.listing("").others) == len(names)
    assert [recorded.read_bytes(name) for name in recorded.names("")] == sorted(names)
    assert again(record, Sysfs(str(tmp_path)), Files()) == record.digest


@pytest.mark.parametrize(
    "act",
    [
        lambda record, board: record.host(board.host).sysfs.write(
            "devices/platform/b000000.crypto/driver_override", "x"
        ),
        lambda record, board: record.host(board.host).files.write_atomic("/etc/x", "x"),
        lambda record, board: record.host(board.host).files.stage("/etc/x", "x").discard(),
        lambda record, board: record.host(board.host).files.obstacle("/etc/x"),
        lambda record, board: record.host(board.host).files.set_node_access(
            "/dev/x", NodeAccess(None, None)
        ),
        lambda record, board: record.unrecorded(board.kmod).is_available("acme"),
        lambda record, board: record.unrecorded(board.usage).since(CRYPTO, NOTHING, ()),
        lambda record, board: record.unrecorded(board.host.log).begin(),
        lambda record, board: record.unrecorded(board.usage).configured,
    ],
)
def test_whatever_is_not_read_through_the_two_gateways_ends_a_record(
    board: Board, act: Callable[[Record, Board], Any]
) -> None:
    record = Record()
    record.host(board.host).sysfs.names("devices")
    assert record.is_complete
    act(record, board)
    assert not record.is_complete


def test_a_read_that_was_refused_ends_a_record(tmp_path: Path) -> None:
    record = Record()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PolicyError, match="FIFO"):
        recording(record, files=Files(str(tmp_path))).files.read("/fifo")
    assert not record.is_complete


def test_a_read_with_two_answers_ends_a_record(tmp_path: Path) -> None:
    record = Record()
    files = recording(record, files=Files(str(tmp_path))).files
    assert [files.read("/file"), files.read("/file")] == [None, None]
    assert record.is_complete
    assert len(record.reads) == 1
    (tmp_path / "file").touch()
    files.read("/file")
    assert not record.is_complete


def test_a_kernel_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "bind").touch()
    os.mkfifo(tmp_path / "driver_override")
    sysfs = Sysfs(str(tmp_path), timeout=0.2)
    with pytest.raises(KernelBlockedError, match=r"within 0\.2 s"):
        digest_again(sysfs, Files(), [Read("sysfs", "read_locked", [["driver_override"]])])
    os.close(os.open(tmp_path / "driver_override", os.O_RDWR))


def test_a_read_that_is_refused_today_has_no_digest(tmp_path: Path) -> None:
    record, files = Record(), Files(str(tmp_path))
    (tmp_path / "file").touch()
    recording(record, files=files).files.read("/file")
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    assert again(record, Sysfs(), files) is None


@pytest.mark.parametrize(
    "read",
    [
        Read("sysfs", "write", ["devices/platform/b000000.crypto/driver_override", "x"]),
        Read("files", "write_atomic", ["/etc/x", "x"]),
        Read("files", "__init__", ["/"]),
        Read("kmod", "load", ["evil"]),
    ],
)
def test_nothing_but_reads_is_asked_again(board: Board, read: Read) -> None:
    before = board.everything()
    with pytest.raises(ValueError, match=r"^$"):
        digest_again(board.kernel, board.host.files, [Read("sysfs", "names", [""]), read])
    assert board.everything() == before


def test_what_is_no_method_is_as_it_was(tmp_path: Path) -> None:
    record = Record()
    assert recording(record, sysfs=Sysfs(str(tmp_path))).sysfs.root == str(tmp_path)
    assert record.is_complete
