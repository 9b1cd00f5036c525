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
from typing import Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._model.device import Identity
from .._model.policy import NO_DRIVER
from .._system.files import Files
from .._system.sysfs import Sysfs
from . import foreign_rule_files, udev_syntax
from .foreign_rule_files import RuleText
from .udev_device import ListedDevice, NodeDevice, UdevDevice, resolve_link
from .udev_effects import (
    BIND,
    OVERRIDE,
    REMOVE,
    UNBIND,
    Commands,
    Effect,
    Target,
    attribute_paths,
    is_binding_attribute,
    is_removing_attribute,
    of_attribute,
    of_write,
    unbinds_or_binds,
)
from .udev_event import (
    ADD,
    CHANGE,
    Changes,
    Event,
    Host,
    Outline,
    UnplayedEvent,
    changes_of,
    outline_of,
)
from .udev_event import BIND as BIND_EVENT
from .udev_syntax import Line, Token

# When a rule acts. What RUN names is started after all rules.
BEFORE_OURS, AFTER_OURS, AFTER_ALL = range(3)
_WANTS = "SYSTEMD_WANTS"
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
_STARTED = ("PROGRAM", "IMPORT")
_EVENTS = (ADD, BIND_EVENT, CHANGE)
# The class of the device that VFIO registers below a bound one, since Linux 6.1 (vfio_init_device
# in drivers/vfio/vfio_main.c), and the start of its name.
_VFIO_CLASS, _VFIO_NAME = "vfio-dev", "vfio"
_OWN_NAME = re.compile(r"%s[0-9]+" % _VFIO_NAME)
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


class RuleFile(NamedTuple):
    """The lines of a file that have to be followed.

    ``naming`` are those that can change a device at events of others, by its name; ``outline`` is
    of those that can change any.
    """

    path: str
    lines: Sequence[Line]
    phase: int
    naming: Sequence[Line] = ()
    outline: Outline = Outline((), (), {})


class ForeignRules(NamedTuple):
    """The foreign rules of a host; ``files`` are in the order in which udev reads them.

    ``texts`` are all that udev reads, ``files`` those of them that matter for drivers, which can
    make ``changes`` to an event.
    """

    host: Host
    commands: Commands
    files: Sequence[RuleFile]
    texts: Sequence[RuleText]
    changes: Changes = Changes()

    def __bool__(self) -> bool:
        return bool(self.files)


def rules(files: Files, ours: str) -> ForeignRules:
    """Return the foreign rules that may set an override, and what these depend on."""
    texts = foreign_rule_files.read(files, ours)
    commands = Commands(files)
    relevant = _with_needed(texts, {text for text in texts if _can_bind(commands, text.content)})
    parsed = [_with_acting(parsed_file(text), commands) for text in texts if text in relevant]
    architecture = _architecture(files) if parsed else None
    changes = changes_of(line for file in parsed for line in file.lines)
    return ForeignRules(Host(files, architecture), commands, parsed, texts, changes)


def parsed_file(text: RuleText) -> RuleFile:
    """Return the lines of a file."""
    phase = BEFORE_OURS if text.is_before_ours else AFTER_OURS
    return RuleFile(text.path, udev_syntax.parse(text.content).lines, phase)


def _with_acting(file: RuleFile, commands: Commands) -> RuleFile:
    naming = [
        line for line in file.lines if any(_can_name(commands, token) for token in line.tokens)
    ]
    outline = outline_of(
        file.lines, lambda line: any(_can_act(commands, token) for token in line.tokens)
    )
    return file._replace(naming=naming, outline=outline)


def _can_act(commands: Commands, token: Token) -> bool:
    """Return whether a token can change how a device is bound, whatever it is expanded to."""
    if token.key == "ATTR" and not token.is_match:
        return is_binding_attribute(token)
    if token.key == "RUN" and token.attribute != "builtin":
        return _is_expanded(token.value) or commands.can_bind(token.value)
    if token.key in _STARTED and token.attribute in (None, "program"):
        return commands.can_bind(token.value)
    return _can_want(commands, token)


def _can_want(commands: Commands, token: Token) -> bool:
    """Return whether a token can start a unit that changes how a device is bound."""
    return _is_wants(token) and any(
        _is_expanded(unit) or commands.can_unit_bind(unit) for unit in _text.words(token.value)
    )


def _is_expanded(text: str) -> bool:
    return "$" in text or "%" in text


def _can_name(commands: Commands, token: Token) -> bool:
    if token.key == "ATTR" and not token.is_match:
        attribute = token.attribute or ""
        return is_binding_attribute(token) and (
            attribute.startswith("[")
            or "/" in attribute
            or is_removing_attribute(token)
            or unbinds_or_binds(token) is not None
        )
    if token.key in ("RUN", *_STARTED) and token.attribute in (None, "program"):
        return commands.can_bind(token.value)
    return _can_want(commands, token)


