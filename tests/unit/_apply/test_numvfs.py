"""A list sets numbers of virtual functions, decides what becomes of them, and gives them back."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, Board, acme_board
from killing import KilledError, close_staged_files, die
from simulated_kernel import BoardModule, Driver

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.transaction import Transaction
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

PF = "0000:02:00.0"
VFS = [f"0000:02:00.{number}" for number in range(1, 5)]
NUMBER = f"bus/pci/devices/{PF}/sriov_numvfs"
AUTOPROBE = f"bus/pci/devices/{PF}/sriov_drivers_autoprobe"
FUNCTIONS = (
    "0000:00:02.0 1b36:000c 060400 bus=02",
    f"{PF} 1b36:0010:1af4:1100 010802 vfs=4",
    "0000:00:03.0 1b36:000c 060400 bus=03",
    "0000:03:00.0 8086:10d3 020000",
)
VFIO, KEPT_OFF, NATIVE = ("vfio-pci", "vfio-pci"), (None, "none"), ("nvme", None)
FOUR = {"pci_address": PF, "policy": "default", "sriov_numvfs": 4}
LIST: list[dict[str, Any]] = [
    FOUR,
    {"pci_address": VFS[0], "policy": "vfio", "tag": "queue"},
    {"pci_address": VFS[1], "policy": "vfio"},
    {"pci_address": VFS[2], "policy": "no_autobind"},
]


@pytest.fixture
def server(tmp_path: Path) -> Board:
    """A board with a function that can have four virtual ones."""
    board = acme_board(tmp_path)
    board.kernel.add_functions(*FUNCTIONS)
    native = Driver("nvme", "pci", pci_ids=("1b36:0010",), sriov="removed", module="nvme")
    board.kmod.modules["nvme"] = BoardModule(name="nvme", drivers=(native,))
    board.kmod.load("nvme")
    board.kernel.register(Driver("e1000e", "pci", pci_ids=("8086:10d3",)))
    board.kmod.calls.clear()
    return board


def bindings(board: Board) -> list[tuple[str | None, str | None]]:
    return [board.kernel.binding(name) for name in VFS]


def number(board: Board) -> str | None:
    return board.kernel.read(NUMBER)


def test_one_list_makes_virtual_functions_and_decides_on_each(server: Board) -> None:
    predicted = server.check([CRYPTO, *LIST], reset_required=False)
    outcome = server.apply([CRYPTO, *LIST], reset_required=False)
    assert number(server) == "4"
    assert bindings(server) == [VFIO, VFIO, KEPT_OFF, NATIVE]
    assert server.kernel.binding(PF) == NATIVE
    assert server.kernel.read(AUTOPROBE) == "1"

    def reported(of: Any) -> list[tuple[str, list[str]]]:
        return [(device["name"], device["steps"]) for device in results.result(of)["devices"]]

    assert reported(predicted) == reported(outcome)
    assert dict(reported(outcome))[PF] == ["set sriov_numvfs to 4 (was 0)"]
    assert dict(reported(outcome))[VFS[1]] == [
        "set driver_override to vfio-pci (was unset)",
        "bind to vfio-pci",
    ]


def test_a_second_run_changes_nothing(server: Board) -> None:
    server.apply(LIST)
    server.kernel.writes.clear()
    assert not server.apply(LIST).is_changed
    assert server.kernel.writes == []


def test_no_native_driver_has_a_function_that_the_list_gives_to_vfio(server: Board) -> None:
    seen: list[str] = []
    server.kernel.after_write = lambda: seen.extend(
        filter(None, (server.kernel.binding(name)[0] for name in VFS[:3] if exists(server, name)))
    )
    server.apply(LIST)
    assert set(seen) == {"vfio-pci"}


def exists(board: Board, name: str) -> bool:
    return board.kernel.exists(f"bus/pci/devices/{name}")


def test_what_the_list_gives_up_is_as_before_it(server: Board) -> None:
    server.apply(LIST)
    server.apply([{"pci_address": "0000:03:00.0", "policy": "no_autobind"}])
    assert number(server) == "0"
    assert not any(exists(server, name) for name in VFS)
    assert server.kernel.binding(PF) == NATIVE
    assert "sriov_numvfs" not in (server.file(RULES) or "")


def test_a_number_from_before_the_first_list_is_restored(server: Board) -> None:
    server.kernel.put(NUMBER, "2")
    server.apply(LIST, allow=["consumers"])
    server.apply(LIST)
    server.apply([])
    assert number(server) == "2"
    assert bindings_of(server, VFS[:2]) == [NATIVE, NATIVE]


def test_a_number_from_before_the_first_list_is_not_that_of_another_card(server: Board) -> None:
    server.kernel.put(NUMBER, "2")
    server.apply([FOUR], allow=["consumers"])
    rules = server.file(RULES) or ""
    (of_card,) = [line for line in rules.splitlines() if line.startswith("# pci ids: ")]
    server.write_file(RULES, rules.replace(of_card, of_card.replace("1b36:0010", "144d:a824")))
    server.apply([])
    assert number(server) == "0"


def bindings_of(board: Board, names: list[str]) -> list[tuple[str | None, str | None]]:
    return [board.kernel.binding(name) for name in names]


def test_a_number_that_somebody_has_set_since_is_left(server: Board) -> None:
    server.apply([FOUR])
    server.kernel.put(NUMBER, "0")
    server.kernel.put(NUMBER, "3")
    server.apply([])
    assert number(server) == "3"


def test_the_rules_set_the_number_as_soon_as_the_driver_is_bound(server: Board) -> None:
    server.apply(LIST)
    (rule,) = [
        line for line in (server.file(RULES) or "").splitlines() if 'ATTR{sriov_numvfs}="' in line
    ]
    assert rule == (
        f'ACTION=="add|bind", DRIVER=="?*", SUBSYSTEM=="pci", KERNEL=="{PF}", '
        'ATTR{sriov_numvfs}=="0", ATTR{sriov_numvfs}="4"'
    )


def test_a_number_alone_makes_a_list(server: Board) -> None:
    server.apply([FOUR])
    assert number(server) == "4"
    assert bindings(server) == [NATIVE] * 4
    assert not server.apply([FOUR]).is_changed


def test_native_drivers_get_nothing_if_they_do_not_probe_virtual_functions(server: Board) -> None:
    server.kernel.put(AUTOPROBE, "0")
    server.apply(LIST)
    assert bindings(server) == [VFIO, VFIO, KEPT_OFF, (None, None)]
    assert server.kernel.read(AUTOPROBE) == "0"


@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_number_is_not_changed_while_a_function_is_open(server: Board, after: int) -> None:
    server.apply(LIST)
    (node,) = (
        path
        for path in server.nodes()
        if path.startswith("/dev/vfio/") and is_of(server, path, VFS[1])
    )
    server.process(77, "qemu", node)
    entries = [{**FOUR, "sriov_numvfs": after}, *(entry for entry in LIST[1 : 1 + after])]
    problems = server.refused(entries, allow=["consumers", "group"])
    assert any("is held open by" in problem and VFS[1] in problem for problem in problems)


def is_of(board: Board, node: str, name: str) -> bool:
    group = board.kernel.link_name(f"bus/pci/devices/{name}/iommu_group")
    return node == f"/dev/vfio/{group}"


def test_a_function_that_somebody_else_uses_is_not_removed(server: Board) -> None:
    server.kernel.put(NUMBER, "2")
    problems = server.refused([FOUR])
    assert [problem.partition(". ")[0] for problem in problems] == [
        f"pci device {name} is in use: it is bound to nvme, and a change of sriov_numvfs removes it"
        for name in VFS[:2]
    ]


def test_a_function_with_bound_virtual_ones_keeps_its_driver(server: Board) -> None:
    server.apply(LIST)
    problems = server.refused([{"pci_address": PF, "policy": "vfio"}, *LIST[1:]])
    assert f"its virtual function {VFS[0]} is bound to vfio-pci and would be removed" in problems[0]


@pytest.mark.parametrize("which", range(1, 24))
@pytest.mark.parametrize("earlier", ["0", "2"])
def test_a_run_that_fails_restores_all(server: Board, which: int, earlier: str) -> None:
    if earlier != "0":
        server.kernel.put(NUMBER, earlier)
        server.kernel.put(f"bus/pci/devices/{VFS[0]}/driver_override", "vfio-pci")
    before = server.everything()
    server.kernel.answer(which, errno.EIO)
    with contextlib.suppress(PolicyError):
        server.apply(LIST, allow=["consumers"])
        return
    assert kept(server.everything()) == kept(before)


def kept(everything: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a new function has another number of: its IOMMU group."""
    return {
        path: value
        for path, value in everything.items()
        if "iommu_group" not in path and "sys/class/vfio" not in path
    }


