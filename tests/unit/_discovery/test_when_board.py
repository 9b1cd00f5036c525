"""An entry with `when_board` is ignored on every other board."""

from __future__ import annotations

from typing import Any

import pytest
from board import CRYPTO, DMA, Board
from simulated_kernel import TREE, coldplug

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import Outcome
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import (
    board as read_board,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Board as Named
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import NO_AUTOBIND, Policy
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    Entry,
    parse_selectors,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info

VFIO = "vfio-platform"
HERE = {"when_board": ["acme,board"]}
ELSEWHERE = {"when_board": ["acme,other", "acme,boar"]}
BOTH_CRYPTOS = {"compatible": "acme,crypto", "policy": "vfio"}
# Each entry is an error on a board that it applies to.
WRONG: list[dict[str, Any]] = [
    {"dt_path": "/soc/gone@1", "policy": "vfio"},
    {"dt_path": "noalias/x@1", "policy": "vfio"},
    {"compatible": "acme,crypto", "expect": 7, "policy": "vfio"},
    {"name": "b002000.dma", "policy": "driver", "driver": "no-such-driver"},
]


def become(board: Board, *compatible: str) -> None:
    """Change the compatible of the board, and keep its disk and devices."""
    board.kernel.put(f"{TREE}/compatible", "".join(f"{name}\0" for name in compatible))


def become_acpi(board: Board, **names: str) -> None:
    board.kernel.remove(TREE)
    for field, name in names.items():
        board.kernel.put(f"class/dmi/id/{field}", f"{name}\n")


def is_on_vfio(board: Board, name: str) -> bool:
    return board.kernel.bindings()[name] == (VFIO, VFIO)


def apply(board: Board, *entries: dict[str, Any], **settings: Any) -> Outcome:
    return board.apply(entries, reset_required=False, **settings)


def reads_of_the_board(board: Board, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each later read of a file with the board's name is added."""
    read: list[str] = []
    original = board.kernel.read_bytes

    def noted(path: str) -> bytes | None:
        if path.startswith("class/dmi") or path == f"{TREE}/compatible":
            read.append(path)
        return original(path)

    monkeypatch.setattr(board.kernel, "read_bytes", noted)
    return read


@pytest.mark.parametrize("name", ["acme,board-2", "acme,board", "acme,soc"])
def test_an_entry_counts_where_the_tree_lists_its_board(board: Board, name: str) -> None:
    become(board, "acme,board-2", "acme,board", "acme,soc")
    outcome = apply(board, dict(CRYPTO, when_board=["acme,none", name]))
    assert is_on_vfio(board, "b000000.crypto")
    assert not outcome.skipped


@pytest.mark.parametrize("name", ["acme,boar", "acme,board-", "acme", "ACME,board", "board"])
def test_the_name_of_a_board_is_compared_exactly(board: Board, name: str) -> None:
    assert not apply(board, dict(CRYPTO, when_board=name)).is_changed
    assert not is_on_vfio(board, "b000000.crypto")


@pytest.mark.parametrize("entry", WRONG)
@pytest.mark.parametrize("runtime", [True, False])
def test_an_entry_for_another_board_is_not_looked_at(
    board: Board, entry: dict[str, Any], runtime: bool
) -> None:
    before = board.everything()
    outcome = apply(board, {**entry, **ELSEWHERE}, runtime=runtime)
    assert not outcome.is_changed
    assert not board.kernel.writes
    assert board.everything() == before


def test_what_does_not_count_is_said_with_the_names_of_the_board(board: Board) -> None:
    become(board, "acme,board", "acme,soc")
    outcome = board.check([DMA, {**BOTH_CRYPTOS, **ELSEWHERE}])
    (sentence,) = outcome.skipped
    assert sentence == (
        "compatible 'acme,crypto' applies to acme,other or acme,boar only, and this board is "
        "acme,board, acme,soc"
    )


def test_a_list_without_an_entry_for_this_board_gives_back_what_the_last_one_claimed(
    board: Board,
) -> None:
    apply(board, BOTH_CRYPTOS)
    apply(board, {**BOTH_CRYPTOS, **ELSEWHERE})
    assert board.kernel.bindings()["b000000.crypto"] == ("acme-crypto", None)
    assert board.file(RULES) is None


def test_no_rule_is_made_of_an_entry_for_another_board(board: Board) -> None:
    apply(board, {**DMA, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE})
    rules = board.file(RULES) or ""
    assert "acme,crypto" not in rules
    coldplug(board.kernel, board.kmod, rules)
    assert board.kernel.bindings()["b000000.crypto"] == ("acme-crypto", None)
    assert board.kernel.bindings()["b002000.dma"] == (None, "none")


def test_a_second_run_and_a_change_for_other_boards_change_nothing(board: Board) -> None:
    entries = [{**DMA, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE}]
    apply(board, *entries)
    before = board.everything()
    assert not apply(board, *entries).is_changed
    assert not apply(board, {**CRYPTO, **ELSEWHERE}, entries[0]).is_changed
    assert board.everything() == before


def test_the_list_that_is_remembered_has_the_boards_that_its_entries_are_for(board: Board) -> None:
    apply(board, {**DMA, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE})
    assert device_info.inspections(board.inspect([]))["policy_list"] == [{**DMA, **HERE}]


def test_a_disk_that_comes_to_another_board_is_put_right_by_the_next_run(board: Board) -> None:
    entries = [
        {**CRYPTO, "when_board": "acme,board"},
        {"name": "b001000.crypto", "policy": "vfio", "when_board": "acme,other"},
    ]
    apply(board, *entries)
    become(board, "acme,other")
    outcome = apply(board, *entries)
    assert outcome.is_changed
    assert not is_on_vfio(board, "b000000.crypto")
    assert is_on_vfio(board, "b001000.crypto")
    assert not apply(board, *entries).is_changed


@pytest.mark.parametrize(
    ("field", "padding"), [("product_name", ""), ("board_name", ""), ("board_name", "   ")]
)
def test_with_acpi_a_board_is_named_by_its_dmi_table(
    board: Board, field: str, padding: str
) -> None:
    become_acpi(board, **{field: "Mt. Jade (Rev B)" + padding})
    before = board.kernel.binding("b000000.crypto")
    entry = {"name": "b000000.crypto", "policy": "no_autobind"}
    apply(board, {**entry, "when_board": "Mt. Jade"})
    assert board.kernel.binding("b000000.crypto") == before
    apply(board, {**entry, "when_board": "Mt. Jade (Rev B)"})
    assert board.kernel.binding("b000000.crypto") == (None, "none")


@pytest.mark.parametrize(
    ("dmi", "name"),
    [
        ("ProLiant™ [Gen10]", "ProLiant™ [Gen10]"),
        ("AS -1014S-WTRT  ", "AS -1014S-WTRT "),
        ("19\" Rack's", "19\" Rack's"),
        # Firmware need not write UTF-8; device_info prints such a byte as an escape.
        (b"Acme\xae 7", "Acme\\xae 7"),
        ("Acme\xa0One", "Acme\\xa0One"),
    ],
)
def test_a_board_is_named_as_dmi_has_it(board: Board, dmi: str | bytes, name: str) -> None:
    board.kernel.remove(TREE)
    content = dmi if isinstance(dmi, bytes) else dmi.encode()
    board.kernel.put("class/dmi/id/product_name", content + b"\n")
    entry = {"name": "b000000.crypto", "policy": "no_autobind"}
    apply(board, {**entry, "when_board": "another"})
    assert board.kernel.binding("b000000.crypto") != (None, "none")
    apply(board, {**entry, "when_board": name})
    assert board.kernel.binding("b000000.crypto") == (None, "none")
    assert not apply(board, {**entry, "when_board": name}).is_changed


def test_with_a_device_tree_a_dmi_table_does_not_name_the_board(board: Board) -> None:
    board.kernel.put("class/dmi/id/product_name", "Mt. Jade\n")
    assert not apply(board, dict(CRYPTO, when_board="Mt. Jade")).is_changed
    assert read_board(board.kernel) == Named(("acme,board",))


@pytest.mark.parametrize("runtime", [True, False])
def test_a_board_that_is_not_known_is_an_error_before_anything_is_touched(
    board: Board, runtime: bool
) -> None:
    become_acpi(board)
    message = board.refusal([{**DMA, **HERE}], reset_required=False, runtime=runtime)
    assert "has when_board, but the board is unknown" in message
    assert apply(board, DMA, runtime=runtime).is_changed


def test_an_image_without_sys_is_prepared_by_a_list_without_boards_only(board: Board) -> None:
    for name in ("bus", "class", "devices", "firmware", "kernel", "module"):
        board.kernel.remove(name)
    with pytest.raises(PolicyError, match="an image that is not running"):
        apply(board, {**DMA, **HERE}, runtime=False)
    assert board.file(RULES) is None
    apply(board, DMA, runtime=False)
    assert "b002000.dma" in (board.file(RULES) or "")


def test_a_tag_may_be_that_of_another_device_on_another_board(board: Board) -> None:
    first, second = ({**CRYPTO, "tag": "left"}, {**DMA, "policy": "vfio", "tag": "left"})
    assert apply(board, {**first, **HERE}, {**second, **ELSEWHERE}).is_changed
    with pytest.raises(PolicyError, match="Tag 'left' is used by 2 entries"):
        board.check([{**first, **HERE}, {**second, "when_board": "acme,board"}])


def test_the_modules_for_single_devices_skip_what_is_for_another_board(board: Board) -> None:
    given = [{"name": "b002000.dma", **ELSEWHERE}, {"name": "b003000.dma", **HERE}]
    entries = [Entry(selector, Policy(NO_AUTOBIND)) for selector in parse_selectors(given)]
    outcome = board.reconcile(Request(entries), check_mode=False)
    assert board.kernel.bindings()["b002000.dma"] == ("acme-dma", None)
    assert board.kernel.bindings()["b003000.dma"] == (None, "none")
    assert len(outcome.skipped) == 1


def test_device_info_tells_the_board_and_skips_what_is_for_another_one(board: Board) -> None:
    given = [{"name": "b002000.dma", **HERE}, {"dt_path": "/soc/gone@1", **ELSEWHERE}]
    reported = device_info.inspections(board.inspect(parse_selectors(given)))
    assert [device["name"] for device in reported["devices"]] == ["b002000.dma"]
    assert reported["skipped_entries"] == [
        (
            "dt_path '/soc/gone@1' applies to acme,other or acme,boar only, and this board is "
            "acme,board"
        ),
    ]
    assert reported["board"] == {
        "compatible": ["acme,board"],
        "product_name": None,
        "board_name": None,
    }


def test_device_info_tells_the_board_of_a_machine_with_acpi(board: Board) -> None:
    become_acpi(board, product_name="Mt. Jade", board_name="MB-7 ")
    reported = device_info.inspections(board.inspect([]))
    assert reported["board"] == {
        "compatible": [],
        "product_name": "Mt. Jade",
        "board_name": "MB-7",
    }


def test_the_board_is_read_once_and_only_where_an_entry_asks(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reads_of_the_board(board, monkeypatch)
    apply(board, CRYPTO, DMA)
    assert not read
    apply(board, {**CRYPTO, **HERE}, {**DMA, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE})
    assert read == [f"{TREE}/compatible"]


def test_a_rollout_of_a_list_for_several_boards_is_put_back(board: Board) -> None:
    apply(board, {**DMA, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE})
    before = board.kernel.bindings()
    apply(board, {**CRYPTO, **HERE}, {**BOTH_CRYPTOS, **ELSEWHERE}, rollout="wide")
    assert is_on_vfio(board, "b000000.crypto")
    apply(board, rollout="wide", restores=True)
    assert board.kernel.bindings() == before


def test_what_a_rollout_kept_is_not_applied_to_another_board(board: Board) -> None:
    apply(board, {**CRYPTO, **HERE})
    apply(board, DMA, rollout="wide")
    become(board, "acme,other")
    outcome = apply(board, rollout="wide", restores=True)
    assert len(outcome.skipped) == 1
    assert not is_on_vfio(board, "b000000.crypto")
    assert board.kernel.bindings()["b002000.dma"] == ("acme-dma", None)
