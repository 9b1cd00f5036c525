# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one run is asked for. Pure data."""

from __future__ import annotations

from typing import Iterable, NamedTuple, Sequence

from .node_access import NodeAccess
from .policy import AUTO, Options, VfioSettings
from .policy_list import Entry


class Request(NamedTuple):
    """What one run is asked for.

    ``is_whole_list`` is true where ``entries`` are all that this collection shall claim on the
    host, so that what the last such list claimed and this one does not is released. One that
    ``takes_over`` replaces what driverctl has stored of the same devices. Of a ``rollout`` it is
    kept what there was before and who asked for it (``rollout_by``); one that ``restores`` brings
    that back in place of ``entries``, from before later rollouts as well with
    ``rollback_overtaken``, and one that ``ends`` only notes that the rollout has ended.
    With a ``plan``, a digest, it makes the changes of that plan or none.

    ``problems`` is what is wrong with it already, so that it can only be refused; ``positions`` are
    those of ``entries`` in the user's list, empty where that has no others.
    """

    entries: Sequence[Entry]
    is_whole_list: bool = False
    runtime: bool = True
    persistent: bool = False
    settings: VfioSettings = VfioSettings()
    access: NodeAccess | None = None
    allow: Sequence[str] = ()
    takes_over: bool = False
    initramfs: str = AUTO
    rollout: str | None = None
    rollout_by: str | None = None
    restores: bool = False
    rollback_overtaken: bool = False
    ends: bool = False
    plan: str | None = None
    problems: Sequence[tuple[int | None, str]] = ()
    positions: Sequence[int] = ()

    @property
    def by_position(self) -> Iterable[tuple[int, Entry]]:
        """The entries with their positions in the user's list."""
        return zip(self.positions or range(len(self.entries)), self.entries)

    @property
    def options(self) -> Options:
        return Options(self.settings, self.access, self.initramfs)
