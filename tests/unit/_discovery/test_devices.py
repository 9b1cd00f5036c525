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


ENGINE = ("\\_SB_.ENG0", "PRP0001")


def test_a_name_may_have_what_the_kernel_allows(board: Board) -> None:
    odd = ["Fixed MDIO bus.0", "a!b", "it's 100% (a) = $b", "virtio0.rpmsg,x.-1.1024"]
    for name in odd:
        board.kernel.add_device(name)
    assert names(board, *(Selector("name", name) for name in odd)) == [[name] for name in odd]


def test_devices_with_the_same_hardware_id_are_told_apart_by_their_uid(board: Board) -> None:
    for number, uid in enumerate(["0", "00", "CPU 0", None]):
        acpi = (f"\\_SB_.RNG{number}", "ACME0001")
        board.kernel.add_device(f"ACME0001:0{number}", acpi=acpi, uid=uid)
    by_hid = Selector("acpi_hid", "ACME0001")
    assert names(
        board,
        by_hid._replace(acpi_uid="0"),
        by_hid._replace(acpi_uid="00"),
        by_hid._replace(acpi_uid="CPU 0"),
        by_hid,
    ) == [
        ["ACME0001:00"],
        ["ACME0001:01"],
        ["ACME0001:02"],
        [f"ACME0001:0{number}" for number in range(4)],
    ]
    (problem,) = why_not(board, by_hid._replace(acpi_uid="1"))
    assert problem == (
        "acpi_hid 'ACME0001' with acpi_uid '1' matches no device: the devices with that acpi_hid "
        "have acpi_uid 0, 00, CPU 0, none. If the device may be missing, set `required: false`"
    )
    (problem,) = why_not(board, Selector("acpi_hid", "ACME0002", acpi_uid="1"))
    assert "this machine did not boot with ACPI" in problem


@pytest.mark.parametrize("hid", ["PRP0001", "ACME0001"])
def test_a_device_that_acpi_describes_by_compatibles_is_selected_by_them(
    board: Board, hid: str
) -> None:
    board.kernel.add_device(
        f"{hid}:00", acpi=("\\_SB_.ENG0", hid), compatible=("acme,engine-v1", "acme,engine")
    )
    by = Selector("compatible", "acme,engine", required=False)
    assert names(
        board,
        by,
        by._replace(value="acme,engine-v1"),
        *(by._replace(value=value) for value in ("acme,eng", "engine", "acme", "PRP0001", hid)),
    ) == [[f"{hid}:00"], [f"{hid}:00"], [], [], [], [], []]


@pytest.mark.parametrize(
    "modalias", ["acpi:ACME0001:", "of:NengTC", "of:NeTCacme,engine", "", "of:Neng0T", "TC" * 9]
)
def test_what_is_no_modalias_of_a_compatible_of_acpi_has_none(board: Board, modalias: str) -> None:
    board.kernel.add_device("ENG0:00", acpi=ENGINE)
    board.kernel.put("devices/platform/ENG0:00/modalias", f"{modalias}\n")
    assert names(board, Selector("compatible", "acme,engine", required=False)) == [[]]


def test_a_helper_device_does_not_have_the_compatibles_of_its_acpi_node(board: Board) -> None:
    for name in ("PRP0001:00", "helper.0.auto"):
        board.kernel.add_device(name, acpi=ENGINE, compatible=("acme,engine",))
    assert names(board, Selector("compatible", "acme,engine")) == [["PRP0001:00"]]


@pytest.mark.parametrize(
    ("selector", "proper"),
    [
        (
            Selector("name", "acme,crypto"),
            "that is a `compatible`. Use `compatible: 'acme,crypto'`",
        ),
        (Selector("compatible", "LNRO0005"), "that is an `acpi_hid`. Use `acpi_hid: 'LNRO0005'`"),
        (path("/sys/bus/platform/devices/x.0"), "that is a `name`. Use `name: 'x.0'`"),
        (path("b000000.crypto"), "that is a `name`. Use `name: 'b000000.crypto'`"),
    ],
)
def test_a_value_of_another_selector_that_matches_nothing_is_answered_with_the_right_entry(
    board: Board, selector: Selector, proper: str
) -> None:
    (problem,) = why_not(board, selector)
    assert proper in problem
