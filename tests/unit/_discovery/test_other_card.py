"""An address with an id beside it: what is at the address need not be what the entry is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import resolve_all
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector_entry import parse
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

ADDRESS, ID, WHOLE_ID, OTHER_ID = "0000:01:00.0", "8086:10d3", "8086:10d3:8086:a01f", "1b36:0010"


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    function = tmp_path / "bus/pci/devices" / ADDRESS
    function.mkdir(parents=True)
    (function / "modalias").write_text("pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00\n")
    return Sysfs(str(tmp_path))


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("pci_id", [None, ID, WHOLE_ID])
def test_the_card_is_matched_by_any_of_its_ids(
    sysfs: Sysfs, pci_id: str | None, required: bool
) -> None:
    entry = {"pci_address": ADDRESS, "pci_id": pci_id, "required": required}
    resolved = resolve_all(sysfs, [parse(entry)])
    assert [device.name for device in resolved.devices[0]] == [ADDRESS]
    assert not resolved.problems


def test_another_card_is_an_error(sysfs: Sysfs) -> None:
    resolved = resolve_all(sysfs, [parse({"pci_address": ADDRESS, "pci_id": OTHER_ID})])
    assert resolved.devices == [[]]
    assert resolved.problems[0].startswith(
        f"pci_address '{ADDRESS}' is for a card with pci_id '{OTHER_ID}', but {WHOLE_ID} is there"
    )


def test_another_card_is_no_match_of_an_entry_that_is_not_required(sysfs: Sysfs) -> None:
    """As each entry of the list that was applied last, which is not to fail a run."""
    entry = {"pci_address": ADDRESS, "pci_id": OTHER_ID, "required": False}
    resolved = resolve_all(sysfs, [parse(entry)])
    assert resolved.devices == [[]]
    assert not resolved.problems
