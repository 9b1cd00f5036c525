# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What foreign udev rules do to the driver of a device, and in what order. Reads only.

Files come in the order of their names, whichever directory they are in, and ours is one of them.
Only files are read that have words for binding drivers, themselves or in a script or a unit that
they start, and those that set a property that the former ask for.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._model.device import Identity
from .._model.policy import NO_DRIVER
from .._system.files import Files
from .._system.sysfs import Sysfs
from .._system.systemd_conf import systemd_version
from . import foreign_rule_files
from .foreign_rule_files import ADD, CHANGE, Host, RuleText
from .foreign_rule_files import BIND as BIND_EVENT
from .udev_commands import BIND, OVERRIDE, REMOVE, UNBIND, Commands

if TYPE_CHECKING:
    from .played_rules import RuleFile
    from .udev_device import ListedDevice
    from .udev_event import Changes

# When a rule acts. What RUN names is started after all rules.
BEFORE_OURS, AFTER_OURS, AFTER_ALL = range(3)
WANTS = "SYSTEMD_WANTS"
# Attributes that bind drivers, as they stand in a file of rules.
_ATTRIBUTES = re.compile(r"driver_override|(?:\b(?:un)?bind|\bremove)\s*\}")
_COMMAND = re.compile(
    r'(?:RUN|PROGRAM|IMPORT)\s*(?:\{program\}\s*)?[!+:=]=?\s*[ei]{0,2}"((?:[^"\\]|\\.)*)'
)
_UNITS = re.compile(r'\{SYSTEMD_WANTS\}\s*[+:]?=\s*[ei]{0,2}"([^"]*)')
# What begins the name of a property, which ends at the next brace, and what sets it.
_ASKED = re.compile(r"(?:ENV|\$env|%E)\s*\{")
_SET = re.compile(r"\bENV\s*\{")
_ASSIGNED = re.compile(r"\s*[+:]?=(?!=)")
_TAGS_UNIT = re.compile(r'\bTAG\s*[+:]?=\s*"systemd"')
EVENTS = (ADD, BIND_EVENT, CHANGE)
# architecture_to_string in src/basic/architecture.c of systemd.
_ARCHITECTURES = {"aarch64": "arm64", "aarch64_be": "arm64-be", "x86_64": "x86-64", "armv7l": "arm"}
_ACTS = {
    (OVERRIDE, True): "sets its driver_override",
    (OVERRIDE, False): "may set its driver_override",
    (UNBIND, True): "unbinds it from its driver",
    (UNBIND, False): "may unbind it from its driver",
    (REMOVE, True): "removes it",
    (REMOVE, False): "may remove it",
    (BIND, True): "binds it to a driver",
    (BIND, False): "may bind it to a driver",
}


class Rule(NamedTuple):
    """A foreign rule that sets the override of a device, or unbinds, binds or removes it.

    ``driver_override`` is None if what it sets is not known, or if it sets none. If it is not
    ``is_sure``, the rule may do so: it depends on what is not known before the event.
    """

    location: str
    driver_override: str | None
    phase: int
    kind: str = OVERRIDE
    is_sure: bool = True

    @property
    def is_after_ours(self) -> bool:
        """Whether it acts after the rules of this collection."""
        return self.phase > BEFORE_OURS

    @property
    def sure_override(self) -> str | None:
        """The override that the rule is known to set; None without one."""
        return self.driver_override if self.is_sure else None

    @property
    def unbinds(self) -> bool:
        """Whether the rule is known to unbind the device."""
        return self.kind == UNBIND and self.is_sure

    @property
    def act(self) -> str:
        """What the rule does, as a clause about a device."""
        return _ACTS[self.kind, self.is_sure]

    def opposes(self, wanted: str | None) -> bool:
        """Return whether the device would not be bound as a list requires, or might not be.

        ``wanted`` is the override of the list. A device that has an override of the list cannot be
        bound to another driver.
        """
        if self.kind == OVERRIDE:
            return self.driver_override is None or self.driver_override != wanted
        return self.kind in (UNBIND, REMOVE) and wanted not in (None, NO_DRIVER)

    def conflict(self, device: Identity, wanted: str | None) -> str:
        """Return why a list cannot have this device, and what can be done."""
        act = self.act
        if self.kind == OVERRIDE:
            act = "sets %s" % (self.driver_override or "another")
        return (
            "%s has a conflicting udev rule: the list sets its driver_override to %s at each "
            "boot, but %s %s. Remove that rule, or remove the device from the list"
            % (device.label, wanted or "none set", self.location, act)
        )

    def warning(self, device: Identity, wanted: str | None) -> str:
        """Return what the rule may do to a device of a list, and what can be done."""
        return (
            "%s may be changed by a foreign udev rule: the list sets its driver_override to %s at "
            "each boot, and whether %s %s depends on what is not known before. Check that rule"
            % (
                device.label,
                wanted or "none set",
                self.location,
                _ACTS[self.kind, True],
            )
        )


class ForeignRules(NamedTuple):
    """The foreign rules of a host; ``files`` are in the order in which udev reads them.

    ``texts`` are all that udev reads, ``files`` those of them that matter for drivers, which can
    make ``changes`` to an event.
    """

    host: Host
    commands: Commands
    files: Sequence[RuleFile]
    texts: Sequence[RuleText]
    changes: Changes | None = None

    def __bool__(self) -> bool:
        return bool(self.files)