def _is_wants(token: Token) -> bool:
    return token.key == "ENV" and token.attribute == _WANTS and not token.is_match


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
        commands.can_unit_bind(_instance_of_any(unit))
        for units in _UNITS.findall(joined)
        for unit in _text.words(units)
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
        has_units = any(_WANTS in text.content for text in relevant)
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
        for event_action in (action,) if action else _EVENTS:
            for rule in self._at_own(event_action):
                _collect(collected, rule)
        if action in (None, ADD):
            for rule in self._of_others:
                _collect(collected, rule)
        return sorted(collected.values(), key=lambda rule: rule.phase)

    def _at_own(self, action: str) -> list[Rule]:
        if action not in self._of_own_events:
            event = Event(self._known.host, self._listed, action)
            target = Target(self._listed, is_event=True)
            self._of_own_events[action] = list(_of_event(self._known, event, target))
        return self._of_own_events[action]

    @functools.cached_property
    def _of_others(self) -> list[Rule]:
        related = _of_related_events(self._known, self._listed)
        return [
            *_of_other_events(self._sysfs, self._known, self._listed),
            *(rule._replace(is_sure=False) for rule in related),
        ]

    @functools.cached_property
    def _listed(self) -> ListedDevice:
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


class _Started(NamedTuple):
    """A command or a unit that is started after all rules."""

    location: str
    text: str
    is_sure: bool


def _of_event(known: ForeignRules, event: Event, target: Target) -> Iterator[Rule]:
    """Yield what the rules do to the device at an event of itself or of another device."""
    unplayed = UnplayedEvent(known.host, event.device, event.action, known.changes)
    if not any(unplayed.can_act(file.lines, file.outline) for file in known.files):
        return
    run: list[_Started] = []
    units: list[_Started] = []
    is_final = False
    for file in known.files:
        for applied in event.apply(file.lines):
            location = "%s:%d" % (file.path, applied.line.number)
            for token in applied.line.tokens:
                if token.key == "RUN":
                    if not is_final:
                        run = _with_command(run, event, token, location, is_sure=applied.is_sure)
                        is_final = applied.is_sure and token.operator == ":="
                elif _is_wants(token):
                    units = _with_units(units, event, token, location, is_sure=applied.is_sure)
                else:
                    effects = _at_once(known, event, target, token, is_sure=applied.is_sure)
                    yield from _rules(location, effects, file.phase)
    for command in run:
        effects = known.commands.effects(target, command.text, is_sure=command.is_sure)
        yield from _rules(command.location, effects, AFTER_ALL)
    # systemd knows only devices with its tag: device_setup_unit in src/core/device.c.
    for unit in units if event.tags.get("systemd", False) is not False else ():
        effects = known.commands.unit_effects(target, unit.text)
        yield from _rules(unit.location, effects, AFTER_ALL)


def _rules(location: str, effects: Sequence[Effect], phase: int) -> Iterator[Rule]:
    for effect in effects:
        override = effect.value if effect.kind == OVERRIDE else None
        yield Rule(location, override, phase, effect.kind, effect.is_sure)


def _at_once(
    known: ForeignRules, event: Event, target: Target, token: Token, *, is_sure: bool
) -> list[Effect]:
    """Return what a token does while the rules are read."""
    if token.key == "ATTR" and not token.is_match and is_binding_attribute(token):
        return of_attribute(event, target, token, is_sure=is_sure)
    is_program = token.key == "PROGRAM" or (token.key, token.attribute) == ("IMPORT", "program")
    if is_program and known.commands.can_bind(token.value):
        text = event.expand(token.value)
        is_known = text is not None
        return known.commands.effects(
            target, token.value if text is None else text, is_sure=is_sure and is_known
        )
    return []


def _with_command(
    run: Sequence[_Started], event: Event, token: Token, location: str, *, is_sure: bool
) -> list[_Started]:
    """Return the commands after ``RUN``: ``=`` replaces those before it."""
    kept = list(run)
    if token.operator != "+=":
        kept = [] if is_sure else [command._replace(is_sure=False) for command in run]
    if token.attribute == "builtin":
        return kept
    text = event.expand(token.value)
    is_known = text is not None
    command = _Started(location, token.value if text is None else text, is_sure and is_known)
    return [*kept, command]


def _with_units(
    units: Sequence[_Started], event: Event, token: Token, location: str, *, is_sure: bool
) -> list[_Started]:
    """Return the units after ``SYSTEMD_WANTS``: ``=`` replaces those before it."""
    text = event.expand(token.value)
    names = _text.words(token.value if text is None else text)
    kept = units if token.operator == "+=" or not is_sure else ()
    return [*kept, *(_Started(location, name, is_sure=False) for name in names)]


