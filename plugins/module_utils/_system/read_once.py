# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway to /sys for a run that writes nothing: no file is read twice.

Each device is judged by itself, so that much of what is read for it was read for another one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from .reads import READS

if TYPE_CHECKING:
    from .sysfs import Sysfs

# Those of a path in /sys without the device lock. Nobody changes what they return.
_READS = READS["sysfs"] - {"has_node", "is_read_only", "read_locked"}


def read_once(sysfs: Sysfs) -> Sysfs:
    """Return the gateway such that a read that is repeated gets the answer of the first."""
    return cast("Sysfs", _ReadOnce(sysfs))


class _ReadOnce:
    """A gateway to /sys that keeps the answers of _READS."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._sysfs, name)
        if name in _READS:
            attribute = functools.lru_cache(maxsize=None)(attribute)
        # The next call comes here no more.
        setattr(self, name, attribute)
        return attribute
