# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who claims which of the devices that are there. Pure data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, NamedTuple, Sequence

from .device import Identity
from .policy import Claim
from .steps import Problem


class Claimed(NamedTuple):
    """What a list claims, resolved once for run time and boot.

    ``claims`` has those of the list and those that release what the last list claimed and this one
    does not. ``matches`` are the devices of each entry, and ``earlier`` those of each entry of the
    list last applied. ``positions`` are where in the user's list the entry of a device stands,
    ``conflicts`` what is wrong with entries of a list that is for the next boot alone.
    """

    claims: Sequence[Claim] = ()
    matches: Sequence[Sequence[Identity]] = ()
    earlier: Sequence[Sequence[Identity]] = ()
    positions: Mapping[Identity, int] = MappingProxyType({})
    conflicts: Sequence[Problem] = ()

    @property
    def by_list(self) -> list[Claim]:
        """The claims of the list itself."""
        return [claim for claim in self.claims if not claim.policy.release_of]
