# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An entry that matched a device when its list was applied is missed when it matches none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, Board, acme_board
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_kernel import TREE

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MARK,
    RULES,
    parse_header,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.matched_devices import (
    MatchedDevice,
    matched_device,
    matched_devices,
    to_lines,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

CRYPTO_BEFORE = '# matched: {"name": "platform/b000000.crypto", "path": "/soc/crypto@b000000", '
DMA_BEFORE = (
    '# matched: {"name": "platform/b002000.dma", "path": "/soc/dma@b002000", "ids": ["acme,dma"]}'
)
NO_RESET = {"reset_required": False}


def lost(board: Board) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = device_info.inspections(board.inspect(None))["lost_entries"]
    return entries


def after_upgrade(board: Board, root: Path, change: Callable[[Board], object]) -> Board:
    """Return the machine after a boot at which firmware or kernel changed its devices."""
    again = acme_board(root)
    change(again)
    again.write_file(RULES, board.file(RULES) or "")
    return again


def drop(board: Board, name: str) -> None:
    board.kernel.machine.kernel.remove_device(board.kernel.device(name))


def move(board: Board) -> None:
    """Give a device the path that a newer device tree has."""
    drop(board, "b000000.crypto")
    both = ("acme,crypto-v1", "acme,crypto")
    board.kernel.add_device("b000000.crypto", "/soc@0/crypto@b000000", both, iommus=True)


def replace(board: Board) -> None:
    """Give both devices another compatible."""
    for name in ("b000000.crypto", "b001000.crypto"):
        drop(board, name)
        path = "/soc/crypto@" + name.partition(".")[0]
        board.kernel.add_device(name, path, ("acme,crypto-ng",), iommus=True)


def rename(board: Board) -> None:
    """Give a device the name of a newer kernel, and leave its node."""
    drop(board, "b002000.dma")
    board.kernel.add_device("soc:dma", "/soc/dma@b002000", ("acme,dma",))


def test_the_header_has_what_each_entry_matched(board: Board) -> None:
    board.apply([CRYPTO, {**DMA, "name": "gone", "required": False}, DMA], **NO_RESET)
    lines = (board.file(RULES) or "").splitlines()
    assert lines[2:7] == [
        '# policy: {"dt_path": "/soc/crypto@b000000", "policy": "vfio"}',
        CRYPTO_BEFORE + '"ids": ["acme,crypto-v1", "acme,crypto"]}',
        '# policy: {"name": "gone", "required": false, "policy": "no_autobind"}',
        '# policy: {"name": "b002000.dma", "policy": "no_autobind"}',
        DMA_BEFORE,
    ]
    assert not lost(board)


def test_a_path_that_stops_matching_is_missed_and_its_device_named(
    board: Board, tmp_path: Path
) -> None:
    board.apply([CRYPTO, DMA], **NO_RESET)
    again = after_upgrade(board, tmp_path / "again", move)
    (entry,) = lost(again)
    assert entry == {
        "entry": CRYPTO,
        "former": ["/soc/crypto@b000000"],
        "now": ["/soc@0/crypto@b000000", "/soc/crypto@b001000"],
        "message": (
            "dt_path '/soc/crypto@b000000' matches no device now, but matched /soc/crypto@b000000 "
            "when the list was applied: now /soc@0/crypto@b000000 (platform device "
            "b000000.crypto) has the compatible acme,crypto-v1 and the address b000000, "
            "/soc/crypto@b001000 (platform device b001000.crypto) has the compatible "
            "acme,crypto-v1. The kernel or the firmware may have changed. Correct the entry, and "
            "apply the list again"
        ),
    }
    corrected = {**CRYPTO, "dt_path": "/soc@0/crypto@b000000"}
    again.apply([corrected, DMA], **NO_RESET)
    assert not lost(again)


def test_a_compatible_that_stops_matching_is_missed_and_who_has_the_addresses(
    board: Board, tmp_path: Path
) -> None:
    board.apply([{"compatible": "acme,crypto", "policy": "vfio"}], **NO_RESET)
    again = after_upgrade(board, tmp_path / "again", replace)
    (entry,) = lost(again)
    assert entry["former"] == entry["now"] == ["/soc/crypto@b000000", "/soc/crypto@b001000"]
    assert "has the address b000000, " in entry["message"]


def test_a_name_that_stops_matching_is_missed(board: Board, tmp_path: Path) -> None:
    board.apply([DMA])
    (entry,) = lost(after_upgrade(board, tmp_path / "again", rename))
    assert entry["now"][0] == "/soc/dma@b002000"
    assert "has the compatible acme,dma and the address b002000" in entry["message"]


def test_an_alias_that_is_gone_is_missed(board: Board, tmp_path: Path) -> None:
    board.apply([{"dt_path": "crypto0", "policy": "no_autobind"}])
    again = after_upgrade(
        board, tmp_path / "again", lambda new: new.kernel.remove(f"{TREE}/aliases/crypto0")
    )
    (entry,) = lost(again)
    assert entry["message"].startswith("dt_path 'crypto0' matches no device now, but matched /soc/")


def test_a_device_of_which_nothing_is_left_has_no_successor(board: Board, tmp_path: Path) -> None:
    board.kernel.add_device("only", "/soc/only", ("acme,only",))
    board.apply([{"name": "only", "policy": "no_autobind"}])
    (entry,) = lost(after_upgrade(board, tmp_path / "again", lambda _board: None))
    assert entry["now"] == []
    assert "now no device has its compatible, id or address" in entry["message"]


def test_a_card_that_moved_and_one_that_was_replaced_are_named(
    board: Board, tmp_path: Path
) -> None:
    board.kernel.add_functions("0000:00:01.0 8086:10d3 020000", "0000:00:02.0 1b36:0010 010802")
    board.apply(
        [
            {"pci_address": "0000:00:01.0", "pci_id": "8086:10d3", "policy": "no_autobind"},
            {"pci_id": "1b36:0010", "policy": "no_autobind"},
        ]
    )
    again = after_upgrade(
        board,
        tmp_path / "again",
        lambda new: new.kernel.add_functions(
            "0000:00:02.0 8086:100e 020000", "0000:00:03.0 8086:10d3 020000"
        ),
    )
    moved, replaced = lost(again)
    assert moved["now"] == ["pci/0000:00:03.0"]
    assert replaced["now"] == ["pci/0000:00:02.0"]
    assert "has the id 8086:10d3:" in moved["message"]
    assert "has the address 0000:00:02.0" in replaced["message"]


def test_devices_of_acpi_are_known_by_their_id(board: Board, tmp_path: Path) -> None:
    board.kernel.add_device("ACME0001:00", acpi=("\\_SB_.RNG0", "ACME0001"))
    board.apply([{"acpi_path": "\\_SB_.RNG0", "policy": "no_autobind"}])
    again = after_upgrade(
        board,
        tmp_path / "again",
        lambda new: new.kernel.add_device("ACME0001:00", acpi=("\\_SB_.RNGA", "ACME0001")),
    )
    (entry,) = lost(again)
    assert entry["now"] == ["\\_SB_.RNGA"]
    assert "has the id ACME0001" in entry["message"]


def test_fewer_devices_than_before_and_an_entry_that_never_matched_are_not_missed(
    board: Board, tmp_path: Path
) -> None:
    entries = [
        {"compatible": "acme,crypto", "policy": "no_autobind"},
        {"compatible": "acme,gone", "policy": "no_autobind", "required": False},
    ]
    board.apply(entries)
    again = after_upgrade(board, tmp_path / "again", lambda new: drop(new, "b000000.crypto"))
    assert not lost(again)


def test_a_list_that_was_applied_again_does_not_miss_what_it_does_not_require(
    board: Board, tmp_path: Path
) -> None:
    entries = [dict(CRYPTO, required=False), DMA]
    board.apply(entries, **NO_RESET)
    for option in ({}, {"runtime": False}):
        again = after_upgrade(board, tmp_path / str(len(option)), move)
        assert lost(again)
        assert again.apply(entries, **NO_RESET, **option).is_changed
        assert not lost(again)


def test_a_header_of_an_earlier_version_is_taken_and_completed_once(board: Board) -> None:
    board.apply([CRYPTO, DMA], **NO_RESET)
    rules = board.file(RULES) or ""
    lines = [line for line in rules.splitlines(keepends=True) if not line.startswith("# matched:")]
    board.write_file(RULES, "".join(lines))
    answer = device_info.inspections(board.inspect(None))
    assert [file["drift"] for file in answer["boot_files"]] == [[]] * len(answer["boot_files"])
    assert answer["lost_entries"] == []
    board.kernel.writes.clear()
    assert board.apply([CRYPTO, DMA], **NO_RESET).is_changed
    assert not board.kernel.writes
    assert board.file(RULES) == rules
    assert not board.apply([CRYPTO, DMA], **NO_RESET).is_changed


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        "{}",
        '{"name": 1}',
        '{"name": "a", "path": 1}',
        '{"name": "a", "path": null, "ids": "x"}',
        '{"name": "a", "ids": [1]}',
        '{"name": "a", "else": "b"}',
        "[" * 100000,
    ],
)
def test_a_damaged_line_is_named_and_not_believed(damaged: str) -> None:
    entry = '# policy: {"name": "a", "policy": "default"}'
    with pytest.raises(PolicyError, match=r"The header of .* cannot be parsed"):
        parse_header(f"{MARK}\n{entry}\n# matched: {damaged}\n")
    assert not parse_header(f"{MARK}\n# matched: {damaged}\n{entry}\n").matched


NAMES = st.text(max_size=1000)


@given(NAMES, st.none() | NAMES, st.lists(NAMES, max_size=20))
@settings(max_examples=100)
def test_what_is_recorded_of_a_device_is_read_again_and_short_enough_for_udev(
    name: str, path: str | None, compatible: list[str]
) -> None:
    device = Identity("platform", name, path, tuple(compatible))
    entry = '# policy: {"name": "a", "policy": "default"}'
    (line,) = to_lines([matched_device(device)])
    assert len(line) < 16000
    assert line.isascii()
    assert line.isprintable()
    read = parse_header(f"{MARK}\n{entry}\n{line}\n").matched
    assert read == [[matched_device(device)]]


def test_of_many_devices_the_first_are_recorded() -> None:
    devices = [Identity("platform", str(number)) for number in range(1000)]
    recorded = matched_devices(devices)
    assert recorded[0] == MatchedDevice("platform/0")
    assert len(recorded) == 32
    assert json.loads(to_lines(recorded)[1].partition(": ")[2]) == {"name": "platform/1"}
