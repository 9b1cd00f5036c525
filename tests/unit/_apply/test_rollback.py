"""A run is atomic: after any failure, /sys and the files are as before."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from board import AMBA, CRYPTO, DMA, LIST, Board, acme_board
from simulated_kernel import BLOCK, NOIOMMU

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_writes import StagedFile
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

ERRNOS = (errno.EINVAL, errno.ENODEV, errno.EIO)
UNIT = "bus/platform/drivers/%s/%s"


def from_nothing(_board: Board) -> None:
    """Leave the board without a list and without loaded vfio modules."""


def with_vfio_loaded(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kmod.load("vfio-amba")


def after_the_list(board: Board) -> None:
    board.apply(LIST, reset_required=False)


def after_a_list_with_resets_and_noiommu(board: Board) -> None:
    board.kernel.reset_functions.add("acme,crypto-v1", "acme,dma")
    board.apply([CRYPTO, dict(DMA, policy="vfio")], reset_required=True, unsafe_noiommu=True)


CASES: list[tuple[Callable[[Board], None], Sequence[dict[str, Any]], dict[str, Any]]] = [
    (from_nothing, LIST, {"reset_required": False}),
    (with_vfio_loaded, LIST, {"reset_required": False}),
    (after_the_list, [], {}),
    (after_the_list, [dict(CRYPTO, policy="no_autobind"), *LIST[1:3]], {}),
    (
        after_the_list,
        [dict(DMA, policy="vfio"), AMBA],
        {"reset_required": False, "unsafe_noiommu": True},
    ),
    (after_a_list_with_resets_and_noiommu, [CRYPTO, DMA, AMBA], {"reset_required": False}),
    (after_a_list_with_resets_and_noiommu, [CRYPTO, DMA, AMBA], {"unsafe_noiommu": False}),
]


def without_counters(board: Board) -> dict[str, tuple[str, str, int]]:
    """Return the state without the numbers that the kernel assigns at each bind."""
    return {
        key: value
        for key, value in board.everything().items()
        if "/vfio-dev/" not in key and "/dev/vfio/" not in key
    }


def prepared(root: Path, prepare: Callable[[Board], None]) -> Board:
    root.mkdir()
    board = acme_board(root, groups_at_boot=True)
    prepare(board)
    board.kernel.writes.clear()
    board.kmod.calls.clear()
    return board


def assert_put_back(
    board: Board, entries: Sequence[dict[str, Any]], settings: dict[str, Any], what: str
) -> str:
    before = without_counters(board)
    with pytest.raises(PolicyError) as caught:
        board.apply(entries, **settings)
    assert "Nothing was changed: all changes of this run were rolled back" in str(caught.value), (
        what
    )
    after = without_counters(board)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert not changed, what
    return str(caught.value)


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("code", ERRNOS, ids=lambda code: errno.errorcode[code])
def test_whichever_write_fails_everything_is_as_it_was(
    tmp_path: Path, case: int, code: int
) -> None:
    prepare, entries, settings = CASES[case]
    rehearsal = prepared(tmp_path / "rehearsal", prepare)
    rehearsal.apply(entries, **settings)
    writes = list(rehearsal.kernel.writes)
    assert len(writes) >= 3
    board = prepared(tmp_path / "board", prepare)
    for number, (path, text) in enumerate(writes, start=1):
        if path.endswith("drivers_probe") and code == errno.EINVAL:
            continue
        board.kernel.answer(number, code)
        assert_put_back(board, entries, settings, f"write {number}: {text!r} to {path}")
    board.apply(entries, **settings)
    assert without_counters(board) == without_counters(rehearsal)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_whichever_module_cannot_be_loaded_everything_is_as_it_was(
    tmp_path: Path, case: int
) -> None:
    prepare, entries, settings = CASES[case]
    rehearsal = prepared(tmp_path / "rehearsal", prepare)
    rehearsal.apply(entries, **settings)
    board = prepared(tmp_path / "board", prepare)
    for call in rehearsal.kmod.calls:
        board.kmod.failing.append(call)
        assert_put_back(board, entries, settings, call)


@pytest.mark.parametrize("path", [RULES, MODPROBE, MODULES_LOAD])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_if_a_file_cannot_be_written_everything_is_as_it_was(
    tmp_path: Path, case: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, entries, settings = CASES[case]
    rehearsal = prepared(tmp_path / "rehearsal", prepare)
    before = rehearsal.file(path)
    rehearsal.apply(entries, **settings)
    wanted = rehearsal.file(path)
    if wanted == before:
        pytest.skip("this list does not change the file")
    board = prepared(tmp_path / "board", prepare)
    commit = StagedFile.commit
    was_refused = False

    def fail(staged: StagedFile) -> None:
        nonlocal was_refused
        if staged.path == path and not was_refused:
            was_refused = True
            raise PolicyError(f"Cannot write {path}: No space left on device")
        commit(staged)

    monkeypatch.setattr(StagedFile, "commit", fail)
    assert "No space left" in assert_put_back(board, entries, settings, path)


def test_a_device_that_did_not_come_to_its_driver_is_put_back_with_all_others(
    grouped_board: Board,
) -> None:
    board = grouped_board
    with_vfio_loaded(board)
    kernel = board.kernel

    def steal() -> None:
        kernel.put("devices/platform/b008000.blob/driver_override", "other\n")

    kernel.answer(UNIT.replace("platform", "amba", 1) % ("acme-blob", "unbind"), steal)
    assert_put_back(board, LIST, {"reset_required": False}, "another tool's override")


def test_what_cannot_be_put_back_is_named(board: Board) -> None:
    with_vfio_loaded(board)
    kernel = board.kernel
    kernel.answer(UNIT % ("vfio-platform", "bind"), errno.EIO)
    for _attempt in range(2):
        kernel.answer((UNIT % ("acme-crypto", "bind"), "b000000.crypto"), errno.ENODEV)
    with pytest.raises(PolicyError) as caught:
        board.apply([DMA, CRYPTO], reset_required=False)
    message = str(caught.value)
    assert "EIO" in message
    assert "Not everything could be rolled back" in message
    assert "/soc/crypto@b000000 (platform device b000000.crypto)" in message.splitlines()[-1]
    assert "b002000.dma" not in message.splitlines()[-1]
    assert kernel.binding("b002000.dma") == ("acme-dma", None)
    assert kernel.binding("b000000.crypto") == (None, None)
    assert board.file(RULES) is None


@pytest.mark.parametrize(
    "path",
    [
        "bus/platform/devices/b000000.crypto/driver_override",
        UNIT % ("acme-crypto", "unbind"),
        UNIT % ("vfio-platform", "bind"),
    ],
)
def test_a_device_whose_write_hangs_is_left_and_all_others_are_put_back(
    board: Board, path: str
) -> None:
    with_vfio_loaded(board)
    board.kernel.writes.clear()
    board.kernel.answer(path, BLOCK)
    with pytest.raises(PolicyError) as caught:
        board.apply([DMA, AMBA, CRYPTO], reset_required=False)
    message = str(caught.value)
    assert "did not answer within 30 s" in message
    assert "/soc/crypto@b000000 (platform device b000000.crypto): cannot" in message
    assert "it was bound to acme-crypto with driver_override unset" in message
    assert board.kernel.binding("b002000.dma") == ("acme-dma", None)
    assert board.kernel.binding("b008000.blob") == ("acme-blob", None)
    assert board.file(RULES) is None
    hung = next(
        number for number, (written, _text) in enumerate(board.kernel.writes) if written == path
    )
    later = [
        written + text
        for written, text in board.kernel.writes[hung + 1 :]
        if "b000000.crypto" in written + text
    ]
    assert not later


def test_a_device_that_hangs_before_we_come_is_not_touched(board: Board) -> None:
    board.kernel.hung.add("b000000.crypto")
    assert "did not answer" in board.refusal([DMA, CRYPTO], reset_required=False)


def test_a_module_that_this_run_loaded_goes_again(grouped_board: Board) -> None:
    grouped_board.kernel.answer(("bus/amba/drivers/vfio-amba/bind", "b008000.blob"), errno.EIO)
    assert_put_back(grouped_board, LIST, {"reset_required": False}, "the module")
    assert not grouped_board.kmod.is_loaded("vfio_platform")
    assert not grouped_board.kmod.is_loaded("vfio")


def test_noiommu_that_was_on_is_on_again_after_a_failed_reload(tmp_path: Path) -> None:
    board = prepared(tmp_path / "board", after_a_list_with_resets_and_noiommu)
    board.kmod.failing.append("load vfio_platform reset_required=N")
    assert_put_back(board, [CRYPTO, DMA, AMBA], {"reset_required": False}, "the reload")
    assert board.kernel.read(NOIOMMU) == "Y"


def test_access_to_nodes_is_put_back(grouped_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board = grouped_board
    board.apply([CRYPTO, AMBA], reset_required=False)
    before = board.everything()
    give = Files.set_node_access

    def fail(files: Files, path: str, access: NodeAccess) -> None:
        if path == "/dev/vfio/4" and access.mode == "0660":
            raise PolicyError(f"Cannot set group and mode of {path}: Operation not permitted")
        give(files, path, access)

    monkeypatch.setattr(Files, "set_node_access", fail)
    with pytest.raises(PolicyError, match="Nothing was changed"):
        board.apply([CRYPTO, AMBA], reset_required=False, access=NodeAccess(None, "0660"))
    assert board.everything() == before


def test_an_interrupt_puts_back_too(grouped_board: Board) -> None:
    before = without_counters(grouped_board)

    def interrupt() -> None:
        raise KeyboardInterrupt

    grouped_board.kernel.answer(3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        grouped_board.apply(LIST, reset_required=False)
    assert without_counters(grouped_board) == before