def _of_other_events(sysfs: Sysfs, known: ForeignRules, listed: ListedDevice) -> Iterator[Rule]:
    """Yield what rules do to the device at events of other devices, by its name.

    Where the other device is not named by its subsystem and name, it is not known whether the rule
    applies.
    """
    target = Target(listed, is_event=False)
    for file in known.files:
        for line in file.naming:
            location = "%s:%d" % (file.path, line.number)
            tokens = [token for token in line.tokens if not _is_own(token, line, listed)]
            effects = [effect for token in tokens for effect in _by_name(known, target, token)]
            cause = _cause(sysfs, line) if effects else None
            if cause is None:
                unsure = [effect._replace(is_sure=False) for effect in effects]
                yield from _rules(location, unsure, _phase(file, line))
            elif cause.path != listed.path:
                for action in _EVENTS:
                    for rule in _of_event(known, Event(known.host, cause, action), target):
                        if rule.location == location:
                            yield rule


def _is_own(token: Token, line: Line, listed: ListedDevice) -> bool:
    """Return whether a token writes only below the device, at events of this one alone."""
    return (
        token.key == "ATTR"
        and not (token.attribute or "").startswith("[")
        and any(
            (condition.key, condition.operator, condition.value) == ("KERNEL", "==", listed.kernel)
            for condition in line.tokens
        )
    )


def _of_related_events(known: ForeignRules, listed: ListedDevice) -> Iterator[Rule]:
    """Yield what rules do at events of the device of VFIO below this one, and of those above it.

    That of VFIO appears when the device is bound, with any number. One above can be removed, and
    this one with it.
    """
    naming = [line for file in known.files for line in file.naming]
    if not naming or not listed.path:
        return
    target = Target(listed, is_event=True)
    for name in _names_of_vfio(naming):
        path = "%s/%s/%s" % (listed.path, _VFIO_CLASS, name)
        node = "%s/devices/%s" % (_VFIO_NAME, name)
        below = NodeDevice(listed.sysfs, path, _VFIO_CLASS, node, listed)
        for action in (ADD, CHANGE):
            for rule in _of_event(known, Event(known.host, below, action), target):
                yield rule._replace(phase=AFTER_ALL)
    if not any(is_removing_attribute(token) for line in naming for token in line.tokens):
        return
    target = target._replace(is_event=False)
    for above in list(listed.parents)[1:]:
        for action in _EVENTS:
            for rule in _of_event(known, Event(known.host, above, action), target):
                if rule.kind == REMOVE:
                    yield rule


def _names_of_vfio(lines: Iterable[Line]) -> set[str]:
    """Return names of a device of VFIO: any one, and those that lines ask for."""
    return {_VFIO_NAME + "0"} | {
        name
        for line in lines
        for token in line.tokens
        if token.key == "KERNEL"
        for name in token.value.split("|")
        if _OWN_NAME.fullmatch(name)
    }


def _phase(file: RuleFile, line: Line) -> int:
    is_started = any(token.key in ("RUN", "ENV") and not token.is_match for token in line.tokens)
    return AFTER_ALL if is_started else file.phase


def _by_name(known: ForeignRules, target: Target, token: Token) -> list[Effect]:
    """Return what a token does to the device by its name, whichever device the event is of."""
    value = token.value
    is_plain = "$" not in value and "%" not in value
    if not _can_name(known.commands, token):
        return []
    if token.key == "ATTR" and not (token.attribute or "").startswith("["):
        kind = unbinds_or_binds(token)
        is_named = value == target.device.identity.name
        return [Effect(kind, is_sure=False)] if kind and is_named else []
    if token.key == "ATTR":
        paths = attribute_paths(target.device, token.attribute or "")
        effects = [
            of_write(target, path, value if is_plain else None, is_sure=False) for path in paths
        ]
        return [effect for effect in effects if effect]
    if token.key != "ENV":
        return known.commands.effects(target, value, is_sure=False)
    return [
        effect
        for unit in _text.words(value)
        for effect in known.commands.unit_effects(target, unit)
    ]


def _cause(sysfs: Sysfs, line: Line) -> UdevDevice | None:
    """Return the device for whose events the line is meant, if it names one that is there."""
    plain = {
        token.key: token.value
        for token in line.tokens
        if token.operator == "==" and not set(token.value) & set("*?[|")
    }
    subsystem, name = plain.get("SUBSYSTEM"), plain.get("KERNEL")
    if not subsystem or not name:
        return None
    for directory in ("bus/%s/devices/%s", "class/%s/%s"):
        path = directory % (subsystem, name.replace("/", "!"))
        target = sysfs.link(path)
        if target:
            own = resolve_link(path.rpartition("/")[0], target)
            return UdevDevice(sysfs, own, subsystem, name)
    return None
