# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries have the same selectors and options in all modules."""

from __future__ import annotations

from ansible_collections.armfleet.vfio.plugins.module_utils import _argspec
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import KINDS


def test_an_entry_has_exactly_one_selector_of_those_that_there_are() -> None:
    devices = _argspec.devices()
    assert devices["required_one_of"] == [list(KINDS)]
    kinds = [frozenset(kinds) for kinds in devices["mutually_exclusive"]]
    # A pci_id says which card is to be at a pci_address.
    assert set(kinds) == {frozenset(KINDS) - {"pci_id"}, frozenset(KINDS) - {"pci_address"}}
    others = {"acpi_uid", "bus", "expect", "required", "when_board"}
    assert devices["options"].keys() == {*KINDS, *others}