@pytest.mark.parametrize("earlier", ["0", "2"])
def test_a_run_that_is_killed_is_undone_by_the_next(
    server: Board, earlier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier != "0":
        server.kernel.put(NUMBER, earlier)
    before = kept(server.everything())
    for which in range(1, 40):
        server.kernel.answer(which, die)
        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "_roll_back", die)
            try:
                server.apply(LIST, allow=["consumers"])
            except KilledError:
                close_staged_files()
            else:
                break
        (sentence,) = server.apply([], persistent=False, allow=["consumers"]).interrupted
        assert "was interrupted" in sentence
        assert kept(server.everything()) == before
    assert which > len(LIST)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({**FOUR, "sriov_numvfs": 5}, "can have 4 virtual functions, but sriov_numvfs is 5"),
        ({**FOUR, "sriov_numvfs": -1}, "sriov_numvfs is -1"),
        ({**FOUR, "pci_address": "0000:03:00.0"}, "it has no SR-IOV capability"),
        ({**CRYPTO, "policy": "default", "sriov_numvfs": 1}, "it has no SR-IOV capability"),
        ({**FOUR, "policy": "vfio"}, "sriov_numvfs requires policy default or driver"),
        ({**FOUR, "policy": "no_autobind"}, "sriov_numvfs requires policy default or driver"),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    server: Board, entry: dict[str, Any], reason: str
) -> None:
    (problem,) = server.refused([entry])
    assert reason in problem


