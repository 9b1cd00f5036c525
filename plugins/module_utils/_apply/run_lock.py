# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a run that may change the host, with the journal that it writes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from .host_lock import HostLock

if TYPE_CHECKING:
    from .journal import Journal


class RunLock(HostLock):
    """The lock of the host, and the journal beside it."""

    @cached_property
    def journal(self) -> Journal:
        """The journal of this run; what earlier runs left in it stays until it is undone."""
        # Here, because a run that finds neither a journal nor anything to do has not to load it.
        from .journal import (  # noqa: PLC0415
            Journal,
        )

        return Journal(self.owner, self.directory)
