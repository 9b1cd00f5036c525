# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A damaged journal ends a run with a message, whatever the journal contains."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, LIST, Board, acme_board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.operations import UndoRecord
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.transaction import Transaction
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import PREVIOUS
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_writes import StagedFile

GIVEN, NATIVE = ("vfio-platform", "vfio-platform"), ("acme-crypto", None)
UNREADABLE = "/run/journal, the journal of an interrupted run, cannot be parsed"
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1e308, 10**400, "", ".", "..", "/", "a/b", "\0", "\n", "x" * 5000),
    *("\ud800", "\udcff", "none", "/etc/passwd", "/dev/vfio/../sda", "--force", [], {}, [[]]),
    *({"device": None}, [None] * 6, ["device", "x", {}, False], {"path": "/etc/shadow"}),
]


class KilledError(BaseException):
    """Simulates SIGKILL: no code of the run is executed after it."""


@pytest.fixture
def killed(tmp_path: Path) -> Board:
    """A board on which a run with all kinds of changes was killed before the last one."""
    board = acme_board(tmp_path / "board", groups_at_boot=True)
    board.kmod.load("vfio")
    with pytest.MonkeyPatch.context() as patch:
        commit = StagedFile.commit

        def die(staged: StagedFile) -> None:
            if staged.path == last_applied.MODULES_LOAD:
                raise KilledError
            commit(staged)

        def undo_nothing(transaction: Transaction) -> None:
            for write in transaction._files:
                write.discard()

        patch.setattr(StagedFile, "commit", die)
        patch.setattr(Transaction, "_roll_back", undo_nothing)
        with pytest.raises(KilledError):
            board.apply(
                LIST,
                reset_required=False,
                unsafe_noiommu=True,
                access=NodeAccess(None, "0660"),
            )
    return board


def journal(board: Board) -> Path:
    return board.root / "run/journal"


def lines(board: Board) -> list[Any]:
    return [json.loads(line) for line in journal(board).read_text().splitlines()]


def write(board: Board, records: list[Any]) -> None:
    journal(board).write_text("".join(json.dumps(record) + "\n" for record in records))


def refusal(board: Board) -> str:
    with pytest.raises(PolicyError) as caught:
        board.apply([])
    assert UNREADABLE in str(caught.value)
    return str(caught.value)


def test_all_kinds_of_changes_are_written_down_and_read(killed: Board) -> None:
    left = killed.journal().read_interrupted()
    assert left
    assert not left.damaged
    kinds = {operation.kind for operation in left.operations}
    assert kinds >= {"device", "module", "noiommu", "node", "links", "file"}
    assert "rolled back first" in killed.apply([]).interrupted[0]
    assert killed.kernel.binding("b000000.crypto") == NATIVE


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "explosion"},
        {"kind": None},
        {"kind": []},
        {"subject": {}},
        {"values": None},
        {"values": []},
        {"values": {}},
        {"deferred": "no"},
    ],
    ids=json.dumps,
)
def test_a_record_that_is_damaged_is_named_and_all_others_are_undone(
    killed: Board, damage: dict[str, Any]
) -> None:
    records = lines(killed)
    number = next(number for number, record in enumerate(records[1:], 1) if record[0] == "file")
    records[number] = [*UndoRecord(*records[number])._replace(**damage)]
    write(killed, records)
    message = refusal(killed)
    assert f"in line {number + 1} (" in message
    assert "The rest of it was rolled back as far as possible" in message
    assert "rolled back first" not in message
    assert "Inspect the devices with device_info" in message
    assert "delete the file" in message
    assert killed.kernel.binding("b000000.crypto") == NATIVE
    # Runs are refused until an administrator deletes the journal, and undo nothing twice.
    killed.kernel.writes.clear()
    assert "in line 2 (" in refusal(killed)
    assert not killed.kernel.writes
    journal(killed).unlink()
    assert not killed.apply([]).interrupted


def test_a_check_says_so_and_touches_nothing(killed: Board) -> None:
    write(killed, [*lines(killed), None])
    before, kept = killed.everything(), journal(killed).read_text()
    with pytest.raises(PolicyError, match="is rolled back by the next run"):
        killed.check([])
    assert (killed.everything(), journal(killed).read_text()) == (before, kept)


