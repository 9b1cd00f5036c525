# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Count what a test did, for the summary of the run."""

from __future__ import annotations

from collections import Counter


class Counts(Counter[str]):
    """Counters by description."""

    def add(self, what: str, number: int = 1) -> None:
        self[what] += number
