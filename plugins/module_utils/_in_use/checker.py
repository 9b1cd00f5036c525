# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walks what is below a device and asks each kind of use who would be hurt. Reads only."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Container, Iterable, Mapping, Sequence

from .._discovery.devices import sysfs_dir
from .._model.device import Identity, State
from .._system.sysfs import KernelBlockedError, Sysfs
from .kinds import CONSUMERS, Hazard, load_kinds

if TYPE_CHECKING:
    from .._system.files import Files
    from .._system.rtnetlink import Networks
    from .configured import Configured
    from .dependents import Dependent, Dependents
    from .use_kind import ClassCheck, Entry, Sources, UseKind

# Directories of a class below a device (get_device_parent in drivers/base/core.c) by whose name the
# class is known, so that the link to it is not read.
_CLASSES = ("net", "block", "tty", "rtc", "watchdog", "iommu")
# With CONFIG_PM every device has this directory: dpm_sysfs_add in drivers/base/power/sysfs.c.
_POWER = "power"
# The methods of UseKind that most kinds do not have of their own.
_QUESTIONS = ("of_state", "of_node", "of_bound", "of_device", "of_unbound", "of_group")
# So begins the subject of a use by a process that has a node open.
_NODE = "/dev/"


class Usage:
    """Finds hazards; what concerns the whole machine (mounts, open files) is read once.

    ``proc`` is where procfs is mounted, ``networks`` reads addresses and routes, ``files`` what is
    configured for each boot.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        proc: str = "/proc",
        networks: Callable[[], Networks] | None = None,
        files: Files | None = None,
    ) -> None:
        self._sysfs = sysfs
        self._arguments = (sysfs, proc, networks, files)
        self._dependents_of: dict[Identity, list[Dependent]] = {}
        self._carried_by: dict[tuple[str, str], list[Hazard]] = {}

    @property
    def unanswered(self) -> int:
        """How often it could not be known whether a process holds a node open."""
        return self._sources.processes.unanswered

    @property
    def configured(self) -> Configured:
        """What each boot uses by the host's configuration."""
        return self._sources.configured

    def since(self, device: Identity, state: State, allow: Container[str]) -> list[Hazard]:
        """Return what has come into use since the first check, by user space.

        Everything is read again. What depends on the device, and counts of its module, change with
        what the run has done to other devices.
        """
        now = Usage(*self._arguments)
        user_space = {kind.name for kind in self.kinds if kind.is_of_user_space}
        return [
            hazard
            for hazard in now.hazards_of(device, state)
            if hazard.kind in user_space and not hazard.is_accepted(allow)
        ]

    def hazards_of(self, device: Identity, state: State) -> list[Hazard]:
        """Return what would be hurt if this device lost the driver that it has now.

        Without one, it is what a driver would take from others.
        """
        if not state.driver:
            return [
                hazard
                for kind in self._answering["of_unbound"]
                for hazard in kind.of_unbound(device)
            ]
        hazards = [
            hazard for kind in self._answering["of_state"] for hazard in kind.of_state(state)
        ]
        for name in self._directories_below(device):
            hazards += self._below(sysfs_dir(device), name)
        for kind in self._answering["of_device"]:
            hazards += kind.of_device(device, state, hazards)
        return hazards + self._carried_by_dependents(device, hazards, self._below)

    def iommu_group_hazards(self, device: Identity, leaving: Container[str] = ()) -> list[Hazard]:
        """Return other devices of the IOMMU group whose drivers make this one useless to VFIO.

        ``leaving`` are those ("bus/name") that lose their drivers as well.
        """
        return [
            hazard
            for kind in self._answering["of_group"]
            for hazard in kind.of_group(device, leaving)
        ]

    def find_boot_hazards(
        self, device: Identity, state: State, known: Sequence[Hazard]
    ) -> list[Hazard]:
        """Return what is configured for each boot on this device, but for ``known`` hazards."""
        if not state.driver:
            return []
        subjects = {(hazard.kind, hazard.subject) for hazard in known}
        hazards = [
            hazard
            for name in self._directories_below(device)
            for hazard in self._configured_below(sysfs_dir(device), name)
            if (hazard.kind, hazard.subject) not in subjects
        ]
        return hazards + self._carried_by_dependents(
            device, [*known, *hazards], self._configured_below
        )

    def _carried_by_dependents(
        self,
        device: Identity,
        known: Sequence[Hazard],
        find: Callable[[str, str], list[Hazard]],
    ) -> list[Hazard]:
        """Return what is lost with devices that depend on this one, but for ``known`` hazards."""
        if not (
            any(hazard.kind == CONSUMERS for hazard in known) or self._directories_below(device)
        ):
            return []
        if device not in self._dependents_of:
            self._dependents_of[device] = self._dependents.of(device)
        subjects = {(hazard.kind, hazard.subject) for hazard in known}
        hazards = []
        for dependent in self._dependents_of[device]:
            for hazard in self._carried(dependent.path, find):
                subject = hazard.kind, hazard.subject
                if subject not in subjects:
                    subjects.add(subject)
                    sentence = "%s (%s)" % (hazard.sentence, dependent.clause)
                    hazards.append(hazard._replace(sentence=sentence))
        return hazards

    def _carried(self, path: str, find: Callable[[str, str], list[Hazard]]) -> list[Hazard]:
        """Return what is lost with a dependent; many devices can have the same one."""
        key = path, find.__name__
        if key not in self._carried_by:
            self._carried_by[key] = [
                hazard
                for name in self._sysfs.list_directories(path)
                for hazard in find(path, name)
                if hazard.kind in self._ending_with_supplier or _is_open_node(hazard)
            ]
        return self._carried_by[key]

    @functools.cached_property
    def _dependents(self) -> Dependents:
        from .dependents import Dependents  # noqa: PLC0415 - for the same reason as in kinds.py

        return Dependents(self._sysfs, self._sources.references, self._sources.cards)

    @functools.cached_property
    def _sources(self) -> Sources:
        from .use_kind import Sources  # noqa: PLC0415 - for the same reason as in kinds.py

        return Sources(*self._arguments)

    @functools.cached_property
    def kinds(self) -> list[UseKind]:
        return [kind(self._sources) for kind in load_kinds().values()]

    @functools.cached_property
    def _ending_with_supplier(self) -> set[str]:
        return {kind.name for kind in self.kinds if kind.ends_with_supplier}

    @functools.cached_property
    def _answering(self) -> dict[str, list[UseKind]]:
        """The kinds that have an answer to each of _QUESTIONS: a plan asks of each device."""
        from .use_kind import UseKind  # noqa: PLC0415 - for the same reason as in kinds.py

        return {
            question: [
                kind
                for kind in self.kinds
                if getattr(type(kind), question) is not getattr(UseKind, question)
            ]
            for question in _QUESTIONS
        }

    @functools.cached_property
    def _classes(self) -> dict[str, list[tuple[str, ClassCheck]]]:
        return _by_class((kind.name, kind.classes) for kind in self.kinds)

    @functools.cached_property
    def _configured_classes(self) -> dict[str, list[tuple[str, ClassCheck]]]:
        return _by_class((kind.name, kind.configured) for kind in self.kinds)

    @functools.cached_property
    def _directories(self) -> dict[str, list[Callable[[Entry], list[Hazard] | None]]]:
        by_name: dict[str, list[Callable[[Entry], list[Hazard] | None]]] = {}
        for kind in self.kinds:
            for name, check in kind.directories.items():
                by_name.setdefault(name, []).append(check)
        return by_name

    def _directories_below(self, device: Identity) -> list[str]:
        """Return the directories of a device; none if it has no more than every device has."""
        directory = sysfs_dir(device)
        if self._sysfs.count_directories(directory) <= int(self._has_power_directories):
            return []
        return self._sysfs.list_directories(directory)

    @functools.cached_property
    def _has_power_directories(self) -> bool:
        """Whether every device has one.

        Without CONFIG_PM firmware can call a device by that name, which has an event.
        """
        path = "devices/platform/" + _POWER
        return self._sysfs.exists(path) and not self._sysfs.exists(path + "/uevent")

    def _below(self, parent: str, name: str, of_class: str = "") -> list[Hazard]:
        """Return the uses of a directory below a device, one of a class's if that is given."""
        if name == _POWER and self._has_power_directories:
            return []
        entry, subsystem = self._entry(parent, name, of_class)
        checks = self._classes.get(subsystem, [])
        if any(check.judges_below for _kind, check in checks):
            return _judged(entry, checks)
        class_below = _class_below(entry)
        for check_directory in self._directories.get(class_below, []):
            hazards = check_directory(entry)
            if hazards is not None:
                return hazards
        return self._hazards_at(entry, subsystem, checks) + [
            hazard
            for below in entry.listing.directories
            for hazard in self._below(entry.path, below, class_below)
        ]

    def _hazards_at(
        self, entry: Entry, subsystem: str, checks: Sequence[tuple[str, ClassCheck]]
    ) -> list[Hazard]:
        """Return what one device below is used for, whatever is below it."""
        hazards = _judged(entry, [check for check in checks if check[1].judges_node])
        if not hazards and "dev" in entry.listing.others:
            hazards += [
                hazard for kind in self._answering["of_node"] for hazard in kind.of_node(entry)
            ]
        hazards += _judged(entry, [check for check in checks if not check[1].judges_node])
        if "driver" in entry.listing.others:
            for kind in self._answering["of_bound"]:
                hazards += kind.of_bound(entry, subsystem)
        return hazards

    def _configured_below(self, parent: str, name: str, of_class: str = "") -> list[Hazard]:
        if name == _POWER and self._has_power_directories:
            return []
        entry, subsystem = self._entry(parent, name, of_class)
        checks = self._configured_classes.get(subsystem, [])
        hazards = _judged(entry, checks)
        if any(check.judges_below for _kind, check in checks):
            return hazards
        class_below = _class_below(entry)
        return hazards + [
            hazard
            for below in entry.listing.directories
            for hazard in self._configured_below(entry.path, below, class_below)
        ]

    def _entry(self, parent: str, name: str, of_class: str) -> tuple[Entry, str]:
        """Return a directory and the class or bus of its device; empty if it is of another kind."""
        from .use_kind import Entry  # noqa: PLC0415 - for the same reason as in kinds.py

        path = "%s/%s" % (parent, name)
        listing = self._sysfs.listing(path)
        subsystem = of_class
        # NVMe disks and devices of a bus are in no directory of a class.
        if subsystem not in _CLASSES and "subsystem" in listing.others:
            subsystem = self._sysfs.link_name(path + "/subsystem") or ""
        return Entry(self._sysfs, path, name, listing, parent), subsystem


def _is_open_node(hazard: Hazard) -> bool:
    """Return whether a process has a node of a device open, other than one of VFIO."""
    return hazard.kind == CONSUMERS and hazard.subject.startswith(_NODE)


def _class_below(entry: Entry) -> str:
    """Return the class whose directory it is, by its name; empty for a device, which has an event.

    Firmware can call a device as a class is called.
    """
    return "" if "uevent" in entry.listing.others else entry.name


def _by_class(
    checks: Iterable[tuple[str, Mapping[str, ClassCheck]]],
) -> dict[str, list[tuple[str, ClassCheck]]]:
    """Return the checks of each class, each with its kind of use."""
    by_class: dict[str, list[tuple[str, ClassCheck]]] = {}
    for kind, classes in checks:
        for name, check in classes.items():
            by_class.setdefault(name, []).append((kind, check))
    return by_class


def _judged(entry: Entry, checks: Sequence[tuple[str, ClassCheck]]) -> list[Hazard]:
    try:
        return [hazard for kind, check in checks for hazard in check.hazards(kind, entry)]
    except KernelBlockedError:
        sentence = "%s does not report whether it is in use" % entry.name
        return [Hazard(CONSUMERS, entry.name, sentence)]
