# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a network interface is used for, through all that is stacked on it. Reads only."""

from __future__ import annotations

from typing import Callable

from .. import _text
from .._system.processes import Processes
from .._system.rtnetlink import Networks
from .._system.sysfs import Sysfs
from .kernel_classes import is_up

_UPPER = "upper_"


class Interfaces:
    """Finds uses of interfaces; ``read_networks`` reads addresses and routes, once."""

    def __init__(
        self, sysfs: Sysfs, processes: Processes, read_networks: Callable[[], Networks]
    ) -> None:
        self._sysfs = sysfs
        self._processes = processes
        self._read_networks = read_networks
        self._networks: Networks | None = None

    def use(self, path: str, name: str) -> str | None:
        """Why the interface with this folder and name is in use, as a sentence, or None."""
        stack = self.stack(path, name)
        if not any(is_up(self._sysfs, place) for place, _interface in stack):
            return None
        if self._networks is None:
            self._networks = self._read_networks()
        indexes = [
            index
            for place, _interface in stack
            for index in [_text.number(self._sysfs.read(place + "/ifindex"))]
            if index is not None
        ]
        addresses = [
            address for index in indexes for address in self._networks.addresses.get(index, [])
        ]
        about = list(addresses)
        if self._networks.default_routes.intersection(indexes):
            about.append("the default route")
        upper = [interface for _place, interface in stack[1:]]
        sentence = "network interface %s is up%s%s" % (
            name,
            ", below " + ", ".join(upper) if upper else "",
            " with " + ", ".join(about) if about else "",
        )
        if self._processes.address_of_this_run() in addresses:
            sentence += ", and this run comes in over it"
        return sentence

    def stack(self, path: str, name: str) -> list[tuple[str, str]]:
        """An interface and what is stacked on it (bond, bridge, VLAN, team): (folder, name)."""
        found: list[tuple[str, str]] = []
        waiting = [(path, name)]
        while waiting:
            place, interface = waiting.pop(0)
            if interface in [known for _place, known in found]:
                continue
            found.append((place, interface))
            waiting += [
                ("class/net/" + entry[len(_UPPER) :], entry[len(_UPPER) :])
                for entry in self._sysfs.names(place)
                if entry.startswith(_UPPER)
            ]
        return found
