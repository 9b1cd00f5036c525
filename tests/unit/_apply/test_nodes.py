"""Group and mode of VFIO's nodes are set at run time, kept by reruns and part of the rules."""

from __future__ import annotations

import grp
import os

import pytest
from board import AMBA, CRYPTO, Board
from simulated_kernel import coldplug

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.node_access import NodeAccess
from ansible_collections.armfleet.vfio.plugins.module_utils._report import results

OWN = grp.getgrgid(os.getgid()).gr_name
OPEN = NodeAccess(OWN, "0660")


def test_nodes_stay_as_the_kernel_makes_them_unless_asked(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    assert set(board.nodes().values()) == {"0600"}
    assert "MODE=" not in (board.file(RULES) or "")


def test_nodes_get_the_group_and_mode_that_are_asked_for(board: Board) -> None:
    outcome = board.apply([CRYPTO, AMBA], reset_required=False, access=OPEN)
    assert len(board.nodes()) == 4
    assert set(board.nodes().values()) == {"0660"}
    assert all(
        "group %s, mode 0660" % OWN in device["steps"][-2]
        for device in results.result(outcome)["devices"]
    )
    assert f'GROUP="{OWN}", MODE="0660"' in (board.file(RULES) or "")


def test_the_rules_open_nodes_of_the_list_and_no_others(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False, access=OPEN)
    other = "b001000.crypto"
    board.kernel.write(f"devices/platform/{other}/driver_override", "vfio-platform")
    board.kernel.write("bus/platform/drivers/acme-crypto/unbind", other)
    board.kernel.write("bus/platform/drivers/vfio-platform/bind", other)
    right = board.nodes()
    assert sorted(right.values()) == ["0600", "0600", "0660", "0660"]
    for path in right:
        (board.kernel.dev / path[len("/dev/") :]).chmod(0o600)
    coldplug(board.kernel, board.kmod, board.file(RULES) or "")
    assert board.nodes() == right


def test_nodes_that_are_so_already_are_left_alone(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False, access=OPEN)
    assert not board.apply([CRYPTO], reset_required=False, access=OPEN).is_changed


def test_nodes_of_a_device_that_stays_bound_are_opened_and_the_diff_says_so(
    board: Board,
) -> None:
    board.apply([CRYPTO], reset_required=False)
    board.kernel.writes.clear()
    predicted = board.check([CRYPTO], reset_required=False, access=OPEN)
    assert set(board.nodes().values()) == {"0600"}
    outcome = board.apply([CRYPTO], reset_required=False, access=OPEN)
    assert set(board.nodes().values()) == {"0660"}
    assert not board.kernel.writes
    (devices, *_files) = results.result(outcome)["diff"]
    assert devices["before"] != devices["after"]
    assert "mode 0660" in devices["after"]
    assert results.result(predicted)["diff"] == results.result(outcome)["diff"]


def test_a_device_that_is_not_for_vfio_has_no_nodes_to_give(board: Board) -> None:
    outcome = board.apply([{"name": "b002000.dma", "policy": "no_autobind"}], access=OPEN)
    assert not [
        step
        for device in results.result(outcome)["devices"]
        for step in device["steps"]
        if "nodes" in step
    ]


@pytest.mark.parametrize("runtime", [True, False])
def test_a_group_that_does_not_exist_is_refused_before_anything_is_touched(
    board: Board, runtime: bool
) -> None:
    access = NodeAccess("no-such-group", None)
    message = board.refusal([CRYPTO], reset_required=False, runtime=runtime, access=access)
    assert "Group no-such-group (`vfio_group`) does not exist" in message


def test_without_a_dev_for_vfio_the_missing_node_is_told_and_all_is_put_back(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = board.kernel.bindings()
    monkeypatch.setattr(board.kernel.vfio_nodes, "write_out", lambda: None)
    with pytest.raises(PolicyError, match="/dev/vfio/1"):
        board.apply([CRYPTO], reset_required=False, access=OPEN)
    assert board.kernel.bindings() == before
    assert board.file(RULES) is None
