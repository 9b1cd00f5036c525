"""device_info without root privileges returns null for unknown values, and reports them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.in_sync import BootFile
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Findings,
)

CONSOLE, DISK, LINE, ETHERNET = ("b001000.crypto", "b002000.dma", "b003000.dma", "b000000.crypto")
NUMBER = "254:0"


@pytest.fixture
def carrying(board: Board) -> Board:
    """A board with a console, a disk, another serial line and an interface that is up."""
    homes = {name: f"devices/platform/{name}" for name in (CONSOLE, DISK, LINE, ETHERNET)}
    board.kernel.put("class/tty/console/active", "ttyAMA0\n")
    board.kernel.put(f"{homes[CONSOLE]}/tty/ttyAMA0/dev", "204:64\n")
    board.kernel.put(f"{homes[LINE]}/tty/ttyS1/dev", "4:65\n")
    board.kernel.put(f"{homes[DISK]}/virtio0/block/vda/dev", NUMBER + "\n")
    board.kernel.put(f"{homes[ETHERNET]}/net/eth0/flags", "0x1003\n")
    return board


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def carried(findings: Findings) -> dict[str, Any]:
    return {
        device["name"]: device["in_use_by"] and [hazard["kind"] for hazard in device["in_use_by"]]
        for device in device_info.inspections(findings)["devices"]
    }


def test_root_knows_what_each_device_carries(carrying: Board) -> None:
    findings = carrying.inspect(None)
    assert None not in carried(findings).values()
    assert device_info.unknown(findings) == []


@pytest.mark.usefixtures("as_user")
def test_what_open_files_of_others_tell_is_null_and_what_sys_tells_is_not(carrying: Board) -> None:
    findings = carrying.inspect(None)
    kinds = carried(findings)
    assert {name: kinds[name] for name in (CONSOLE, DISK, LINE, ETHERNET)} == {
        CONSOLE: ["console"],
        DISK: None,
        LINE: None,
        ETHERNET: ["network"],
    }
    assert [name for name, kind in kinds.items() if kind is None] == [DISK, LINE]
    (sentence,) = device_info.unknown(findings)
    assert sentence.startswith(f"{DISK}, {LINE}: whether a process of another user")
    assert "the module does not run as root" in sentence
    assert "Set `become: true` to read open files and mounts of all processes" in sentence


@pytest.mark.usefixtures("as_user")
def test_what_is_known_in_part_is_shown_and_named(carrying: Board) -> None:
    carrying.mount(NUMBER, "/data")
    carrying.process(1, "getty", "/dev/ttyS1")
    home = f"devices/platform/{DISK}/virtio1/block/vdb"
    carrying.kernel.put(f"{home}/dev", "254:16\n")
    findings = carrying.inspect(None)
    kinds = carried(findings)
    assert kinds[DISK] == ["storage"]
    assert kinds[LINE] == ["console"]
    (sentence,) = device_info.unknown(findings)
    assert sentence.startswith(f"{DISK}: ")


@pytest.mark.usefixtures("as_user")
def test_of_a_device_on_vfio_it_is_not_known_whether_it_is_open(carrying: Board) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 0)
        carrying.apply([CRYPTO], reset_required=False, allow=["network"])
    assert carried(carrying.inspect(None))[ETHERNET] is not None
    carrying.kernel.put("devices/platform/b000000.crypto/net/eth0/flags", "0x1002\n")
    assert carried(carrying.inspect(None))[ETHERNET] is None


def test_a_root_that_may_not_look_at_processes_does_not_know_either(
    carrying: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrying.process(1, "init", "/dev/ttyS1")
    listdir = os.listdir

    def refused(path: Any) -> list[str]:
        if str(path).endswith("/fd"):
            raise PermissionError
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refused)
    findings = carrying.inspect(None)
    assert carried(findings)[LINE] is None
    (sentence,) = device_info.unknown(findings)
    assert "(CAP_SYS_PTRACE)" in sentence


def test_of_many_devices_ten_are_named(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        name = f"c{number:02}.uart"
        board.kernel.add_device(name, f"/soc/uart@{number}", ("acme,dma",))
        board.kernel.put(f"devices/platform/{name}/tty/ttyS{number}/dev", "4:65\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (sentence,) = device_info.unknown(board.inspect(None))
    assert sentence.startswith("c00.uart, c01.uart, ")
    assert "c09.uart and 2 more: whether" in sentence


def test_a_boot_file_that_cannot_be_read_is_named() -> None:
    files = [
        BootFile(last_applied.MODPROBE, is_present=True, drift=None),
        BootFile(last_applied.RULES, is_present=True, drift=[]),
    ]
    (sentence,) = device_info.unknown(Findings([], [], boot_files=files))
    assert sentence.startswith(f"{last_applied.MODPROBE} cannot be read by this user")
