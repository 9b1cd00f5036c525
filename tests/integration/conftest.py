"""What users do, on a real arm64 kernel.

The guests are not those of tests/safety, so that both can run at the same time.
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