@pytest.mark.parametrize(
    "head",
    [
        *(None, [], "x", 1, {}, {"boot": 1}),
        {"format": None},
        {"format": 2},
        {"format": "1"},
        {"format": True},
        {"who": None},
        {"who": ["x"]},
        {"who": "two\nlines"},
    ],
    ids=json.dumps,
)
def test_nothing_is_undone_if_it_is_not_known_whose_journal_it_is(killed: Board, head: Any) -> None:
    records = lines(killed)
    if isinstance(head, dict) and head and "boot" not in head:
        head = {**records[0], **head}
    write(killed, [head, *records[1:]])
    killed.kernel.writes.clear()
    assert "Nothing was rolled back" in refusal(killed)
    assert not killed.kernel.writes


def test_one_of_another_version_is_named_with_its_format(killed: Board) -> None:
    head, *records = lines(killed)
    write(killed, [{**head, "format": 7}, *records])
    assert "its format is 7, but this version of the collection reads format 1" in refusal(killed)


@pytest.mark.parametrize("content", [b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"\n", b"{}\n[]\n"])
def test_what_is_no_journal_is_told(board: Board, content: bytes) -> None:
    (board.root / "run").mkdir()
    journal(board).write_bytes(content)
    refusal(board)


def test_a_journal_that_is_too_large_is_not_read(board: Board) -> None:
    (board.root / "run").mkdir()
    with journal(board).open("wb") as stream:
        stream.truncate((64 << 20) + 2)
    assert "it is larger than 64 MiB" in refusal(board)


def test_many_damaged_lines_make_a_short_sentence(killed: Board) -> None:
    write(killed, [lines(killed)[0], *[None] * 500])
    assert "line 6 (None is not a record), 495 more. " in refusal(killed)


def replaced(record: Any, path: list[Any], value: Any) -> Any:
    """Return the record with the value at ``path`` replaced or removed."""
    record = copy.deepcopy(record)
    parent = record
    for step in path[:-1]:
        parent = parent[step]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return record


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
    """Yield the path of each value in a record, at any depth."""
    inside = (
        record.items()
        if isinstance(record, dict)
        else enumerate(record)
        if isinstance(record, list)
        else ()
    )
    for key, value in inside:
        yield [*path, key]
        yield from places(value, (*path, key))


def test_no_damage_of_a_record_ends_in_anything_but_a_sentence(killed: Board) -> None:
    """Each value of each real record is replaced by arbitrary JSON."""
    records = lines(killed)
    refusals = []
    nested = st.recursive(st.sampled_from(ODD), lambda inner: st.lists(inner, max_size=6))

    @settings(max_examples=300, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False), nested | st.just(...), st.integers(1, 2))
    def damage(chance: random.Random, value: Any, times: int) -> None:
        damaged = records
        for _time in range(times):
            damaged = replaced(damaged, chance.choice(list(places(damaged))), value)
        write(killed, damaged)
        for run in (killed.check, killed.apply):
            try:
                run([CRYPTO], reset_required=False)
            except PolicyError as error:
                refusals.append(str(error))

    damage()
    assert all(message.replace("\n", "").isprintable() for message in refusals)
    assert all("delete the file" in message for message in refusals if UNREADABLE in message)
    assert len([message for message in refusals if UNREADABLE in message]) > 50


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("file", {"path": "/etc/passwd", "before": None, "after": "x"}),
        ("file", {"path": "/etc/driverctl.d/../passwd", "before": None, "after": "x"}),
        ("file", {"path": "/etc/driverctl.d/.x", "before": None, "after": "x"}),
        ("file", {"path": "/etc/driverctl.d/passwd", "before": None, "after": "x"}),
        ("file", {"path": "/etc/driverctl.d/platform-", "before": None, "after": "x"}),
        ("node", {"path": "/dev/vfio/by-tag/left", "group": None, "mode": "0666"}),
        ("node", {"path": "/dev/vfio/vfio", "group": None, "mode": "0666"}),
        ("node", {"path": "/dev/vfio/../sda", "group": None, "mode": "0666"}),
        ("node", {"path": "/dev/sda", "group": None, "mode": "0666"}),
        ("node", {"path": "/dev/vfio/1", "group": None, "mode": "rw"}),
        ("links", {"before": {"/dev/sda": None}, "owners": {}}),
        ("module", {"module": "--all", "before": [], "came": []}),
        ("module", {"module": "vfio", "before": [], "came": ["-f"]}),
        (
            "reloaded",
            {"module": "ext4", "reset_required": "Y", "noiommu": None, "interrupts": None},
        ),
        ("noiommu", {"value": "maybe"}),
    ],
)
def test_no_journal_has_anything_else_on_the_host_undone(
    board: Board, kind: str, values: dict[str, Any]
) -> None:
    board.journal().append(UndoRecord(kind, "x", values))
    board.kernel.writes.clear()
    assert "in line 2 (" in refusal(board)
    assert not board.kernel.writes
    assert not board.kmod.calls


