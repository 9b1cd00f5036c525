"""The removal of the pull from a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.sysfs import bindings, files
from tests.pull.pulling import HOST, RINGS, ensure_pulling, failed_units, remains, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest
    from tests.pull.repository import Keys, Repository

pytestmark = pytest.mark.nightly

VFIO = ("vfio-platform", "vfio-platform")


def test_the_removal_leaves_the_devices_and_nothing_else(
    guest: Guest, inventory: Path, repository: Repository, keys: Keys
) -> None:
    ensure_pulling(guest, inventory, repository, keys)
    before = bindings(guest, RINGS), files(guest)
    set_up(inventory, pull_state="absent")
    assert remains(guest) == []
    assert failed_units(guest) == ""
    assert (bindings(guest, RINGS), files(guest)) == before
    assert before[0][0] == VFIO
    assert set_up(inventory, pull_state="absent").changed == {HOST: 0}
