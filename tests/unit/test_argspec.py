# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries have the same selectors and options in all modules."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import (
    CONFIRMED_BY,
    KINDS,
)

PAIRS = [*itertools.combinations(KINDS, 2)]


def test_an_entry_has_at_least_one_selector_of_those_that_there_are() -> None:
    devices = _argspec.devices()
    assert devices["required_one_of"] == [list(KINDS)]
    others = {"acpi_uid", "bus", "expect", "required", "when_board"}
    assert devices["options"].keys() == {*KINDS, *others}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_an_entry_has_two_selectors_only_if_one_confirms_the_other(pair: tuple[str, str]) -> None:
    groups = _argspec.devices()["mutually_exclusive"]
    is_excluded = any({*pair} <= {*group} for group in groups)
    assert is_excluded == (pair not in CONFIRMED_BY.items())


def test_a_pci_id_confirms_which_card_is_at_a_pci_address() -> None:
    assert CONFIRMED_BY == {"pci_address": "pci_id"}
