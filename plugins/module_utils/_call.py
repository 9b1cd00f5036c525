# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call has to do with: the doors to one machine, and what is asked for."""

from __future__ import annotations

from typing import Iterable, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._kernel_log import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    AUTO,
    NodeAccess,
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import Entry
from ansible_collections.armfleet.vfio.plugins.module_utils._runs import Runs
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import Usage


class Host(NamedTuple):
    """The doors to one machine."""

    sysfs: Sysfs
    kmod: Kmod
    files: Files
    usage: Usage
    runs: Runs
    log: KernelLog


class Request(NamedTuple):
    """What one call asks for.

    ``is_whole_list`` is true where ``entries`` are all that this collection shall claim on the
    host, so that what the last such list claimed and this one does not is given back. One that
    ``takes_over`` replaces what driverctl has stored of the same devices. Of a ``rollout`` it is
    kept what there was before; one that ``restores`` brings that back in place of ``entries``.
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
    restores: bool = False
    problems: Sequence[tuple[int | None, str]] = ()
    positions: Sequence[int] = ()

    @property
    def by_position(self) -> Iterable[tuple[int, Entry]]:
        """The entries with their positions in the user's list."""
        return zip(self.positions or range(len(self.entries)), self.entries)

    @property
    def options(self) -> Options:
        return Options(self.settings, self.access, self.initramfs)