def test_an_id_that_virtual_functions_share_means_the_physical_one(server: Board) -> None:
    entry = {"pci_id": "1b36:0010", "policy": "default", "sriov_numvfs": 4}
    server.apply([entry])
    assert number(server) == "4"
    assert not server.apply([entry]).is_changed
    assert inspections(server)[PF].drift == []
    server.apply([])
    assert number(server) == "0"


def test_two_numbers_for_a_function_are_refused(server: Board) -> None:
    other = {"pci_id": "1b36:0010", "policy": "default", "sriov_numvfs": 2}
    (problem,) = server.refused([FOUR, other])
    assert "different numbers of virtual functions: 4 and 2. Keep one" in problem


def test_a_virtual_function_that_there_will_not_be_is_an_error(server: Board) -> None:
    (problem,) = server.refused([{**FOUR, "sriov_numvfs": 1}, LIST[2]])
    assert f"pci_address '{VFS[1]}' matches no device" in problem


def test_a_driver_without_virtual_functions_is_named_and_all_is_rolled_back(
    server: Board,
) -> None:
    server.kernel.register(Driver("other", "pci"))
    before = kept(server.everything())
    entry = {**FOUR, "policy": "driver", "driver": "other"}
    with pytest.raises(PolicyError) as caught:
        server.apply([entry])
    assert "cannot set sriov_numvfs to 4 (was 0)" in str(caught.value)
    assert "It is bound to other, which creates no virtual functions" in str(caught.value)
    assert kept(server.everything()) == before


def inspections(board: Board) -> dict[str, Any]:
    return {inspection.device.name: inspection for inspection in board.inspect(None).devices}


def test_the_next_boot_has_the_same_functions(server: Board) -> None:
    server.apply(LIST)
    findings = inspections(server)
    assert findings[PF].sriov == (4, 4, 4)
    assert [findings[name].next_boot.binding for name in VFS] == [VFIO, VFIO, KEPT_OFF, NATIVE]
    assert [findings[name].drift for name in (PF, *VFS)] == [[]] * 5


def test_another_number_than_that_of_the_list_is_drift(server: Board) -> None:
    server.apply([FOUR])
    server.kernel.put(NUMBER, "0")
    assert inspections(server)[PF].drift == [
        "it has 0 virtual functions, but the last-applied configuration requires 4"
    ]


def test_a_function_that_no_list_creates_is_not_there_after_a_boot(server: Board) -> None:
    server.kernel.put(NUMBER, "1")
    finding = inspections(server)[VFS[0]]
    assert not finding.next_boot.is_known
    assert finding.next_boot.reason == (
        f"a reboot removes virtual functions, and no list sets sriov_numvfs of {PF}"
    )


def test_for_the_next_boot_alone_only_the_files_change(server: Board) -> None:
    outcome = server.apply(LIST, runtime=False)
    assert number(server) == "0"
    assert outcome.needs_boot
    assert 'ATTR{sriov_numvfs}="4"' in (server.file(RULES) or "")


def test_a_function_that_is_not_there_yet_gets_the_driver_that_a_module_names(
    server: Board,
) -> None:
    driver = Driver(
        "acme_vfio_pci", "pci", vfio_ids=("1b36:0010:1af4:1100",), module="acme_vfio_pci"
    )
    server.kmod.modules["acme_vfio_pci"] = BoardModule(name="acme_vfio_pci", drivers=(driver,))
    server.apply(LIST)
    assert bindings(server)[:2] == [("acme_vfio_pci", "acme_vfio_pci")] * 2
    assert not server.apply(LIST).is_changed
