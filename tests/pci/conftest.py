"""PCI functions on a real arm64 kernel, with the kernel of ``--kernel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.guests import (
    inventory,
    kernel,
    released_guest,
    start,
    states,
    unchanged_guest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest import Guest

__all__ = ["inventory", "kernel", "released_guest", "start", "states", "unchanged_guest"]


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    """Start a guest with board pci; its functions are those of tests.pci.functions."""
    guest = start(f"test-pci-{kernel.replace('.', '-')}", "pci", kernel)
    # Drivers that are modules bind after the boot.
    guest.run("udevadm settle")
    return guest
