"""A model of a real board, on which all that the machine needs are platform devices.

The files share a guest, because each boot costs a minute, and leave it as they found it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest.packages import STOCK_SERIES
from tests.harness.guests import Guests, inventory, states, unchanged_guest
from tests.versal.devices import FURNISH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest import Guest

__all__ = ["inventory", "states", "unchanged_guest"]


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """Start a guest with a mounted SD card and swap, both of which are in /etc/fstab."""
    guests = Guests()
    guest = guests.start("test-versal", "versal", STOCK_SERIES)
    guest.run(FURNISH)
    yield guest
    guests.stop()
