# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a kind of use is, and what its checks work with. Reads only."""

# ruff: noqa: ARG002 - a kind overrides only the checks that it needs

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Container, Iterable, Mapping, NamedTuple, Sequence

from .. import _text
from .._discovery.phandle_refs import References
from .._model.device import Identity, State
from .._system.files import Files
from .._system.processes import Processes
from .._system.rtnetlink import Networks
from .._system.sysfs import Listing, Sysfs
from .cards import Cards
from .kinds import Hazard

if TYPE_CHECKING:
    from .configured import Configured


class Entry(NamedTuple):
    """A directory below a device: a device of a class or bus, or the directory of a class.

    ``listing`` is what is in the directory, ``parent`` the path of the one above it.
    """

    sysfs: Sysfs
    path: str
    name: str
    listing: Listing
    parent: str = ""

    def read(self, attribute: str) -> str:
        """Return an attribute that needs no lock; empty if it is not there."""
        return self.sysfs.read("%s/%s" % (self.path, attribute)) or ""

    def read_locked(self, attribute: str) -> str:
        """Return an attribute whose read can wait for a driver that hangs."""
        return self.sysfs.read_locked(["%s/%s" % (self.path, attribute)])[0] or ""


class ClassCheck(NamedTuple):
    """How the devices of a class or bus are judged.

    ``find`` returns why one is in use, as a sentence, or None. ``stand_ins`` returns the devices
    that are judged in its place. If the check ``judges_node`` and finds a use, it does not matter
    who holds the node open; if it ``judges_below``, nothing else of the device is inspected.
    """

    find: Callable[[Entry], str | None]
    stand_ins: Callable[[Entry], Iterable[Entry]] | None = None
    judges_node: bool = False
    judges_below: bool = False

    def hazards(self, kind: str, entry: Entry) -> list[Hazard]:
        """Return the uses of a device."""
        return [
            Hazard(kind, judged.name, sentence)
            for judged in (self.stand_ins(entry) if self.stand_ins else [entry])
            for sentence in [self.find(judged)]
            if sentence
        ]


class Sources:
    """What the checks read; what concerns the whole machine (mounts, open files) is read once.

    ``proc`` is where procfs is mounted, ``networks`` reads addresses and routes, ``files`` what is
    configured for each boot.
    """

    def __init__(
        self, sysfs: Sysfs, proc: str, networks: Callable[[], Networks] | None, files: Files | None
    ) -> None:
        self.sysfs = sysfs
        self.processes = Processes(proc)
        self._read_networks = networks
        self._files = files

    @functools.cached_property
    def networks(self) -> Networks:
        if self._read_networks:
            return self._read_networks()
        from .._system.rtnetlink import read  # noqa: PLC0415 - only interfaces that are up need it

        return read()

    @functools.cached_property
    def configured(self) -> Configured:
        """What each boot uses by the host's configuration."""
        from .configured import Configured  # noqa: PLC0415 - only changes of boot files need it

        return Configured(self.sysfs, self._files or Files())

    @functools.cached_property
    def references(self) -> References:
        return References(self.sysfs)

    @functools.cached_property
    def cards(self) -> Cards:
        return Cards(self.sysfs, self.references)

    def holders(self, node: str, path: str, kind: str = "c") -> list[str]:
        """Return who holds a node open; ``path`` is the device's directory, with its number."""
        number = self.sysfs.read(path + "/dev")
        return self.processes.holders(node, kind + number if number else None)

    def held_open(self, label: str, node: str, path: str) -> str | None:
        """Return that a node is held open, as a sentence, or None."""
        holders = self.holders(node, path)
        return held(label, holders) if holders else None


class UseKind:
    """A kind of use: its name, and what is inspected for it. Registered in kinds.py."""

    name: str
    # In messages, what a device in such use is, and what can be done about a hazard.
    verdict = "is in use"
    remedy = "To accept this, add '%(kind)s' to `allow`"
    fatal_remedy = "No kind in `allow` accepts this"
    # Whether users and their programs bring it about, at any time.
    is_of_user_space = False
    # Whether such use of a device ends when a device that it depends on is unbound.
    ends_with_supplier = True

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.sysfs = sources.sysfs

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        """The checks of devices below, by their class or bus."""
        return {}

    @property
    def directories(self) -> Mapping[str, Callable[[Entry], list[Hazard] | None]]:
        """The checks of a class's directory below a device, by its name.

        If one returns a list, nothing below the directory is inspected.
        """
        return {}

    @property
    def configured(self) -> Mapping[str, ClassCheck]:
        """The checks of devices below for what each boot uses by configuration."""
        return {}

    def of_state(self, state: State) -> list[Hazard]:
        """Return uses that the state of a device shows."""
        return []

    def of_node(self, entry: Entry) -> list[Hazard]:
        """Return uses of a device below that has a node, if its class judges none."""
        return []

    def of_bound(self, entry: Entry, subsystem: str) -> list[Hazard]:
        """Return uses of a device below that is bound to a driver of its own."""
        return []

    def of_device(self, device: Identity, state: State, known: Sequence[Hazard]) -> list[Hazard]:
        """Return uses that nothing below the device shows, beside ``known`` ones."""
        return []

    def of_unbound(self, device: Identity) -> list[Hazard]:
        """Return uses of a device without a driver, which one that is bound to it would end."""
        return []

    def of_group(self, device: Identity, leaving: Container[str]) -> list[Hazard]:
        """Return what makes the device useless to VFIO when those ``leaving`` are unbound."""
        return []


def held(what: str, holders: Sequence[str]) -> str:
    return "%s is held open by %s" % (what, _text.listed(holders))


def counted(count: str, noun: str) -> str:
    return "%s %s%s" % (count, noun, "" if count == "1" else "s")
