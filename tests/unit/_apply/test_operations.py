# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations can be read back from their records; damaged ones undo no foreign state."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from board import Board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import record_fields, symlinks
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.journal import FORMAT, parse
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.operations import (
    OPERATIONS,
    Operation,
    UndoRecord,
    from_record,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.rollback import roll_back
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import driverctl
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.vfio import (
    INTERRUPTS,
    NOIOMMU,
    RESET_REQUIRED,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.buses import VFIO_DRIVERS
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog

DEVICE = ["platform", "b000000.crypto", "/soc/crypto@b000000", ["acme,crypto"], None, None]
FUNCTION = ["pci", "0000:02:00.0", None, [], None, None]
VIRTUAL = ["pci", "0000:02:00.1", None, [], None, None]
RULES = "/etc/udev/rules.d/70-armfleet-vfio.rules"
LINK = "/dev/vfio/by-path/soc:crypto@b000000"
# Records in format 1 of the journal.
RECORDS: Sequence[UndoRecord] = [
    UndoRecord(
        "device",
        "/soc/crypto@b000000 (platform device b000000.crypto)",
        {
            "device": DEVICE,
            "driver": "acme-crypto",
            "driver_override": None,
            "wanted": ["vfio-platform", "vfio-platform"],
        },
    ),
    UndoRecord(
        "device",
        "platform device x",
        {"device": DEVICE, "driver": None, "driver_override": "none", "wanted": None},
        deferred=True,
    ),
    UndoRecord("module", "module acme", {"module": "acme", "before": ["vfio"], "came": ["acme"]}),
    UndoRecord(
        "reloaded",
        "module vfio-platform",
        {"module": "vfio-platform", "reset_required": "Y", "noiommu": False, "interrupts": True},
    ),
    UndoRecord(
        "numvfs",
        "sriov_numvfs of pci device 0000:02:00.0",
        {
            "device": FUNCTION,
            "before": 1,
            "after": 4,
            "autoprobes": True,
            "removed": [[VIRTUAL, "vfio-pci", "vfio-pci"]],
        },
    ),
    UndoRecord("noiommu", "vfio.enable_unsafe_noiommu_mode", {"value": "N"}),
    UndoRecord("interrupts", "vfio_iommu_type1.allow_unsafe_interrupts", {"value": "N"}),
    UndoRecord("file", RULES, {"path": RULES, "before": None, "after": "# rules \udcff\n"}),
    UndoRecord("node", "/dev/vfio/3", {"path": "/dev/vfio/3", "group": "vmm", "mode": "0660"}),
    UndoRecord(
        "links",
        "links " + LINK,
        {"before": {LINK: "../3"}, "owners": {LINK: DEVICE}},
        deferred=True,
    ),
]

TEXTS = [
    *("", ".", "..", "/", "a/b", "\0", "\n", "x\ny", "x" * 300, "\ud800", "\udcff", "none", "Y"),
    *("/etc/passwd", "/etc/driverctl.d/../shadow", "/etc/driverctl.d/platform-a", "/dev/sda"),
    *("/dev/vfio/vfio", "/dev/vfio/../sda", "/dev/vfio/by-tag/a", "--force", "-a", "ext4", "0666"),
    *("file", "module", "vfio-amba", "../../kernel", "b001000.crypto"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(TEXTS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(TEXTS), inner, max_size=4)
    ),
    max_leaves=8,
)


def containers(value: Any) -> list[Any]:
    """Return every object and array in a value, beginning with the value itself."""
    if not isinstance(value, (dict, list)):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [value, *(container for item in inside for container in containers(item))]


@st.composite
def damaged_records(draw: st.DrawFn) -> Any:
    """Draw a record with one or two fields replaced, removed or added, at any depth."""
    record = json.loads(json.dumps(draw(st.sampled_from(RECORDS))))
    for _time in range(draw(st.integers(1, 2))):
        container = draw(st.sampled_from(containers(record)))
        value = draw(VALUES)
        if isinstance(container, list):
            position = draw(st.integers(0, len(container)))
            end = position + draw(st.integers(0, 1))
            container[position:end] = draw(st.sampled_from([[], [value]]))
        else:
            keys = [*container, *draw(st.lists(st.sampled_from([*TEXTS, "path"]), max_size=1))]
            key = draw(st.sampled_from(keys)) if keys else "new"
            container[key] = copy.deepcopy(value)
            if draw(st.booleans()):
                del container[key]
    return record


class WatchedFiles(Files):
    """Files that refuse to change foreign paths, and change nothing."""

    def read(self, path: str) -> str | None:
        assert_ours(path)
        return "as somebody else left it"

    def write_atomic(self, path: str, content: str | None) -> None:
        assert_ours(path)
        assert content is None or isinstance(content, str)

    def node_access(self, path: str) -> NodeAccess | None:
        assert re.fullmatch(r"/dev/vfio/((noiommu-)?[0-9]+|devices/vfio[0-9]+)", path)
        return NodeAccess(None, None)

    def set_node_access(self, path: str, access: NodeAccess) -> None:
        self.node_access(path)
        assert access.mode is None or re.fullmatch("[0-7]{3,4}", access.mode)

    def set_symlink(self, path: str, target: str | None) -> None:
        directory, _slash, name = path.rpartition("/")
        assert directory in symlinks.DIRECTORIES
        assert name not in ("", ".", "..")
        assert target is None or target


def assert_ours(path: str) -> None:
    if path not in record_fields.PATHS:
        directory, _slash, name = path.rpartition("/")
        assert directory == driverctl.FOLDER
        assert re.fullmatch(r"(platform|amba)-[^/\0]+", name)


class WatchedSysfs:
    """A /sys that refuses all writes but those to drivers, overrides and VFIO parameters."""

    def __init__(self, loaded: set[str]) -> None:
        self._loaded = loaded

    def read(self, _path: str) -> str | None:
        return "Y"

    def read_locked(self, paths: Sequence[str]) -> list[str | None]:
        return ["another" for _path in paths]

    def link_name(self, _path: str) -> str | None:
        return "another"

    def link(self, _path: str) -> str | None:
        return None

    def names(self, path: str) -> list[str]:
        return sorted(self._loaded) if path == "module" else []

    def exists(self, path: str) -> bool:
        return path.startswith("module/") and path.split("/")[1] in self._loaded

    def has_node(self, _path: str) -> bool:
        return False

    def write(self, path: str, text: str) -> None:
        buses = "|".join(VFIO_DRIVERS)
        name = r"(?!\.\.?/)[^/\n\0]+"
        ours = (
            rf"bus/({buses})/devices/{name}/driver_override",
            rf"bus/({buses})/drivers/{name}/(un)?bind",
            rf"bus/({buses})/devices/{name}/sriov_(numvfs|drivers_autoprobe)",
            r"module/vfio/parameters/enable_unsafe_noiommu_mode",
            r"module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        )
        assert any(re.fullmatch(pattern, path) for pattern in ours), path
        assert text
        assert "\n" not in text.rstrip("\n")


class WatchedKmod:
    """A modprobe that accepts names of modules and refuses options."""

    def __init__(self, loaded: set[str]) -> None:
        self._loaded = loaded

    def load(self, module: str, parameters: Mapping[str, str] | None = None) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", module)
        assert set(parameters or {}) <= {"reset_required"}

    def unload(self, module: str) -> None:
        self.load(module)
        self._loaded.discard(module.replace("-", "_"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record.kind))
def test_an_operation_is_what_its_record_says(record: UndoRecord) -> None:
    operation = from_record(json.loads(json.dumps(record)))
    assert operation.to_record() == record
    assert json.loads(json.dumps(operation.to_record())) == json.loads(json.dumps(record))


# A line of a version that did not know `unsafe_interrupts`.
OLDER: Any = [
    "reloaded",
    "module vfio-platform",
    {"module": "vfio-platform", "noiommu": None},
    False,
]


def older(reset_required: str) -> Operation:
    kind, subject, values, deferred = OLDER
    return from_record([kind, subject, {**values, "reset_required": reset_required}, deferred])


@pytest.mark.parametrize("is_on", ["Y", "N"])
@pytest.mark.parametrize(("before", "after"), [("Y", "N"), ("N", "Y")])
def test_a_reload_by_an_earlier_version_is_undone_and_leaves_what_it_does_not_record(
    board: Board, before: str, after: str, is_on: str
) -> None:
    board.kmod.load("vfio-platform", {"reset_required": after})
    board.kernel.write(INTERRUPTS, is_on)
    board.kernel.write(NOIOMMU, is_on)
    assert not roll_back(board.host, [older(before)])
    assert board.kernel.read(RESET_REQUIRED) == before
    assert board.kernel.read(INTERRUPTS) == board.kernel.read(NOIOMMU) == is_on


def test_what_is_not_recorded_stays_where_a_reload_takes_other_modules_along(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    board.kernel.write(INTERRUPTS, "Y")
    unload = board.kmod.unload

    def unload_all(module: str) -> None:
        unload(module)
        unload("vfio_iommu_type1")

    monkeypatch.setattr(board.kmod, "unload", unload_all)
    assert not roll_back(board.host, [older("Y")])
    assert board.kernel.read(RESET_REQUIRED) == board.kernel.read(INTERRUPTS) == "Y"


@pytest.mark.parametrize("noiommu", [None, False])
def test_a_module_that_is_as_an_earlier_version_recorded_it_is_not_reloaded(
    board: Board, noiommu: bool | None
) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "Y"})
    board.kernel.write(INTERRUPTS, "Y")
    board.kmod.calls.clear()
    values = {"module": "vfio-platform", "reset_required": "Y", "noiommu": noiommu}
    assert not roll_back(board.host, [from_record(["reloaded", "x", values, False])])
    assert not board.kmod.calls


@pytest.mark.parametrize(
    "more", [{"interrupt": None}, {"interrupts": "Y"}, {"interrupts": None, "x": None}]
)
def test_other_keys_than_those_of_any_version_are_damage(more: dict[str, Any]) -> None:
    values = {"module": "vfio-platform", "reset_required": "Y", "noiommu": None, **more}
    with pytest.raises(ValueError, match=r"does not have the keys|interrupts is"):
        from_record(["reloaded", "x", values, False])
    with pytest.raises(ValueError, match="does not have the keys"):
        from_record(OLDER)


def test_the_next_run_undoes_the_journal_of_an_earlier_version(board: Board) -> None:
    board.kmod.load("vfio-platform", {"reset_required": "N"})
    kind, subject, values, deferred = OLDER
    lock = board.run_lock()
    lock.journal.append(UndoRecord(kind, subject, {**values, "reset_required": "Y"}, deferred))
    assert "rolled back first" in board.apply([]).interrupted[0]
    assert board.kernel.read(RESET_REQUIRED) == "Y"


def test_there_is_a_record_of_each_kind() -> None:
    assert {record.kind for record in RECORDS} == set(OPERATIONS)


def test_the_values_of_an_operation_are_those_that_its_record_is_checked_for() -> None:
    for record in RECORDS:
        assert record.values.keys() == OPERATIONS[record.kind].record_fields.keys()


@settings(max_examples=500, suppress_health_check=list(HealthCheck), deadline=None)
@given(damaged_records())
def test_a_damaged_record_undoes_only_what_is_ours_or_ends_in_a_sentence(record: Any) -> None:
    try:
        operation = from_record(record)
    except ValueError as error:
        sentence = str(error)
    else:
        undo(operation, record)
        return
    assert sentence.isprintable()
    assert len(sentence) < 300


def undo(operation: Operation, record: Any) -> None:
    completed = copy.deepcopy(record)
    if record[0] == "reloaded":
        completed[2].setdefault("interrupts", None)
    assert json.loads(json.dumps(operation.to_record())) == completed
    loaded = {"acme", "vfio_platform"}
    sysfs: Any = WatchedSysfs(loaded)
    kmod: Any = WatchedKmod(loaded)
    host = Host(sysfs, kmod, WatchedFiles(), KernelLog("/nonexistent"))
    for failure in roll_back(host, [operation]):
        assert isinstance(failure.sentence, str)


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(damaged_records(), max_size=4), VALUES)
def test_a_damaged_journal_is_told_line_by_line(damaged: list[Any], value: Any) -> None:
    head = {"format": FORMAT, "boot": "b", "who": "process 1"}
    content = "".join(json.dumps(line) + "\n" for line in (head, *damaged, value, RECORDS[4]))
    interrupted = parse(content.encode(), "b")
    assert interrupted
    assert len(interrupted.operations) + len(interrupted.damaged) == len(damaged) + 2
    assert interrupted.operations[-1].kind == RECORDS[4].kind


@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(damaged_records(), min_size=1, max_size=3))
def test_a_run_after_a_damaged_journal_ends_with_an_answer(
    tmp_path_factory: pytest.TempPathFactory, damaged: list[Any]
) -> None:
    board = Board(Path(tmp_path_factory.mktemp("board")))
    lock = board.run_lock()
    lock.journal.append(RECORDS[4])
    with open(lock.journal.path, "ab") as stream:
        stream.writelines(json.dumps(record).encode() + b"\n" for record in damaged)
    sentence = ""
    try:
        board.apply([])
    except PolicyError as error:
        sentence = str(error)
    assert sentence.replace("\n", "").isprintable()