def test_a_lock_with_anything_in_it_is_no_name(board: Board) -> None:
    board.journal().obstacle()
    holder = RunLock("x", 0, str(board.root / "run"))
    with holder.acquire():
        (board.root / "run/lock").write_bytes(b"two\nlines \xff\x1b[31m")
        with pytest.raises(PolicyError, match="another process holds the lock"):
            board.apply([CRYPTO])


HEADER = "# policy: ", "# native: ", "# options: ", "# machine: "


@pytest.mark.parametrize("prefix", HEADER)
def test_no_damage_of_the_header_ends_in_anything_but_a_sentence(board: Board, prefix: str) -> None:
    board.apply(LIST, reset_required=False)
    rules = board.file(last_applied.RULES)
    assert rules
    number = next(
        number for number, line in enumerate(rules.splitlines()) if line.startswith(prefix)
    )
    record = json.loads(rules.splitlines()[number][len(prefix) :])
    refusals = []
    for path in [[], *places(record)]:
        for value in [..., *ODD]:
            if not path and value is ...:
                continue
            damaged = replaced(record, path, value) if path else value
            content = rules.splitlines()
            content[number] = prefix + json.dumps(damaged)
            board.write_file(last_applied.RULES, "\n".join(content) + "\n")
            refusals += sentences(board)
    # A machine record that cannot be parsed is ignored: the machine is read again.
    assert prefix == "# machine: " or any(
        "The header of " in message and "cannot be parsed" in message for message in refusals
    )


def test_no_damage_of_what_a_rollout_kept_ends_in_anything_but_a_sentence(board: Board) -> None:
    board.apply(LIST, reset_required=False, rollout="first")
    kept = json.loads(board.file(PREVIOUS) or "")
    refusals = []
    for path in [[], *places(kept)]:
        for value in [..., *ODD]:
            if not path and value is ...:
                continue
            damaged = replaced(kept, path, value) if path else value
            board.write_file(PREVIOUS, json.dumps(damaged))
            refusals += sentences(board, rollout="first", restores=True)
    board.write_file(PREVIOUS, "[" * 100_000)
    (sentence,) = sentences(board, rollout="first", restores=True)
    assert "cannot be parsed" in sentence
    assert any(f"{PREVIOUS} cannot be parsed" in message for message in refusals)


@pytest.mark.parametrize("key", ["initramfs", "vfio_group", "vfio_mode", "reset_required"])
@pytest.mark.parametrize("value", [1, [], {}, "sometimes", "\0", "\n"])
def test_an_option_of_before_that_no_user_could_have_given_is_refused(
    board: Board, key: str, value: object
) -> None:
    board.apply(LIST, reset_required=False, rollout="first")
    kept = json.loads(board.file(PREVIOUS) or "")
    kept["rollouts"][0]["before"][key] = value
    if (key, value) == ("vfio_group", "sometimes"):
        return
    board.write_file(PREVIOUS, json.dumps(kept))
    (sentence,) = sentences(board, rollout="first", restores=True)
    assert f"{PREVIOUS} cannot be parsed" in sentence


def sentences(board: Board, **request: Any) -> list[str]:
    try:
        board.check([] if request else LIST, reset_required=False, **request)
        return []
    except PolicyError as error:
        sentence = str(error)
    assert sentence.replace("\n", "").isprintable()
    return [sentence]
