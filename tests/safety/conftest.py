"""Hazards on a real arm64 kernel: nothing that is in use is unbound.

The guests are not those of tests/integration, so that both can run at the same time.
"""

from __future__ import annotations

from tests.harness.guests import (
    inventory,
    released_guest,
    start,
    states,
    unchanged_guest,
)

__all__ = ["inventory", "released_guest", "start", "states", "unchanged_guest"]
