# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors that end a call with sentences for the user instead of a traceback."""

from __future__ import annotations

from typing import Sequence


class PolicyError(Exception):
    """What was asked cannot be done; one sentence for each problem, all of them at once."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
