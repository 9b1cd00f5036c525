"""Finds options without backquotes in messages, which a role could not rename to its own."""

from __future__ import annotations

import re

_OURS = "reset_required|unsafe_noiommu|unsafe_interrupts|unsafe_vfio_mode|vfio_group|vfio_mode"
_GENERIC = "allow|runtime|persistent|timeout|initramfs|driverctl|state|rollout"
_VALUES = (
    r"true|false|refuse|take_over|auto|always|never|present|absent|previous|given|\[|\d|in seconds"
)
# Parameters of kernel modules, files in /sys and names in backquotes are not bare names.
_BARE = re.compile(
    rf"(?<![\w`./-])(?:(?:{_OURS})\b(?!=)|(?:{_GENERIC})(?:: | is |=)(?:{_VALUES}))"
    rf"|\b(?:add|to) (?:{_GENERIC})\b(?! \w)"
)


def bare_options(text: str) -> list[str]:
    """Return the options of host_policy that a message names without backquotes."""
    return _BARE.findall(text)
