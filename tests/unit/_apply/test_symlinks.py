"""Runs and rules create and remove symlinks to nodes, and a failed run rolls them back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from board import AMBA, CRYPTO, DMA, Board, acme_board
from simulated_kernel import DeviceEvent, coldplug

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.symlinks import names
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_writes import StagedFile

LEFT: dict[str, Any] = {**CRYPTO, "tag": "left"}
RIGHT: dict[str, Any] = {**CRYPTO, "tag": "right"}
NOIOMMU: dict[str, Any] = {**DMA, "policy": "vfio", "tag": "dma"}
BY_PATH = "by-path/soc:crypto@b000000"
NAME = "b000000.crypto"
DEVICE = f"bus/platform/devices/{NAME}"


def links(board: Board) -> dict[str, str]:
    """Return the targets of all symlinks below /dev/vfio; assert that they exist."""
    targets = {}
    for link in board.kernel.dev.rglob("*"):
        if link.is_symlink():
            assert link.exists(), link
            targets[str(link.relative_to(board.kernel.dev / "vfio"))] = os.readlink(link)
    return targets


def directories(board: Board) -> set[str]:
    return {path.name for path in board.kernel.dev.rglob("by-*")}


def node(board: Board, name: str) -> str:
    """Return the name of the device's own node."""
    (node_name,) = board.kernel.names(f"devices/platform/{name}/vfio-dev")
    return node_name


def apply(board: Board, *entries: dict[str, Any], **settings: Any) -> dict[str, Any]:
    outcome = board.apply(entries, **{"reset_required": False, **settings})
    return {**results.result(outcome), "devices": results.linked(outcome)}


@pytest.mark.parametrize("persistent", [True, False])
def test_a_device_on_vfio_has_links_by_its_path_and_its_tag(
    board: Board, *, persistent: bool
) -> None:
    (reported,) = apply(board, LEFT, persistent=persistent)["devices"]
    own = f"../{node(board, NAME)}"
    assert links(board) == {
        BY_PATH: "../1",
        "by-tag/left": "../1",
        f"devices/{BY_PATH}": own,
        "devices/by-tag/left": own,
    }
    assert set(reported["links"]) == {f"/dev/vfio/{link}" for link in links(board)}
    assert reported["steps"][-1] == f"link its nodes in /dev/vfio as {BY_PATH} and by-tag/left"


@pytest.mark.parametrize("runtime", [True, False])
def test_a_tag_of_two_devices_is_refused_before_anything_is_touched(
    board: Board, *, runtime: bool
) -> None:
    entry = {"compatible": "acme,crypto", "policy": "vfio", "tag": "two"}
    message = board.refusal([entry], reset_required=False, runtime=runtime)
    assert "Tag two must identify one device" in message


def test_a_consumer_that_came_back_with_its_supplier_has_links_to_the_nodes_of_now(
    board: Board,
) -> None:
    supplier = {"dt_path": "/soc/crypto@b001000", "policy": "vfio"}
    board.kernel.add_link("b001000.crypto", NAME)
    reported = apply(board, LEFT, supplier, allow=["consumers"])["devices"]
    assert links(board)["devices/by-tag/left"] == f"../{node(board, NAME)}"
    assert f"/dev/vfio/devices/{node(board, NAME)}" in reported[0]["vfio_nodes"]
    assert not apply(board, LEFT, supplier)["changed"]


def test_links_that_are_right_are_left_alone(board: Board) -> None:
    apply(board, LEFT, AMBA)
    before = board.everything()
    assert not apply(board, LEFT, AMBA)["changed"]
    assert board.everything() == before


def test_a_device_without_an_iommu_has_a_link_to_its_node(board: Board) -> None:
    apply(board, NOIOMMU, unsafe_noiommu=True)
    assert links(board)["by-tag/dma"].startswith("../noiommu-")


def test_what_firmware_calls_a_device_is_told_from_every_other_name() -> None:
    assert names(Identity("platform", "x", dt_path="/soc/a@1"), None) == ("by-path/soc:a@1",)
    acpi = Identity("platform", "x", acpi_path="\\_SB_.VR00")
    assert names(acpi, "t") == ("by-path/_SB_.VR00", "by-tag/t")
    assert names(Identity("platform", "x"), None) == ()
    for odd in ("/a b", "/a:b", "/a\nb", "/a$b", "/" + "x" * 256):
        assert names(Identity("platform", "x", dt_path=odd), None) == ()


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(("before", "after"), [(LEFT, RIGHT), (LEFT, CRYPTO), (CRYPTO, LEFT)])
def test_a_tag_that_changes_changes_links_and_leaves_the_driver_alone(
    board: Board, before: dict[str, Any], after: dict[str, Any], *, persistent: bool
) -> None:
    apply(board, before, persistent=persistent)
    board.kernel.writes.clear()
    seen = links(board)
    predicted = board.check([after], reset_required=False, persistent=persistent)
    assert links(board) == seen
    result = apply(board, after, persistent=persistent)
    tags = {after["tag"]} if "tag" in after else set()
    assert {link.rpartition("/")[2] for link in links(board) if "by-tag" in link} == tags
    assert result["changed"]
    assert result["diff"] == results.result(predicted)["diff"]
    assert result["diff"][0]["before"] != result["diff"][0]["after"]
    assert not board.kernel.writes
    assert not apply(board, after, persistent=persistent)["changed"]


