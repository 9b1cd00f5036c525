# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The next run rolls back a killed one, except what is in use or was changed since."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest
from board import CRYPTO, LIST, Board
from killing import KilledError, close_staged_files, die
from simulated_kernel import BLOCK

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import Outcome
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.transaction import Transaction
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_writes import StagedFile

NAME = "b000000.crypto"
NATIVE, GIVEN = ("acme-crypto", None), ("vfio-platform", "vfio-platform")
NOTHING: list[dict[str, Any]] = []


def kill_at_the_first_file(
    board: Board,
    entries: Sequence[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    allow: Sequence[str] = (),
) -> None:
    """Apply a list, and die after all devices are bound and before a file is written."""

    with monkeypatch.context() as patch:
        patch.setattr(StagedFile, "commit", die)
        patch.setattr(Transaction, "_roll_back", die)
        with pytest.raises(KilledError):
            board.apply(entries, reset_required=False, allow=allow)
    close_staged_files()


@pytest.fixture
def killed(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board on which a run over one device was killed."""
    kill_at_the_first_file(board, [CRYPTO], monkeypatch)
    assert board.kernel.binding(NAME) == GIVEN
    assert board.file(last_applied.RULES) is None
    return board


def said(outcome: Outcome) -> str:
    return "\n".join(outcome.interrupted)


def test_all_is_as_it_was_before_the_killed_run(
    grouped_board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = grouped_board.everything()
    kill_at_the_first_file(grouped_board, LIST, monkeypatch)
    assert grouped_board.everything() != before
    outcome = grouped_board.apply(NOTHING)
    assert grouped_board.everything() == before
    assert "An earlier run on this host was interrupted: process" in said(outcome)
    assert "rolled back first" in said(outcome)
    assert outcome.is_changed
    assert not grouped_board.apply(NOTHING).is_changed


def test_the_rerun_knows_the_natives_as_if_nothing_had_happened(killed: Board) -> None:
    killed.apply([CRYPTO], reset_required=False)
    assert killed.kernel.binding(NAME) == GIVEN
    assert '# native: {"/soc/crypto@b000000": "acme-crypto"}' in (
        killed.file(last_applied.RULES) or ""
    )


def test_a_check_says_so_and_touches_nothing(killed: Board) -> None:
    before = killed.everything()
    assert "The next run rolls back" in said(killed.check(NOTHING))
    assert killed.everything() == before


def test_a_device_that_was_opened_since_is_left(killed: Board) -> None:
    killed.process(4242, "qemu", "/dev/vfio/1")
    killed.kernel.writes.clear()
    outcome = killed.apply([CRYPTO], reset_required=False)
    assert "Left unchanged: /soc/crypto@b000000" in said(outcome)
    assert "/dev/vfio/1 is held open by qemu (pid 4242)" in said(outcome)
    assert not killed.kernel.writes
    assert killed.kernel.binding(NAME) == GIVEN


def test_a_device_that_somebody_changed_since_is_left(killed: Board) -> None:
    killed.kernel.write(f"bus/platform/devices/{NAME}/driver_override", "somebody\n")
    outcome = killed.apply([{"name": "b002000.dma", "policy": "no_autobind"}])
    assert "it was changed since, and is now bound to vfio-platform" in said(outcome)
    assert killed.kernel.binding(NAME) == ("vfio-platform", "somebody")


def test_a_consumer_that_somebody_changed_since_is_left(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    kill_at_the_first_file(board, [CRYPTO], monkeypatch, allow=["consumers"])
    board.kernel.write("bus/platform/devices/b002000.dma/driver_override", "somebody\n")
    outcome = board.apply(NOTHING, allow=["consumers"])
    assert "/soc/dma@b002000 (platform device b002000.dma): it was changed since" in said(outcome)
    assert board.kernel.override_of("b002000.dma") == "somebody"


def test_a_file_that_somebody_changed_since_is_left(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StagedFile.commit

    def die_after(staged: StagedFile) -> None:
        commit(staged)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(StagedFile, "commit", die_after)
        patch.setattr(Transaction, "_roll_back", lambda _self: None)
        with pytest.raises(KilledError):
            board.apply([CRYPTO], reset_required=False)
    close_staged_files()
    written = [path for path in last_applied.PATHS if board.file(path)]
    assert len(written) == 1
    (path,) = written
    board.write_file(path, f"{board.file(path)}# a line of somebody else\n")
    kept = board.file(path)
    outcome = board.apply([{"name": "b002000.dma", "policy": "no_autobind"}], persistent=False)
    assert f"{path}: it was changed since" in said(outcome)
    assert board.file(path) == kept


def test_a_module_that_somebody_uses_since_is_left(killed: Board) -> None:
    kernel = killed.kernel
    kernel.write("bus/platform/drivers/acme-crypto/unbind", "b001000.crypto")
    kernel.write("bus/platform/devices/b001000.crypto/driver_override", "vfio-platform")
    kernel.write("bus/platform/drivers/vfio-platform/bind", "b001000.crypto")
    outcome = killed.apply(NOTHING)
    assert "module vfio-platform: b001000.crypto has since been bound to its driver" in said(
        outcome
    )
    assert kernel.binding("b001000.crypto") == GIVEN
    assert kernel.binding(NAME) == NATIVE
    assert said(killed.apply(NOTHING)) == ""


def test_what_cannot_be_put_back_is_tried_again(killed: Board) -> None:
    dma = [{"name": "b002000.dma", "policy": "no_autobind"}]
    killed.kernel.answer(("bus/platform/drivers/acme-crypto/bind", NAME), BLOCK)
    outcome = killed.apply(dma, persistent=False)
    assert "Could not be rolled back: /soc/crypto@b000000" in said(outcome)
    assert "The next run tries again" in said(outcome)
    assert killed.kernel.driver_of("b002000.dma") is None
    assert "rolled back first" in said(killed.apply(dma, persistent=False))
    assert killed.kernel.binding(NAME) == NATIVE


def test_the_message_of_what_failed_later_says_it_too(killed: Board) -> None:
    with pytest.raises(PolicyError, match=r"(?s)was interrupted.*matches no device"):
        killed.apply([{"name": "nowhere", "policy": "vfio"}])
    assert killed.kernel.binding(NAME) == NATIVE


def test_nothing_is_left_to_be_undone_by_a_run_that_failed_by_itself(board: Board) -> None:
    board.kernel.answer("bus/amba/drivers/vfio-amba/bind", errno.EIO)
    with pytest.raises(PolicyError, match="Nothing was changed"):
        board.apply(LIST, reset_required=False)
    assert said(board.apply(NOTHING)) == ""
