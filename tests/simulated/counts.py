# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a test did, for its last lines."""

from __future__ import annotations

from collections import Counter


class Counts(Counter[str]):
    """Numbers by what was counted."""

    def add(self, what: str, number: int = 1) -> None:
        self[what] += number
