"""What users do, on a real arm64 kernel.

On boards a to c and with ACPI, so that it can run beside tests/safety.
"""

from __future__ import annotations

from tests.harness.guests import (
    guest,
    inventory,
    kernel,
    released_guest,
    start,
    states,
    unchanged_guest,
)

__all__ = ["guest", "inventory", "kernel", "released_guest", "start", "states", "unchanged_guest"]
