# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What rules of foreign files do to a device at each of its events and at those of others. Reads.

Loaded only if a host has files that matter: see foreign_udev.py.
"""

from __future__ import annotations

import re
from typing import Iterable, Iterator, NamedTuple, Sequence

from .. import _text
from .._system.sysfs import Sysfs
from . import udev_syntax
from .foreign_rule_files import ADD, CHANGE, RuleText
from .foreign_udev import AFTER_ALL, AFTER_OURS, BEFORE_OURS, EVENTS, WANTS, ForeignRules, Rule
from .udev_commands import OVERRIDE, REMOVE, Commands
from .udev_device import ListedDevice, NodeDevice, UdevDevice, resolve_link
from .udev_effects import (
    Effect,
    Target,
    attribute_paths,
    is_binding_attribute,
    is_removing_attribute,
    of_attribute,
    of_command,
    of_unit,
    of_write,
    unbinds_or_binds,
)
from .udev_event import Changes, Event, Outline, UnplayedEvent, changes_of, outline_of
from .udev_syntax import Line, Token

_STARTED = ("PROGRAM", "IMPORT")
# The class of the device that VFIO registers below a bound one, since Linux 6.1 (vfio_init_device
# in drivers/vfio/vfio_main.c), and the start of its name.
_VFIO_CLASS, _VFIO_NAME = "vfio-dev", "vfio"
_OWN_NAME = re.compile(r"%s[0-9]+" % _VFIO_NAME)


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


def parsed_file(text: RuleText, version: int | None) -> RuleFile:
    """Return the lines of a file, as a version of udev reads it, if that is known."""
    phase = BEFORE_OURS if text.is_before_ours else AFTER_OURS
    return RuleFile(text.path, udev_syntax.parse(text.content, version).lines, phase)


def changes_in(files: Iterable[RuleFile]) -> Changes:
    """Return what lines of these files can change for an event."""
    return changes_of(line for file in files for line in file.lines)


def parsed_with_acting(text: RuleText, commands: Commands, version: int | None) -> RuleFile:
    """Return the lines of a file, and which of them can change a device."""
    file = parsed_file(text, version)
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
    return token.key == "ENV" and token.attribute == WANTS and not token.is_match


def at_own_event(known: ForeignRules, listed: ListedDevice, action: str) -> list[Rule]:
    """Return the rules that change the device at an event of its own."""
    event = Event(known.host, listed, action)
    return list(_of_event(known, event, Target(listed, is_event=True)))


def at_events_of_others(sysfs: Sysfs, known: ForeignRules, listed: ListedDevice) -> list[Rule]:
    """Return the rules that change the device at events of other devices."""
    return [
        *_of_other_events(sysfs, known, listed),
        *(rule._replace(is_sure=False) for rule in _of_related_events(known, listed)),
    ]


class _Started(NamedTuple):
    """A command or a unit that is started after all rules."""

    location: str
    text: str
    is_sure: bool


def _of_event(known: ForeignRules, event: Event, target: Target) -> Iterator[Rule]:
    """Yield what the rules do to the device at an event of itself or of another device."""
    changes = known.changes or Changes()
    unplayed = UnplayedEvent(known.host, event.device, event.action, changes)
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
        effects = of_command(known.commands, target, command.text, is_sure=command.is_sure)
        yield from _rules(command.location, effects, AFTER_ALL)
    # systemd knows only devices with its tag: device_setup_unit in src/core/device.c.
    for unit in units if event.tags.get("systemd", False) is not False else ():
        effects = of_unit(known.commands, target, unit.text)
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
        return of_command(
            known.commands,
            target,
            token.value if text is None else text,
            is_sure=is_sure and is_known,
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
                for action in EVENTS:
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
        for action in EVENTS:
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
    if not _can_name(known.commands, token):
        return []
    if token.key == "ATTR" and not (token.attribute or "").startswith("["):
        kind = unbinds_or_binds(token)
        is_named = value == target.device.identity.name
        return [Effect(kind, is_sure=False)] if kind and is_named else []
    if token.key == "ATTR":
        paths = attribute_paths(target.device, token.attribute or "")
        effects = [
            of_write(target, path, None if _is_expanded(value) else value, is_sure=False)
            for path in paths
        ]
        return [effect for effect in effects if effect]
    if token.key != "ENV":
        return of_command(known.commands, target, value, is_sure=False)
    return [
        effect for unit in _text.words(value) for effect in of_unit(known.commands, target, unit)
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
