# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run with the request of the last one returns its answer again while that is valid.

These tests cover how host_policy keeps and finds the answer. For every file that a run reads, they
check that a change of the file invalidates the answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from board import AMBA, CRYPTO, DMA, Board
from kept_answers import Module, unrecorded_reads
from simulated_kernel import TREE, BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import last_answer
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.host_lock import HostLock
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.operations import UndoRecord
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import PATHS, RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelBlockedError,
    Sysfs,
)

LIST = [CRYPTO, DMA, AMBA]
OPTIONS = {"devices": LIST, "reset_required": False}
HOME = "devices/platform/b000000.crypto"


@pytest.fixture
def module(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Module:
    return Module("host_policy", OPTIONS, board, monkeypatch, capsys)


@pytest.fixture
def kept(module: Module) -> Module:
    """The module after a run without changes."""
    assert module()["changed"]
    assert not module()["changed"]
    return module


def test_the_third_of_three_runs_gives_the_answer_of_the_second(module: Module) -> None:
    module()
    second = module()
    assert module.runs == 2
    assert module() == second
    assert module.runs == 2


def test_a_run_that_changed_something_keeps_no_answer(module: Module) -> None:
    assert module()["changed"]
    assert not module.all_kept


def test_an_answer_is_found_in_check_mode_too_and_none_is_kept_there(module: Module) -> None:
    module()
    assert not module(check_mode=True)["changed"]
    assert not module.all_kept
    module()
    runs = module.runs
    assert not module(check_mode=True)["changed"]
    assert module.runs == runs


def test_nothing_but_the_lock_is_written_for_the_last_answer(kept: Module, board: Board) -> None:
    before, written = board.everything(), kept.kept.stat()
    assert not kept.is_run()
    assert board.everything() == before
    now = kept.kept.stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_run_that_is_asked_something_else_is_made(kept: Module) -> None:
    assert kept.is_run(timeout=7)
    assert kept.is_run(devices=[CRYPTO, DMA])


def test_other_code_makes_a_whole_run(kept: Module) -> None:
    assert kept.is_run(code="2")
    assert not kept.is_run(code="2")


def test_a_request_without_a_digest_keeps_nothing(module: Module) -> None:
    module(code=None)
    assert module.is_run(code=None)
    assert module.is_run(code=None)
    assert not module.all_kept


def test_another_kernel_makes_a_whole_run(kept: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    uname = os.uname()
    other = os.uname_result((uname[0], uname[1], "9.9.9", uname[3], uname[4]))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert kept.is_run()


def test_a_user_who_is_not_root_makes_a_whole_run(
    kept: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert kept.is_run(check_mode=True)


def test_what_an_interrupted_run_left_is_undone_first(kept: Module, board: Board) -> None:
    board.journal("the other").append(UndoRecord("noiommu", "vfio", {"value": "N"}))
    assert kept.is_run(check_mode=True)
    assert kept()["interrupted"]


def test_another_run_is_waited_for(kept: Module, board: Board) -> None:
    with board.run_lock("the other").acquire():
        answer = kept()
    assert answer["failed"]
    assert "the other" in answer["msg"]


def places(record: Path) -> Iterator[tuple[str, str]]:
    """Yield the gateway and the path of each read of a run."""
    for gateway, _method, arguments in json.loads(record.read_text())["reads"]:
        for argument in arguments:
            for path in argument if isinstance(argument, list) else [argument]:
                if isinstance(path, str):
                    yield gateway, path


def test_whatever_changes_in_a_file_that_was_read_the_answer_is_that_of_a_whole_run(
    kept: Module, board: Board
) -> None:
    files = [path for gateway, path in dict.fromkeys(places(kept.kept)) if gateway == "files"]
    assert set(PATHS) <= set(files)
    changed = 0
    for path in files:
        file = board.files_root / path[1:]
        if not file.is_file() or file.is_symlink():
            continue
        content = file.read_bytes()
        file.write_bytes(content + b"# other\n")
        asked, whole = kept(check_mode=True), kept(check_mode=True, code=None)
        assert asked == whole, path
        changed += asked["changed"]
        file.write_bytes(content)
    assert changed >= len([path for path in PATHS if (board.files_root / path[1:]).exists()])


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.kernel.put(f"{HOME}/driver_override", "other\n"),
        lambda board: board.kernel.write("bus/platform/drivers/vfio-platform/unbind", HOME[17:]),
        lambda board: board.write_file("/etc/udev/rules.d/99-x.rules", 'ATTR{driver_override}="x"'),
        lambda board: board.write_file("/etc/modprobe.d/x.conf", "blacklist vfio-platform\n"),
        lambda board: (board.files_root / RULES[1:]).unlink(),
        lambda board: (board.files_root / RULES[1:]).chmod(0o666),
        lambda board: (board.files_root / "etc/udev/rules.d").chmod(0o777),
        lambda board: board.kernel.add_device("d.crypto", "/soc/crypto@d", ("acme,crypto",)),
        lambda board: board.kernel.put(f"{TREE}/soc/crypto@b000000/compatible", b"x\0"),
    ],
)
def test_a_change_of_the_host_is_seen(
    kept: Module, board: Board, change: Callable[[Board], object]
) -> None:
    change(board)
    asked = kept(check_mode=True)
    assert kept.runs == 3
    assert asked == kept(check_mode=True, code=None)


DAMAGES: dict[str, Callable[[Any], Any] | bytes] = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "no mapping": b"[]",
    "nested deeply": b"[" * 100_000,
    "empty": b"",
    "without reads": lambda kept: {key: kept[key] for key in kept if key != "reads"},
    "a read of another sort": lambda kept: {**kept, "reads": [*kept["reads"], ["files", "read"]]},
    "a read that writes": lambda kept: {
        **kept,
        "reads": [["files", "write_atomic", ["/etc/x", "x"]]],
    },
    "a read with other arguments": lambda kept: {**kept, "reads": [["files", "read", [1, 2, 3]]]},
    "an answer that is no text": lambda kept: {**kept, "output": {"devices": []}},
    "fewer reads": lambda kept: {**kept, "reads": kept["reads"][:-1]},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_answer_is_none(
    kept: Module, board: Board, damage: Callable[[Any], Any] | bytes
) -> None:
    if isinstance(damage, bytes):
        kept.kept.write_bytes(damage)
    else:
        kept.kept.write_text(json.dumps(damage(json.loads(kept.kept.read_text()))))
    before = board.everything()
    assert kept.is_run()
    assert board.everything() == before


def test_a_rollout_with_nothing_to_do_has_the_devices_of_its_list(module: Module) -> None:
    first = module(rollout="first")
    assert first["changed"]
    assert first["inspection"] is None
    module(rollout="first", state="finished", devices=None)
    assert module(rollout="second", check_mode=True)["inspection"] is None
    second = module(rollout="second")
    inspected = second["inspection"]
    assert {device["name"] for device in inspected["devices"]} == {
        device["name"] for device in second["devices"]
    }
    assert inspected["policy_digest"] == second["policy_digest"]
    assert not any(device["drift"] for device in inspected["devices"])
    assert not module.is_run(rollout="second")
    assert module(rollout="second") == second


def test_what_another_rollout_left_unfinished_is_judged_each_time(module: Module) -> None:
    module(rollout="first")
    for _time in range(2):
        assert module.is_run(rollout="first")
    assert not module.all_kept
    assert "Rollout first" in module(rollout="second")["msg"]


def test_each_request_has_its_answer_and_the_oldest_go_first(kept: Module) -> None:
    first = kept.kept
    assert kept.is_run(timeout=7)
    assert not kept.is_run(timeout=7)
    assert not kept.is_run()
    for age, path in enumerate(reversed(kept.all_kept), 1):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    for timeout in (8, 9, 10):
        assert kept.is_run(timeout=timeout)
    assert first not in kept.all_kept
    assert kept.is_run()


@pytest.mark.parametrize("digest", ["", "0" * 63, "../../etc/passwd", "0" * 64 + "\n", "A" * 64])
def test_what_is_no_digest_names_no_file(kept: Module, digest: str) -> None:
    lock = HostLock("host_policy", 0, str(kept.kept.parent))
    last = last_answer.LastAnswer(lock, digest)
    last.keep([], "", last_answer.Answer({}, []))
    assert last.find(Sysfs(), Files(), check_mode=True) is None
    assert len(kept.all_kept) == 1


def test_what_a_killed_run_left_is_replaced(
    kept: Module, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_names: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            kept(timeout=7)
    assert kept.is_run(timeout=7)
    assert not kept.is_run(timeout=7)
    assert {*os.listdir(board.root / "run")} == {"lock", *(path.name for path in kept.all_kept)}


def test_nothing_is_kept_while_another_run_goes_on(module: Module, board: Board) -> None:
    module()
    with board.run_lock("the other").acquire():
        # Check mode takes no lock and keeps no answer.
        assert not module(check_mode=True)["changed"]
    assert not module.all_kept


def test_an_answer_that_fills_a_small_memory_is_not_kept(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_answer, "_LARGEST", 1000)
    module()
    assert not module()["changed"]
    assert not module.all_kept


def test_a_device_that_hangs_is_waited_for_once(
    kept: Module, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def hang(paths: object) -> None:
        asked.append(paths)
        raise KernelBlockedError("devices/x/driver_override", 30, 7, None)

    monkeypatch.setattr(board.kernel, "read_locked", hang)
    assert "did not answer within 30 s" in kept()["msg"]
    assert len(asked) == 1


@pytest.mark.parametrize("board_names", ["{1, 2}", "b'x'", "{1: 2, 'b': 3}"])
def test_an_option_that_no_json_has_is_judged_as_ever(module: Module, board_names: str) -> None:
    # AnsibleModule parses a string that is given for a mapping as a Python literal.
    text = f"{{'name': 'b000000.crypto', 'policy': 'vfio', 'when_board': {board_names}}}"
    assert "when_board" in module(devices=[text])["msg"]


def test_an_answer_that_another_user_may_have_written_is_none(kept: Module) -> None:
    lie = json.loads(kept.kept.read_text())
    lie["output"] = json.dumps({**json.loads(lie["output"]), "devices": []})
    kept.kept.write_text(json.dumps(lie))
    assert not kept()["devices"]
    kept.kept.chmod(0o666)
    assert kept()["devices"]


def test_an_answer_behind_a_link_is_none(kept: Module, tmp_path: Path) -> None:
    path = kept.kept
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert kept.is_run()


def test_the_answer_is_for_root_alone(kept: Module) -> None:
    assert kept.kept.stat().st_mode & 0o7777 == 0o600
    assert sorted(os.listdir(kept.kept.parent)) == [kept.kept.name, "lock"]


def test_without_room_for_it_a_run_ends_well(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    module()

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert not module()["changed"]
    assert not module.all_kept


PINNED = [{"dt_path": "dma1", "policy": "driver", "driver": "acme-dma-uio"}]


def test_a_list_that_preflight_has_to_check_is_answered_until_that_changes(
    module: Module, board: Board
) -> None:
    module(devices=PINNED)
    assert not module(devices=PINNED)["changed"]
    assert not module.is_run(devices=PINNED)
    board.kernel.write("bus/platform/drivers/acme-dma-uio/unbind", "b003000.dma")
    assert module.is_run(devices=PINNED)


UART = "/soc/uart@b030000"
FREE = {"name": "b000000.crypto", "policy": "no_autobind"}
ABSENT_DISK = {"name": "b040000.mmc", "policy": "no_autobind", "required": False}
ABSENT_UART = {"compatible": "acme,uart", "policy": "no_autobind", "required": False}


@pytest.mark.parametrize(
    ("absent", "allow", "change"),
    [
        (ABSENT_DISK, "network", "fstab"),
        (ABSENT_DISK, "storage", "fstab"),
        (ABSENT_UART, "network", "stdout-path"),
    ],
)
def test_what_the_next_boot_needs_is_seen_for_a_list_that_waits_for_it(
    module: Module, board: Board, absent: dict[str, Any], allow: str, change: str
) -> None:
    board.kernel.add_node(UART, ("acme,uart",))
    board.kernel.write("bus/platform/drivers/acme-crypto/unbind", "b000000.crypto")
    options = {"devices": [FREE, absent], "runtime": False, "allow": [allow]}
    module(**options)
    assert not module(**options)["changed"]
    if change == "fstab":
        disk = "/dev/disk/by-path/platform-b040000.mmc-part1"
        board.write_file("/etc/fstab", f"{disk} /data ext4\n")
    else:
        board.kernel.put(f"{TREE}/chosen/stdout-path", UART + "\0")
    asked = module(check_mode=True, **options)
    assert asked == module(check_mode=True, code=None, **options)
    assert asked.get("failed") or asked["changed"]


PF, NIC = "0000:02:00.0", "0000:03:00.0"
PCI_LIST: list[dict[str, Any]] = [
    CRYPTO,
    {"pci_address": PF, "policy": "default", "sriov_numvfs": 2},
    {"pci_address": "0000:02:00.1", "policy": "vfio"},
    {"pci_id": "8086:10d3", "policy": "vfio"},
]
INDEXES = ("modules.alias.bin", "modules.builtin.alias.bin", "modules.dep.bin")


@pytest.fixture
def functions(board: Board) -> Board:
    """The board with PCI functions, one of which can have virtual ones."""
    board.kernel.add_functions(
        "0000:00:02.0 1b36:000c 060400 bus=02",
        f"{PF} 1b36:0010:1af4:1100 010802 vfs=4",
        "0000:00:03.0 1b36:000c 060400 bus=03",
        f"{NIC} 8086:10d3 020000",
    )
    board.kernel.register(Driver("nvme", "pci", pci_ids=("1b36:0010",), sriov="removed"))
    board.kernel.register(Driver("e1000e", "pci", pci_ids=("8086:10d3",)))
    modules = board.files_root / "lib/modules" / os.uname().release
    modules.mkdir(parents=True)
    for name in INDEXES:
        (modules / name).write_text("")
    return board


@pytest.mark.usefixtures("functions")
def test_a_list_with_pci_functions_is_answered_as_any(module: Module) -> None:
    assert module(devices=PCI_LIST)["changed"]
    second = module(devices=PCI_LIST)
    assert not second["changed"]
    assert not module.is_run(devices=PCI_LIST)
    assert module(devices=PCI_LIST) == second


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.write_file("/etc/modprobe.d/x.conf", "blacklist mlx5_vfio_pci\n"),
        *[
            lambda board, name=name: board.write_file(
                f"/lib/modules/{os.uname().release}/{name}", "other"
            )
            for name in INDEXES
        ],
        lambda board: board.kernel.write(f"bus/pci/devices/{PF}/sriov_numvfs", "0"),
    ],
)
def test_a_change_is_seen_of_what_becomes_of_pci_functions(
    module: Module, functions: Board, change: Callable[[Board], object]
) -> None:
    module(devices=PCI_LIST)
    module(devices=PCI_LIST)
    change(functions)
    assert module.is_run(devices=PCI_LIST)


def test_a_vfio_driver_that_was_installed_meanwhile_is_taken(
    module: Module, functions: Board
) -> None:
    module(devices=PCI_LIST)
    module(devices=PCI_LIST)
    variant = Driver("intel_vfio_pci", "pci", vfio_ids=("8086:10d3",), module="intel_vfio_pci")
    functions.kmod.modules["intel_vfio_pci"] = BoardModule(
        name="intel_vfio_pci", drivers=(variant,)
    )
    functions.write_file(f"/lib/modules/{os.uname().release}/modules.alias.bin", "as depmod does")
    assert module(devices=PCI_LIST)["changed"]
    assert functions.kernel.binding(NIC) == ("intel_vfio_pci", "intel_vfio_pci")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"persistent": False},
        {"runtime": False},
        {"vfio_group": "root"},
        {"devices": PINNED},
        {"unsafe_noiommu": False},
        {"rollout": "first"},
        {"state": "absent", "devices": []},
        {"devices": [FREE, ABSENT_DISK], "runtime": False, "allow": ["network"]},
        {"devices": PCI_LIST},
    ],
    ids=str,
)
@pytest.mark.usefixtures("functions")
def test_a_run_of_which_an_answer_is_kept_reads_nothing_that_is_not_recorded(
    module: Module, board: Board, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    board.kernel.write("bus/platform/drivers/acme-crypto/unbind", "b000000.crypto")
    module(**options)
    kept: list[object] = []

    def keep(*arguments: object) -> None:
        kept.append(arguments)

    monkeypatch.setattr(last_answer.LastAnswer, "keep", keep)
    with unrecorded_reads(monkeypatch) as strangers:
        assert not module(code=None, **options)["changed"]
    assert not strangers or not kept