def rules(files: Files, ours: str) -> ForeignRules:
    """Return the foreign rules that may set an override, and what these depend on."""
    texts = foreign_rule_files.read(files, ours)
    commands = Commands(files)
    relevant = _with_needed(texts, {text for text in texts if _can_bind(commands, text.content)})
    if not relevant:
        return ForeignRules(Host(files), commands, (), texts)
    # Here, because few hosts have such files.
    from .played_rules import changes_in, parsed_with_acting  # noqa: PLC0415

    version = systemd_version(files)
    parsed = [parsed_with_acting(text, commands, version) for text in texts if text in relevant]
    host = Host(files, _architecture(files))
    return ForeignRules(host, commands, parsed, texts, changes_in(parsed))


def names_set(texts: Iterable[RuleText]) -> set[str]:
    """Return the properties that rules of these files set."""
    return {name for text in texts for name in _set_in(text.content)}


def _asked_in(content: str) -> list[str]:
    return [name for name, _rest in _named(_ASKED, content)]


def _set_in(content: str) -> list[str]:
    return [name for name, rest in _named(_SET, content) if _ASSIGNED.match(rest)]


def _named(begin: re.Pattern[str], content: str) -> Iterator[tuple[str, str]]:
    """Yield each name up to a closing brace, and what is between that and the next one."""
    parts = content.split("}")
    for part, rest in zip(parts, parts[1:]):
        match = begin.search(part)
        if match:
            yield part[match.end() :], rest


def _architecture(files: Files) -> str | None:
    # Linux has it since 6.1, and refuses reads with a large buffer.
    machine = _text.stripped(files.read_start("/proc/sys/kernel/arch") or "")
    return _ARCHITECTURES.get(machine)


def _can_bind(commands: Commands, content: str) -> bool:
    if _ATTRIBUTES.search(content):
        return True
    # A rule can be continued on the next line.
    joined = content.replace("\\\n", "")
    return any(map(commands.can_bind, _COMMAND.findall(joined))) or any(
        commands.can_unit_bind(name)
        for units in _UNITS.findall(joined)
        for unit in _text.words(units)
        for name in (_instance_of_any(unit), *commands.units_like(unit))
    )


def _instance_of_any(unit: str) -> str:
    return re.sub("@[^.]*", "@x", unit)


def _with_needed(texts: Sequence[RuleText], relevant: set[RuleText]) -> set[RuleText]:
    """Return the relevant files, and those that set a property or a tag for one of them."""
    before = None
    while relevant and relevant != before:
        before = relevant
        asked = {name for text in relevant for name in _asked_in(text.content)}
        # What the kernel sets is not set by rules, or means the same.
        has_units = any(WANTS in text.content for text in relevant)
        relevant = relevant | {
            text
            for text in texts
            if not asked.isdisjoint(_set_in(text.content))
            or (has_units and _TAGS_UNIT.search(text.content))
        }
    return relevant


class DeviceRules:
    """The rules that may change the driver of a device, each event of which is played once."""

    def __init__(self, sysfs: Sysfs, device: Identity, known: ForeignRules) -> None:
        self._sysfs = sysfs
        self._device = device
        self._known = known
        self._of_own_events: dict[str, list[Rule]] = {}

    def at(self, action: str | None = None) -> list[Rule]:
        """Return the rules in the order in which they act.

        ``action`` is that of the event; None for any.
        """
        if not self._known:
            return []
        collected: dict[tuple[str, str, str | None], Rule] = {}
        for event_action in (action,) if action else EVENTS:
            for rule in self._at_own(event_action):
                _collect(collected, rule)
        if action in (None, ADD):
            for rule in self._of_others:
                _collect(collected, rule)
        return sorted(collected.values(), key=lambda rule: rule.phase)

    def _at_own(self, action: str) -> list[Rule]:
        if action not in self._of_own_events:
            # Here, because few hosts have such files.
            from .played_rules import at_own_event  # noqa: PLC0415

            self._of_own_events[action] = at_own_event(self._known, self._listed, action)
        return self._of_own_events[action]

    @functools.cached_property
    def _of_others(self) -> list[Rule]:
        from .played_rules import at_events_of_others  # noqa: PLC0415 - as above

        return at_events_of_others(self._sysfs, self._known, self._listed)

    @functools.cached_property
    def _listed(self) -> ListedDevice:
        from .udev_device import ListedDevice  # noqa: PLC0415 - as above

        return ListedDevice(self._sysfs, self._device)


def of_device(
    sysfs: Sysfs, device: Identity, known: ForeignRules, action: str | None = None
) -> list[Rule]:
    """Return the rules that may change the driver of this device, as :meth:`DeviceRules.at`."""
    return DeviceRules(sysfs, device, known).at(action)


def _collect(collected: dict[tuple[str, str, str | None], Rule], rule: Rule) -> None:
    key = rule.location, rule.kind, rule.driver_override
    before = collected.get(key)
    if before is None or (rule.is_sure and not before.is_sure):
        collected[key] = rule