def test_a_link_that_is_gone_or_wrong_is_made_anew(board: Board) -> None:
    apply(board, LEFT)
    right = links(board)
    link = board.kernel.dev / "vfio" / BY_PATH
    for break_it in (lambda: None, lambda: link.symlink_to("../vfio")):
        link.unlink()
        break_it()
        result = apply(board, LEFT)
        assert links(board) == right
        assert result["devices"][0]["changed"]


def test_links_go_with_the_device_and_folders_with_the_last_link(board: Board) -> None:
    apply(board, LEFT, {**AMBA, "tag": "blob"})
    result = apply(board, {**AMBA, "tag": "blob"})
    assert {link.rpartition("/")[2] for link in links(board)} == {"soc:blob@b008000", "blob"}
    assert "remove the link /dev/vfio/by-tag/left" in result["host_steps"]
    assert {"before_header": "links"}.items() <= result["diff"][1].items()
    apply(board)
    assert links(board) == {}
    assert directories(board) == set()
    assert not apply(board)["changed"]


def test_what_others_have_there_is_never_replaced_or_removed(board: Board) -> None:
    (board.kernel.dev / "vfio/by-path").mkdir()
    (board.kernel.dev / "vfio/by-tag").mkdir()
    (board.kernel.dev / "vfio/by-path/pci-0000:00:01.0").symlink_to("../vfio")
    file = board.kernel.dev / "vfio/by-tag/left"
    file.write_text("mine")
    before = board.everything()
    with pytest.raises(
        PolicyError, match="/dev/vfio/by-tag/left exists and is not a symbolic link"
    ):
        apply(board, LEFT)
    assert board.everything() == before
    apply(board, CRYPTO)
    apply(board)
    assert file.read_text() == "mine"
    assert links(board) == {"by-path/pci-0000:00:01.0": "../vfio"}


def test_a_link_that_leads_nowhere_is_removed(board: Board) -> None:
    (board.kernel.dev / "vfio/by-path").mkdir()
    (board.kernel.dev / "vfio/by-path/soc:gone").symlink_to("../77")
    apply(board)
    assert directories(board) == set()


def test_info_shows_tag_and_links(board: Board) -> None:
    apply(board, LEFT)
    devices = board.devices()
    assert devices[NAME]["claimed_by"] == LEFT
    assert set(devices[NAME]["links"]) == {f"/dev/vfio/{link}" for link in links(board)}
    assert devices["b001000.crypto"]["links"] == []


