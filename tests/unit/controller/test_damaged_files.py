# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each way to damage each file of ours is drift, or a note, with a reason that names the file."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import initramfs
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    PREVIOUS,
    RULES,
    WAITS_FOR_BOOT,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import host_state
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState
from tests.unit._boot.test_initramfs import SETTINGS, TOOLS, host

BOOT_FILES = {
    RULES: "initramfs-tools",
    MODPROBE: "initramfs-tools",
    MODULES_LOAD: "initramfs-tools",
    **{tool.path: tool.name for tool in initramfs.TOOLS},
}
NOBODY = 65534


def _edit(path: Path) -> None:
    path.write_text(path.read_text().rstrip("\n") + " # edited\n")


def _edit_header(path: Path) -> None:
    path.write_text(path.read_text().replace("# policy: {", "# policy: {{"))


def _empty(path: Path) -> None:
    path.write_text("")


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def _foreign(path: Path) -> None:
    path.write_bytes(b"\xff\0mine\n")


def _move_behind_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    # The path of a socket is short.
    home = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(home)


def _device_node(path: Path) -> None:
    path.unlink()
    # A watchdog, which would start if it were opened.
    os.mknod(path, 0o20644, os.makedev(10, 130))


def _other_owner(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


Damage = Callable[[Path], None]
IS_NOT_A_FILE = "but must be a regular file"
DAMAGES: dict[Damage, str] = {
    Path.unlink: "does not exist",
    _edit: "differs from the last-applied configuration from line",
    _empty: "is empty",
    _truncate: "differs from the last-applied configuration from line",
    _foreign: "was not written by this collection",
    lambda path: path.chmod(0o666): "mode 0666, but must be",
    lambda path: path.chmod(0): "mode 0000, but must be",
    _move_behind_link: f"is a symbolic link to moved, {IS_NOT_A_FILE}",
    _circle: IS_NOT_A_FILE,
    _directory: f"is a directory, {IS_NOT_A_FILE}. Remove it",
    _fifo: f"is a FIFO, {IS_NOT_A_FILE}. Remove it",
    _socket: f"is a socket, {IS_NOT_A_FILE}. Remove it",
}
BY_ROOT: dict[Damage, str] = {
    _other_owner: "mode 0644, but must be root:root",
    _device_node: f"is a device node, {IS_NOT_A_FILE}. Remove it",
}
if os.geteuid() == 0:
    DAMAGES |= BY_ROOT


def state_of(board: Board) -> HostState:
    findings = board.inspect(None)
    # As device_info returns it.
    result = {
        **device_info.inspections(findings),
        "warnings": device_info.unknown(findings),
    }
    return host_state("board", result)


def on_disk(board: Board, path: str) -> Path:
    return board.files_root / path[1:]


def managed(root: Path, tool: str = "initramfs-tools", **request: Any) -> Board:
    """Return a board with a list, on which only what a test damages differs."""
    board = host(root, *TOOLS[tool])
    modules = on_disk(board, f"/lib/modules/{os.uname().release}")
    for line in (modules / "modules.dep").read_text().splitlines():
        for name in line.replace(":", "").split():
            (modules / name).parent.mkdir(parents=True, exist_ok=True)
            (modules / name).touch()
    board.apply([CRYPTO], **{**SETTINGS, **request})
    expected = "in_sync" if request.get("runtime", True) else "reboot_required"
    assert state_of(board)["state"] == expected, state_of(board)
    return board


@pytest.mark.parametrize("path", BOOT_FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_boot_file_is_drift_that_names_it(
    tmp_path: Path, path: str, damage: Damage
) -> None:
    board = managed(tmp_path, BOOT_FILES[path])
    damage(on_disk(board, path))
    state = state_of(board)
    assert state["state"] == "drift"
    assert state["message"].startswith(path)
    assert (
        DAMAGES[damage].replace("0644", "0755" if is_script(path) else "0644") in (state["message"])
    )


def is_script(path: str) -> bool:
    return path == initramfs.InitramfsTools.path


def test_a_header_that_cannot_be_parsed_is_drift(tmp_path: Path) -> None:
    board = managed(tmp_path)
    _edit_header(on_disk(board, RULES))
    state = state_of(board)
    assert state["state"] == "drift"
    assert state["message"].startswith(f"The header of {RULES} cannot be parsed")


DAMAGES_OF_RECORDS: dict[Damage, str] = {
    _directory: "is a directory",
    _fifo: "is a FIFO",
    _socket: "is a socket",
    _move_behind_link: "is a symbolic link",
    lambda path: path.chmod(0o666): "mode 0666",
}
DAMAGES_BY_ROOT: dict[Damage, str] = {
    _other_owner: "mode 0644",
    _device_node: "is a device node",
}
if os.geteuid() == 0:
    DAMAGES_OF_RECORDS |= DAMAGES_BY_ROOT
DAMAGES_OF_CONTENT: dict[Damage, str] = {
    _empty: "cannot be parsed",
    _truncate: "cannot be parsed",
    _foreign: "cannot be parsed",
}


@pytest.mark.parametrize("damage", {**DAMAGES_OF_RECORDS, **DAMAGES_OF_CONTENT})
def test_a_damaged_history_is_a_note(tmp_path: Path, damage: Damage) -> None:
    board = managed(tmp_path, rollout="first")
    damage(on_disk(board, PREVIOUS))
    state = state_of(board)
    assert state["state"] == "in_sync"
    (note,) = state["notes"]
    assert note.startswith("Its history cannot be read: ")
    assert PREVIOUS in note
    assert {**DAMAGES_OF_RECORDS, **DAMAGES_OF_CONTENT}[damage] in note
    assert note[:100] in state["message"]


@pytest.mark.parametrize("damage", DAMAGES_OF_RECORDS)
def test_a_damaged_record_of_a_reboot_is_drift(tmp_path: Path, damage: Damage) -> None:
    board = managed(tmp_path, runtime=False)
    damage(on_disk(board, WAITS_FOR_BOOT))
    state = state_of(board)
    assert state["state"] == "drift"
    assert WAITS_FOR_BOOT in state["message"]
    assert DAMAGES_OF_RECORDS[damage] in state["message"]


@pytest.mark.parametrize("damage", DAMAGES_OF_RECORDS)
def test_a_damaged_record_of_old_images_is_no_reason_to_fail(
    tmp_path: Path, damage: Damage
) -> None:
    board = managed(tmp_path)
    path = on_disk(board, initramfs.OUTDATED)
    assert path.exists()
    damage(path)
    assert state_of(board)["state"] == "in_sync"


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"reset_required": False}, "vfio_platform/parameters/reset_required", "Y"),
        ({"unsafe_noiommu": False}, "vfio/parameters/enable_unsafe_noiommu_mode", "Y"),
        ({"unsafe_noiommu": True}, "vfio/parameters/enable_unsafe_noiommu_mode", "N"),
        (
            {"unsafe_interrupts": True},
            "vfio_iommu_type1/parameters/allow_unsafe_interrupts",
            "N",
        ),
    ],
)
def test_a_module_parameter_that_somebody_changed_is_drift(
    tmp_path: Path, settings: dict[str, bool], name: str, value: str
) -> None:
    board = managed(tmp_path, **settings)
    board.kernel.put(f"module/{name}", value + "\n")
    state = state_of(board)
    assert state["state"] == "drift"
    parameter = name.replace("/parameters/", ".")
    other = "Y" if value == "N" else "N"
    assert f"parameter {parameter} is {value}" in state["message"]
    assert f"requires {other}" in state["message"]
    # What is not in the list is not compared.
    assert not any(device["drift"] for device in state["devices"] if device["desired"] is None)


def test_all_of_our_files_removed_is_an_unmanaged_host(tmp_path: Path) -> None:
    board = managed(tmp_path)
    for path in (*BOOT_FILES, PREVIOUS):
        on_disk(board, path).unlink(missing_ok=True)
    shutil.rmtree(on_disk(board, "/var/lib/armfleet-vfio"))
    # The devices are still bound to VFIO, which does not persist.
    assert state_of(board)["state"] == "drift"
