# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host is outdated if its variables have another list than the one that it has applied."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    digest,
    to_options,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.plugin_utils._inventory_list import (
    is_applied,
    is_compared,
    not_compared,
    outdated,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._passthrough_role import DEFAULTS

CRYPTO = {"dt_path": "/soc/crypto@b000000", "policy": "vfio"}
DMA = {"compatible": "acme,dma", "policy": "no_autobind", "expect": 2, "required": False}
BOARD = {"compatible": ["acme,board"], "product_name": None, "board_name": None}


def answer(*entries: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "policy_digest": digest(parse_entries(entries), to_options(**options)),
        "board": BOARD,
    }


def options(*entries: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {**DEFAULTS, "devices": list(entries), **given}


SAME = [
    (options(CRYPTO), answer(CRYPTO)),
    (options(), answer()),
    (options(CRYPTO, state="absent"), answer()),
    (options(CRYPTO, DMA, reset_required=False), answer(CRYPTO, DMA, reset_required=False)),
    (options({**DMA, "expect": "2", "required": "no"}), answer(DMA)),
    (options(CRYPTO, {**DMA, "when_board": "other"}), answer(CRYPTO)),
    (
        options({**DMA, "when_board": "acme,board"}),
        answer({**DMA, "when_board": ["acme,board"]}),
    ),
    (options(CRYPTO, unsafe_noiommu="yes"), answer(CRYPTO, unsafe_noiommu=True)),
    (options(CRYPTO, vfio_group="kvm"), answer(CRYPTO, vfio_group="kvm")),
    (options(CRYPTO, timeout=5, allow=["storage"], runtime=False), answer(CRYPTO)),
    (options(CRYPTO, initramfs="never"), answer(CRYPTO, initramfs="never")),
]
OTHER = [
    (options(DMA), answer(CRYPTO)),
    (options(CRYPTO), answer()),
    (options(), answer(CRYPTO)),
    (options(CRYPTO, DMA), answer(DMA, CRYPTO)),
    (options(CRYPTO), answer(CRYPTO, reset_required=False)),
    (options(CRYPTO, initramfs="never"), answer(CRYPTO)),
]


@pytest.mark.parametrize(("given", "answered"), SAME)
def test_the_list_of_the_variables_is_applied(given: Any, answered: Any) -> None:
    assert is_applied(given, answered)


@pytest.mark.parametrize("name", ["acme,vm", "Acme Server", "ACME-X1"])
def test_a_board_is_known_by_each_of_its_names(name: str) -> None:
    names = {
        "compatible": ["acme,vm"],
        "product_name": "Acme Server",
        "board_name": "ACME-X1",
    }
    entry = {**DMA, "when_board": [name]}
    assert is_applied(options(entry), {**answer(entry), "board": names})
    assert not is_applied(options(entry), answer(entry))


@pytest.mark.parametrize(("given", "answered"), OTHER)
def test_another_list_or_other_options_are_applied(given: Any, answered: Any) -> None:
    assert not is_applied(given, answered)


@pytest.mark.parametrize(
    "given",
    [
        options({"policy": "vfio"}),
        options({**CRYPTO, "policy": "magic"}),
        options(CRYPTO, vfio_mode="rw"),
        {**options(), "devices": "{"},
    ],
)
def test_a_list_that_the_role_refuses_cannot_be_compared(given: Any) -> None:
    with pytest.raises(PolicyError):
        is_applied(given, answer(CRYPTO))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"state": "absent"}, True),
        ({"persistent": False}, False),
        ({"persistent": "no"}, False),
        ({"state": "previous"}, False),
    ],
)
def test_only_a_persistent_list_is_compared(given: Any, expected: bool) -> None:
    assert is_compared({**options(), **given}) is expected


@pytest.mark.parametrize(
    ("state", "after", "words"),
    [
        ("in_sync", "outdated", "It is in sync with another list"),
        ("unmanaged", "outdated", "It has no list, but"),
        ("drift", "drift", "Fine. Its list is not that of the inventory, either."),
        ("reboot_required", "reboot_required", "not that of the inventory"),
    ],
)
def test_drift_is_more_urgent_than_another_list(state: str, after: str, words: str) -> None:
    compared = outdated({"state": state, "message": "Fine."})
    assert compared["state"] == after
    assert words in compared["message"]


def test_variables_that_cannot_be_evaluated_are_a_sentence() -> None:
    assert not_compared({"state": "in_sync", "message": "Fine."}, "x is\nundefined.") == {
        "state": "in_sync",
        "message": "Fine. Its list in the inventory cannot be evaluated: x is undefined.",
    }
