"""Any sequence of lists: each is applied as check mode predicts, and leaves no trace."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from board import Board, acme_board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_kernel import Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

NAMES = ("b000000.crypto", "b001000.crypto", "b002000.dma", "b008000.blob")
PINNED = {"b008000.blob": "acme-blob-uio"}
POLICIES = ("vfio", "no_autobind", "driver", "default")

LISTS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(POLICIES), max_size=len(NAMES))
ASKED: dict[str, Any] = {
    "reset_required": False,
    "unsafe_noiommu": True,
    "unsafe_interrupts": True,
}


def entry(name: str, policy: str) -> dict[str, Any]:
    driver = PINNED.get(name, "acme-dma-uio") if policy == "driver" else None
    return {"name": name, "policy": policy, "driver": driver}


def expected(name: str, policy: str) -> tuple[str | None, str | None]:
    if policy == "no_autobind":
        return None, "none"
    if policy == "driver":
        return (PINNED.get(name, "acme-dma-uio"),) * 2
    if policy == "vfio":
        return ("vfio-amba" if name.endswith("blob") else "vfio-platform",) * 2
    return {"crypto": "acme-crypto", "dma": "acme-dma", "blob": "acme-blob"}[
        name.rpartition(".")[2]
    ], None


def fresh(root: str) -> Board:
    board = acme_board(Path(root), groups_at_boot=True)
    board.kernel.register(Driver("acme-blob-uio", "amba"))
    return board


@given(st.lists(LISTS, min_size=1, max_size=4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_each_list_is_met_and_foretold_and_a_rerun_writes_nothing(
    sequence: list[dict[str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        board = fresh(root)
        for wanted in [*sequence, {}]:
            entries = [entry(*item) for item in wanted.items()]
            foretold = board.check(entries, **ASKED)
            outcome = board.apply(entries, **ASKED)
            for name in NAMES:
                assert board.kernel.binding(name) == expected(name, wanted.get(name, "default"))
            assert results.diff(foretold) == results.diff(outcome)
            board.kernel.writes.clear()
            board.kmod.calls.clear()
            assert not board.apply(entries, **ASKED).is_changed
            assert not board.kernel.writes
            assert not board.kmod.calls
        assert board.file(RULES) is None


@given(LISTS, LISTS, st.integers(1, 12), st.sampled_from([5, 19, 22]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_a_list_that_fails_leaves_the_one_before(
    first: dict[str, str], second: dict[str, str], number: int, code: int
) -> None:
    with tempfile.TemporaryDirectory() as root:
        board = fresh(root)
        board.apply([entry(*item) for item in first.items()], **ASKED)
        before, rules = board.kernel.bindings(), board.file(RULES)
        board.kernel.answer(number, code)
        message = None
        try:
            board.apply([entry(*item) for item in second.items()], **ASKED)
        except PolicyError as error:
            message = str(error)
        if message is None:
            for name in NAMES:
                assert board.kernel.binding(name) == expected(name, second.get(name, "default"))
        else:
            assert "Nothing was changed" in message
            assert board.kernel.bindings() == before
            assert board.file(RULES) == rules
