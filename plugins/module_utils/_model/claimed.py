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


class NumVfs(NamedTuple):
    """A change of the number of virtual functions of a PCI function, from ``before`` to ``after``.

    ``removed`` are those that are there now, ``created`` those that will be, without a driver. It
    ``is_ours`` if the list last applied set the number that is there.
    """

    before: int
    after: int
    removed: Sequence[Identity] = ()
    created: Sequence[Identity] = ()
    is_ours: bool = False


class Claimed(NamedTuple):
    """What a list claims, resolved once for run time and boot.

    ``claims`` has those of the list and those that release what the last list claimed and this one
    does not. ``matches`` are the devices of each entry, and ``earlier`` those of each entry of the
    list last applied. ``positions`` are where in the user's list the entry of a device stands,
    ``conflicts`` what is wrong with entries of a list that is for the next boot alone. ``variants``
    are the VFIO drivers that the kernel has for some of the devices alone, by PCI id. ``numvfs``
    are the changes of numbers of virtual functions, ``numvfs_before`` the numbers before the first
    list that set them, by stable name.
    """

    claims: Sequence[Claim] = ()
    matches: Sequence[Sequence[Identity]] = ()
    earlier: Sequence[Sequence[Identity]] = ()
    positions: Mapping[Identity, int] = MappingProxyType({})
    conflicts: Sequence[Problem] = ()
    variants: Mapping[str, str] = MappingProxyType({})
    numvfs: Mapping[Identity, NumVfs] = MappingProxyType({})
    numvfs_before: Mapping[str, int] = MappingProxyType({})

    @property
    def created(self) -> set[Identity]:
        """The virtual functions that are not there yet."""
        return {device for change in self.numvfs.values() for device in change.created}

    @property
    def by_list(self) -> list[Claim]:
        """The claims of the list itself."""
        return [claim for claim in self.claims if not claim.policy.release_of]
