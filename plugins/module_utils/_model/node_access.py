# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may open the nodes of VFIO devices. Pure."""

from __future__ import annotations

from typing import NamedTuple


class NodeAccess(NamedTuple):
    """Who may open the nodes in /dev/vfio; None leaves what the kernel gives (root, 0600)."""

    group: str | None
    mode: str | None

    @property
    def is_for_all(self) -> bool:
        """Whether users who are not in the group may open a node."""
        return self.mode is not None and self.mode[-1] != "0"

    @property
    def label(self) -> str:
        parts = [("group", self.group), ("mode", self.mode)]
        return ", ".join("%s %s" % part for part in parts if part[1] is not None)