def test_a_run_that_fails_puts_links_back(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(board, LEFT, NOIOMMU, unsafe_noiommu=True)
    before = links(board)
    commit = StagedFile.commit
    refused: list[str] = []

    def fail_once(staged: StagedFile) -> None:
        if not refused:
            refused.append(staged.path)
            raise PolicyError("no")
        commit(staged)

    for entries in ([], [RIGHT], [{**AMBA, "tag": "left"}]):
        refused.clear()
        with monkeypatch.context() as patch:
            patch.setattr(StagedFile, "commit", fail_once)
            with pytest.raises(PolicyError, match="Nothing was changed"):
                apply(board, *entries)
        after = links(board)
        assert after.keys() == before.keys()
        assert after["by-tag/left"] == "../1"


# Links that the rules create. The links of the module are removed first.


def without_links(board: Board) -> Board:
    for link in list(links(board)):
        (board.kernel.dev / "vfio" / link).unlink()
    return board


@pytest.mark.parametrize(
    ("entries", "asked"),
    [
        ([LEFT, AMBA], {}),
        ([{"compatible": "acme,crypto", "policy": "vfio"}], {}),
        ([{"name": NAME, "policy": "vfio", "tag": "by-name"}], {}),
        ([{"dt_path": "crypto0", "policy": "vfio", "tag": "by-alias"}], {}),
        ([NOIOMMU], {"unsafe_noiommu": True}),
    ],
)
def test_the_rules_make_the_same_links(
    board: Board, entries: list[dict[str, Any]], asked: dict[str, Any]
) -> None:
    apply(board, *entries, **asked)
    right = links(board)
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert links(board) == right
    assert not apply(board, *entries, **asked)["changed"]


def test_the_rules_name_a_device_of_acpi_by_its_path_there(tmp_path: Path) -> None:
    board = acme_board(tmp_path)
    acpi = ("\\_SB_.VR00", "LNRO0005")
    board.kernel.add_device("LNRO0005:00", acpi=acpi)
    apply(board, {"acpi_path": acpi[0], "policy": "vfio"}, unsafe_noiommu=True)
    right = links(board)
    assert "by-path/_SB_.VR00" in right
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert links(board) == right


def test_the_rules_keep_the_comma_of_a_path(board: Board) -> None:
    board.kernel.add_device("5.eth", "/pcie@1/eth@5,0", ("acme,eth",), iommus=True)
    apply(board, {"dt_path": "/pcie@1/eth@5,0", "policy": "vfio"})
    right = links(board)
    assert set(right) == {"by-path/pcie@1:eth@5,0", "devices/by-path/pcie@1:eth@5,0"}
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert links(board) == right


def test_the_rules_remove_links_when_the_device_is_unbound_and_make_them_when_it_is_back(
    board: Board,
) -> None:
    apply(board, LEFT, {"dt_path": "/soc/crypto@b001000", "policy": "vfio"})
    right, other = links(board), "b001000.crypto"
    kernel, rules = board.kernel, board.file(RULES) or ""
    for name in (NAME, other):
        kernel.write("bus/platform/drivers/vfio-platform/unbind", name)
        DeviceEvent(kernel, board.kmod, name, "unbind").run(rules)
    assert links(board) == {}
    for name in (other, NAME):
        kernel.write("bus/platform/drivers/vfio-platform/bind", name)
        event = DeviceEvent(kernel, board.kmod, name, "bind")
        event.run(rules)
        event.run_for_nodes(rules)
    assert links(board).keys() == right.keys()
    assert links(board)["devices/by-tag/left"] == f"../{node(board, NAME)}"
    assert not apply(board, LEFT, {"dt_path": "/soc/crypto@b001000", "policy": "vfio"})["changed"]


def test_an_odd_name_of_firmware_gets_into_no_command(board: Board) -> None:
    odd = "/soc/a b@1"
    board.kernel.add_device("1.odd", odd, ("acme,odd",), iommus=True)
    apply(board, {"compatible": "acme,odd", "policy": "vfio", "tag": "odd"})
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert set(links(board)) == {"by-tag/odd", "devices/by-tag/odd"}


@pytest.mark.parametrize("said", ["OF_FULLNAME=/x\t-rf\tsrv", "OF_FULLNAME=/soc/crypto@b001000"])
def test_a_line_of_the_firmware_in_the_file_of_an_event_is_no_property(
    board: Board, said: str
) -> None:
    board.kernel.add_device("1.odd", "/soc/odd@1", ("acme,odd", f"acme,x\n{said}"), iommus=True)
    apply(board, {"compatible": "acme,odd", "policy": "vfio"})
    right = links(board)
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert links(board) == right
    assert set(right) == {"by-path/soc:odd@1", "devices/by-path/soc:odd@1"}
    board.kernel.write("bus/platform/drivers/vfio-platform/unbind", "1.odd")
    event = DeviceEvent(board.kernel, board.kmod, "1.odd", "unbind")
    event.run(board.file(RULES) or "")
    removed = [words for words in event.programs if words[0] == "/bin/rm"]
    names = ("/dev/vfio/by-path/soc:odd@1", "/dev/vfio/devices/by-path/soc:odd@1")
    assert removed == [["/bin/rm", "-f", "--", *names]]


@pytest.mark.parametrize("name", ["1.odd -ee", "-e 1.odd", "1.odd  ..!etc", "Fixed MDIO bus.0"])
def test_a_device_with_blanks_in_its_name_is_one_operand_of_a_command(
    board: Board, name: str
) -> None:
    board.kernel.add_device(name, "/soc/odd@1", ("acme,odd",), iommus=True)
    apply(board, {"compatible": "acme,odd", "policy": "vfio"})
    right = links(board)
    coldplug(without_links(board).kernel, board.kmod, board.file(RULES) or "")
    assert links(board) == right
    assert set(right) == {"by-path/soc:odd@1", "devices/by-path/soc:odd@1"}


@pytest.mark.parametrize(
    "name",
    [
        *("1.odd\t--in-place", "1.odd\nx", "1.odd' -ee '", "it's", '1.odd" -ee "', "1.odd\\x"),
        *("1.odd;x", "1.odd$x", "1.odd`x", "1.odd(x", "1.oddé", "1.odd\xa0-ee"),
    ],
)
def test_a_device_with_an_odd_name_has_no_command_run(board: Board, name: str) -> None:
    board.kernel.add_device(name, "/soc/odd@1", ("acme,odd",), iommus=True)
    apply(board, {"compatible": "acme,odd", "policy": "vfio"})
    event = DeviceEvent(board.kernel, board.kmod, name, "bind")
    event.run(board.file(RULES) or "")
    assert event.programs == []
