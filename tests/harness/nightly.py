"""Parameters of a test of which make test tries some, and make nightly all."""

from __future__ import annotations

from typing import Any

import pytest


def at_night(*values: object) -> list[Any]:
    """Return the values that make nightly alone tries; a tuple has one for each parameter."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.nightly)
        for value in values
    ]
