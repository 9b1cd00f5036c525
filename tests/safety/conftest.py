"""That nobody is hurt, on a real arm64 kernel.

On boards d and e, so that it can run beside tests/integration.
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
