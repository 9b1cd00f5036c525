"""Selectors are resolved to the devices of a machine; errors say why one matches none."""

from __future__ import annotations

from pathlib import Path

import pytest
from board import Board
from simulated_kernel import TREE

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import resolve
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import Selector


def names(board: Board, *selectors: Selector) -> list[list[str]]:
    return [
        [device.name for device in devices] for devices in resolve(board.kernel, list(selectors))
    ]


def why_not(board: Board, *selectors: Selector) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        resolve(board.kernel, list(selectors))
    assert not board.kernel.writes
    return caught.value.problems


def path(value: str) -> Selector:
    return Selector("dt_path", value)


def test_each_kind_of_selector_finds_its_devices(board: Board) -> None:
    board.kernel.add_device("LNRO0005:00", acpi=("\\_SB_.VR00", "LNRO0005"))
    assert names(
        board,
        path("/soc/ethernet@e0700000"),
        Selector("compatible", "acme,crypto"),
        Selector("name", "b008000.blob"),
        Selector("acpi_path", "\\_SB_.VR00"),
        Selector("acpi_hid", "LNRO0005"),
    ) == [
        ["b004000.ethernet"],
        ["b000000.crypto", "b001000.crypto"],
        ["b008000.blob"],
        ["LNRO0005:00"],
        ["LNRO0005:00"],
    ]


def test_aliases_are_followed_with_and_without_a_rest(board: Board) -> None:
    assert names(board, path("crypto0"), path("soc/dma@b002000")) == [
        ["b000000.crypto"],
        ["b002000.dma"],
    ]


def test_an_alias_that_is_not_there_is_said_to_be_none(board: Board) -> None:
    (problem,) = why_not(board, path("crypto7"))
    assert "this machine has no device-tree alias 'crypto7'" in problem
    assert names(board, path("crypto7")._replace(required=False)) == [[]]


def test_the_name_property_of_the_aliases_is_no_alias(board: Board) -> None:
    board.kernel.put(f"{TREE}/aliases/name", "aliases\0")
    (problem,) = why_not(board, path("name"))
    assert "no device-tree alias" in problem


def test_a_helper_device_that_shares_a_node_is_not_meant_by_it(board: Board) -> None:
    board.kernel.add_device("xhci-hcd.0.auto", "/soc/crypto@b000000", ("acme,crypto",))
    assert names(board, path("/soc/crypto@b000000"), Selector("compatible", "acme,crypto")) == [
        ["b000000.crypto"],
        ["b000000.crypto", "b001000.crypto"],
    ]
    assert names(board, Selector("name", "xhci-hcd.0.auto")) == [["xhci-hcd.0.auto"]]


def test_a_helper_device_that_shares_an_acpi_node_is_not_meant_by_it(board: Board) -> None:
    board.kernel.add_device("HID00001:00", acpi=("\\_SB_.X000", "HID00001"))
    board.kernel.add_device("helper.0.auto", acpi=("\\_SB_.X000", "HID00001"))
    assert names(board, Selector("acpi_path", "\\_SB_.X000"), Selector("acpi_hid", "HID00001")) == [
        ["HID00001:00"],
        ["HID00001:00"],
    ]


def test_a_number_other_than_expected_is_an_error_that_lists_the_devices(board: Board) -> None:
    (problem,) = why_not(board, Selector("compatible", "acme,crypto", expect=3))
    assert "matches 2 devices, but expect is 3" in problem
    assert "/soc/crypto@b000000, /soc/crypto@b001000" in problem
    assert names(board, Selector("compatible", "acme,crypto", expect=2))


def test_what_is_not_required_may_be_missing_even_where_a_number_is_expected(
    board: Board,
) -> None:
    assert names(board, Selector("compatible", "acme,gone", expect=2, required=False)) == [[]]
    (problem,) = why_not(board, Selector("compatible", "acme,gone"))
    assert "matches no device" in problem
    assert "required: false" in problem


def test_every_problem_is_told_at_once(board: Board) -> None:
    problems = why_not(board, path("/gone"), path("gone"), Selector("name", "gone"))
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("/soc/gone@1/x", "no such node; list them with 'ls /proc/device-tree/soc'"),
        ("/soc/off@1", "status is 'disabled'"),
        ("/soc/off@1/child", "is below /soc/off@1, whose status is not okay"),
        ("/soc/plain", "has no compatible"),
        ("/i2c/pmic@1b", "its device is 0-001b on the i2c bus"),
        ("/soc/codec@1/port", "its parent /soc/codec@1 is not a bus"),
        ("/intc", "interrupt controllers"),
    ],
)
def test_it_is_said_why_a_path_has_no_device(board: Board, node: str, reason: str) -> None:
    kernel = board.kernel
    kernel.add_node("/soc/off@1", ("acme,off",), status="disabled")
    kernel.add_node("/soc/off@1/child", ("acme,child",))
    kernel.add_node("/soc/plain")
    kernel.add_node("/i2c/pmic@1b", ("acme,pmic",))
    kernel.add_foreign_device("i2c", "0-001b", "/i2c/pmic@1b")
    kernel.add_node("/soc/codec@1", ("acme,codec",))
    kernel.add_node("/soc/codec@1/port", ("acme,port",))
    kernel.add_node("/intc", ("arm,gic-v3",))
    (problem,) = why_not(board, path(node))
    assert reason in problem


@pytest.mark.parametrize("has_empty_tree", [True, False])
def test_on_a_machine_with_acpi_a_path_is_refused_with_what_to_use(
    tmp_path: Path, has_empty_tree: bool
) -> None:
    board = Board(tmp_path)
    if has_empty_tree:
        board.kernel.add_node("/chosen")
    (problem,) = why_not(board, path("/soc/x"))
    assert "did not boot with a device tree" in problem
    assert "acpi_path" in problem
