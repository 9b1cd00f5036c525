"""PCI functions on a real arm64 kernel, with the kernel of ``--kernel``.

The files share a guest, because each boot costs half a minute, and leave it as they found it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.guests import (
    Guests,
    inventory,
    kernel,
    released_guest,
    start,
    states,
    unchanged_guest,
)
from tests.pci.functions import FIRST, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest import Guest

__all__ = ["inventory", "kernel", "released_guest", "start", "states", "unchanged_guest"]

# nvme probes all functions at once, and on a slow machine one of two that are in the same group was
# left without its driver after the boot.
_PROBE_AGAIN = f"""
for function in {FIRST} {SECOND}; do
    [ -e /sys/bus/pci/devices/$function/driver ] || echo $function > /sys/bus/pci/drivers_probe
done
"""


@pytest.fixture(scope="session")
def guest(kernel: str) -> Iterator[Guest]:
    """Start a guest with board pci; its functions are those of tests.pci.functions."""
    guests = Guests()
    guest = guests.start(f"test-pci-{kernel.replace('.', '-')}", "pci", kernel)
    guest.run(_PROBE_AGAIN)
    yield guest
    guests.stop()
