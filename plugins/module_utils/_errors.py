# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors that end a call with sentences for the user instead of a traceback."""

from __future__ import annotations

import contextlib
import math
from typing import Iterator, Sequence


class PolicyError(Exception):
    """What was asked cannot be done; one sentence for each problem, all of them at once."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


# What reading a record raises that is valid JSON and damaged, or none.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, PolicyError)


class Problems:
    """Reasons not to begin, each once: those of a list's entries in the list's order, then others.

    Positions count the entries as the user gave them.
    """

    def __init__(self) -> None:
        self._positions: dict[str, float] = {}

    @property
    def sentences(self) -> list[str]:
        return sorted(self._positions, key=self._positions.__getitem__)

    @property
    def by_position(self) -> list[tuple[int | None, str]]:
        """The sentences with the positions that they were added with."""
        return [
            (None if position == math.inf else int(position), sentence)
            for sentence, position in self._positions.items()
        ]

    @property
    def are_of_entries(self) -> bool:
        """Whether an entry is wrong, so that what the list wants is not wholly known."""
        return any(position < math.inf for position in self._positions.values())

    def add(self, *sentences: str, position: int | None = None) -> None:
        """Add what is wrong with the entry at ``position``, or with none of them."""
        for sentence in sentences:
            self._positions.setdefault(sentence, math.inf if position is None else position)

    @contextlib.contextmanager
    def collecting(self, position: int | None = None) -> Iterator[None]:
        """Go on after what is wrong here."""
        try:
            yield
        except PolicyError as error:
            self.add(*error.problems, position=position)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End with what is wrong here, and with all that was wrong before."""
        try:
            yield
        except PolicyError as error:
            if not self._positions:
                raise
            self.add(*error.problems)
            raise PolicyError(self.sentences) from None

    def end(self) -> None:
        """PolicyError if anything is wrong."""
        if self._positions:
            raise PolicyError(self.sentences)
