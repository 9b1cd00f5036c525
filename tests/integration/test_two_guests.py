"""Two hosts with different boards in one play."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest import Guest, write_inventory
from tests.harness.playbook import play
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.nightly
def test_one_list_for_two_boards(start: Callable[[str, str], Guest], tmp_path: Path) -> None:
    guests = {"test-a": start("test-a", "a"), "test-b": start("test-b", "b")}
    inventory = tmp_path / "hosts.yml"
    write_inventory(inventory, list(guests.values()))
    variables = {
        "passthrough_reset_required": False,
        "passthrough_devices": [
            {"compatible": "acme,dma", "policy": "vfio"},
            {"dt_path": "crypto0", "policy": "vfio", "required": False},
            {"dt_path": "/soc/accel@b00a000", "policy": "vfio", "required": False},
        ],
    }
    first = play(inventory, "armfleet.vfio.apply", variables=variables)
    assert first.code == 0, first.output
    # The task of the list; there is no initramfs to rebuild.
    assert first.changed == {"test-a": 1, "test-b": 1}
    a, b = (read_machine(guest) for guest in guests.values())
    assert a.at("/soc/crypto@b000000").driver == "vfio-platform"
    assert a.at("/soc/dma@b002000").driver == "vfio-platform"
    assert b.at("/soc/dma@b001000").driver == "vfio-platform"
    assert b.at("/soc/accel@b00a000").driver == "vfio-platform"
    assert all(device.tree_path != "/soc/crypto@b000000" for device in b.devices)
    again = play(inventory, "armfleet.vfio.apply", variables=variables)
    assert again.changed == {"test-a": 0, "test-b": 0}
    released = play(inventory, "armfleet.vfio.release")
    assert released.changed == {"test-a": 1, "test-b": 1}
