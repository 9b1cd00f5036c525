# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices stop working with a device, through all that is between. Reads only.

A disk or an interface is lost with what its controller gets its clocks, power or PHY from: with a
PMIC, with the I2C controller above that, with the clocks of both.
"""

from __future__ import annotations

from collections import deque
from typing import Iterable, Iterator, NamedTuple

from .._discovery.devices import CONSUMER, sysfs_dir, target_of, used_links
from .._discovery.phandle_refs import TREE, References
from .._model.device import Identity
from .._system.sysfs import Sysfs
from .cards import Cards


class Dependent(NamedTuple):
    """A device that stops working: its directory, and how it depends, as a clause."""

    path: str
    clause: str


class _Edge(NamedTuple):
    """A consumer of a device, or of what is ``below`` it; ``label`` is "bus:name"."""

    below: str
    label: str
    path: str


class Dependents:
    """Finds dependents; ``references`` are those of the whole device tree."""

    def __init__(self, sysfs: Sysfs, references: References, cards: Cards) -> None:
        self._sysfs = sysfs
        self._references = references
        self._cards = cards
        self._edges: dict[str, list[_Edge]] = {}

    def of(self, device: Identity) -> list[Dependent]:
        """Return all that depend on a device or on what is below it, the nearest first.

        Devices below it are none: they are inspected with it.
        """
        home = target_of(self._sysfs, sysfs_dir(device))
        known = {home}
        dependents = []
        waiting = deque([Dependent(home, "")])
        while waiting:
            supplier = waiting.popleft()
            name = "that" if supplier.clause else "it"
            for edge in self._edges_of(supplier.path):
                if edge.path in known or edge.path.startswith(home + "/"):
                    continue
                known.add(edge.path)
                by = "%s below %s" % (edge.below, name) if edge.below else name
                clauses = [supplier.clause] if supplier.clause else []
                clauses.append("%s supplies %s" % (by, edge.label))
                dependents.append(Dependent(edge.path, ", ".join(clauses)))
                waiting.append(dependents[-1])
        return dependents

    def _edges_of(self, home: str) -> list[_Edge]:
        if home not in self._edges:
            self._edges[home] = [
                _Edge(below, *consumer)
                for below, path, names in self._suppliers(home)
                for consumer in self._consumers(path, names)
            ]
        return self._edges[home]

    def _suppliers(self, home: str) -> Iterator[tuple[str, str, set[str]]]:
        """Yield name and directory of what others can depend on: a device, and what is below it.

        Beside each what is in its directory, but for directories. The name of the device itself is
        empty.
        """
        listing = self._sysfs.listing(home)
        yield "", home, listing.others
        waiting = [(home, name) for name in listing.directories]
        while waiting:
            parent, name = waiting.pop()
            path = "%s/%s" % (parent, name)
            listing = self._sysfs.listing(path)
            waiting += [(path, below) for below in listing.directories]
            if "of_node" in listing.others or any(map(_is_link, listing.others)):
                yield name, path, listing.others

    def _consumers(self, supplier: str, names: Iterable[str]) -> list[tuple[str, str]]:
        """Return the bound consumers by device links and by the device tree, and what the supplier
        is a part of: label, directory.
        """
        links = used_links(self._sysfs, supplier, sorted(names))
        consumers = [
            (link.consumer, target_of(self._sysfs, target_of(self._sysfs, link.path) + "/consumer"))
            for link in links
        ]
        node = self._sysfs.link(supplier + "/of_node") or ""
        dt_path = node.partition("/" + TREE)[2]
        if not self._is_given_away(supplier):
            consumers += self._by_firmware(supplier, dt_path)
        return consumers

    def _is_given_away(self, supplier: str) -> bool:
        """Return whether VFIO has the device, which supplies nothing to other drivers."""
        return "vfio" in (self._sysfs.link_name(supplier + "/driver") or "")

    def _by_firmware(self, supplier: str, dt_path: str) -> list[tuple[str, str]]:
        wholes = self._cards.made_of(supplier, dt_path) if self._cards.are_there else ()
        consumers = [(whole.label, whole.home) for whole in wholes]
        if dt_path:
            consumers += [
                (label, target_of(self._sysfs, "bus/%s/devices/%s" % (bus, name)))
                for label, _property in self._references.to(dt_path)
                for bus, colon, name in [label.partition(":")]
                if colon
            ]
        return consumers


def _is_link(name: str) -> bool:
    return name.startswith(CONSUMER)
