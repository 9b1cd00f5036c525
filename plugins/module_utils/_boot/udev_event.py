# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which lines of a rule file udev applies to an event of a device: yes, no, or not known. Reads.

``udev_rules_apply_to_event`` in src/udev/udev-rules.c and ``udev_event_apply_format`` in
src/udev/udev-format.c of systemd. A result is True, False, or None if it depends on what is not
known here: what programs answer, what other events did before, which driver is bound.
"""

from __future__ import annotations

import re
from typing import (
    Callable,
    ClassVar,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    Sequence,
)

from . import udev_patterns
from .foreign_rule_files import BIND, Host
from .udev_device import UNKNOWN, Answer, UdevDevice, canonical
from .udev_syntax import Line, Token

_PARENT_KEYS = ("KERNELS", "SUBSYSTEMS", "DRIVERS", "ATTRS", "TAGS")
# Names of hwdb, of the builtins and of this collection's own rules.
_SET_BY_PROGRAMS = re.compile(r"ID_|\.?ARMFLEET_VFIO|\.armfleet_vfio|SYSTEMD_|LIBINPUT_")
_FORMAT = re.compile(
    r"\$\$|%%|(?:\$(devnode|tempnode|attr|sysfs|env|kernel|number|driver|devpath|id|major|minor"
    r"|result|parent|name|links|root|sys)|%([NsEkndpbMmcPDLrS]))(\{[^}]*\}?)?"
)
_LETTERS = {
    "N": "devnode",
    "s": "attr",
    "E": "env",
    "k": "kernel",
    "n": "number",
    "d": "driver",
    "p": "devpath",
    "b": "id",
    "M": "major",
    "m": "minor",
    "c": "result",
    "P": "parent",
    "D": "name",
    "L": "links",
    "r": "root",
    "S": "sys",
    "tempnode": "devnode",
    "sysfs": "attr",
}
_SPACES = " \t\n\v\f\r"
_NUMBER = re.compile(r"[0-9]*\Z")
_SUBSYSTEM_OF_ALL = ("subsystem", "bus", "class")
# udev_replace_chars in src/udev/udev-util.c keeps these, and those that a whitelist has.
_UNUSUAL = re.compile(r"[^0-9A-Za-z#+\-.:=@_/ $%?,]")


class Applied(NamedTuple):
    """A line that udev applies; without ``is_sure``, it may."""

    line: Line
    is_sure: bool


def both(first: bool | None, second: bool | None) -> bool | None:
    """Return whether both are so."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


class _Jumps:
    """Where the GOTOs lead that are taken, or may be."""

    def __init__(self) -> None:
        self._targets: list[int] = []

    def is_reached(self, number: int) -> bool:
        """Return whether a line is known not to be jumped over."""
        return all(target <= number for target in self._targets)

    def follow(self, number: int, target: int, *, is_taken: bool) -> int:
        """Return the first line after this one that can be reached."""
        self._targets.append(target)
        if not is_taken:
            return number + 1
        # An earlier one may have been taken, which leads over this line.
        return min(known for known in self._targets if known > number)


class Event:
    """An event of a device, as the rules come to it, line by line."""

    def __init__(self, host: Host, device: UdevDevice, action: str) -> None:
        self.device = device
        self.action = action
        self._host = host
        self._properties: dict[str, Answer] = {"ACTION": Answer(action)}
        self._is_import_known = True
        # Patterns of names of properties that come from the parent.
        self._imported: list[str] = []
        self._program_result = Answer(None)
        self._parent: UdevDevice | None = None
        self._is_parent_known = True
        self.tags: dict[str, bool | None] = {}

    def apply(self, lines: Sequence[Line]) -> Iterator[Applied]:
        """Yield the lines of a file that apply, or may, after what they set for the event."""
        # Which parent $id means is decided by the last line that asked for one, in any file:
        # udev_rule_apply_parent_token_to_event in src/udev/udev-rules.c.
        self._parent, self._is_parent_known = None, False
        targets = _targets(lines)
        jumps = _Jumps()
        number = 0
        while number < len(lines):
            line = lines[number]
            is_match = self._matches(line)
            if is_match is not False:
                is_reached = jumps.is_reached(number) and not line.may_be_dropped
                is_sure = is_match is True and is_reached
                self._assign(line, is_sure=is_sure)
                yield Applied(line, is_sure=is_sure)
            if number in targets and is_match is not False:
                is_taken = is_match is True and not line.may_be_dropped
                number = jumps.follow(number, targets[number], is_taken=is_taken)
            else:
                number += 1

    # Conditions.

    def _matches(self, line: Line) -> bool | None:
        result: bool | None = True
        is_parent_done = False
        for token in line.tokens:
            if not token.is_match:
                break
            if token.key in _PARENT_KEYS:
                if not is_parent_done:
                    is_parent_done = True
                    result = both(result, self._match_parents(line.tokens))
            else:
                result = both(result, self._match(token))
            if result is False:
                return False
        return result

    def _match(self, token: Token) -> bool | None:
        check = self._checks.get(token.key)
        return check(self, token) if check else None

    def _match_parents(self, tokens: Sequence[Token]) -> bool | None:
        conditions = [token for token in tokens if token.key in _PARENT_KEYS]
        is_open = False
        self._parent, self._is_parent_known = None, True
        for device in self.device.parents:
            result: bool | None = True
            for token in conditions:
                result = both(result, self._match_parent(token, device))
            if result:
                self._parent, self._is_parent_known = device, not is_open
                return True
            is_open = is_open or result is None
        self._is_parent_known = not is_open
        # Without its directory, what is above the device is not known.
        return None if is_open or not self.device.path else False

    def _match_parent(self, token: Token, device: UdevDevice) -> bool | None:
        if token.key == "KERNELS":
            return compare(token, Answer(device.kernel))
        if token.key == "SUBSYSTEMS":
            return compare(token, _answer(device.subsystem))
        if token.key == "ATTRS":
            return self._compare_attribute(token, device)
        if token.key == "DRIVERS":
            return self._compare_driver(token, is_device=device is self.device)
        return None

    def _match_driver(self, token: Token) -> bool | None:
        return self._compare_driver(token, is_device=True)

    def _compare_driver(self, token: Token, *, is_device: bool) -> bool | None:
        """Compare the driver, of which is known that a device has one after its bind event."""
        if is_device and self.action == BIND and token.value in ("", "?*"):
            return (token.value == "?*") == (token.operator == "==")
        return None

    def _match_attribute(self, token: Token) -> bool | None:
        return self._compare_attribute(token, self.device)

    def _compare_attribute(self, token: Token, device: UdevDevice) -> bool | None:
        name = token.attribute or ""
        if name.startswith("["):
            return None
        expanded = self.expand(name)
        if expanded is None:
            return None
        if expanded.startswith("/"):
            # Before systemd 258 it is below the device's directory, where nothing has that name.
            return None
        answer = device.attribute(expanded)
        if answer.is_known and answer.text is None:
            return False
        if answer.text and token.value and token.value[-1] not in _SPACES:
            answer = Answer(answer.text.rstrip(" \t\n\r"))
        return compare(token, answer)

    def _match_property(self, token: Token) -> bool | None:
        return compare(token, self.property(token.attribute or ""))

    def property(self, name: str) -> Answer:
        """Return a property of the event, as far as the lines have come."""
        if name in self._properties:
            return self._properties[name]
        if any(udev_patterns.fnmatch(pattern, name) for pattern in self._imported):
            return UNKNOWN
        answer = self.device.property(name)
        if answer is not None:
            return answer
        is_open = not self._is_import_known or name in self._host.set_by_others
        return UNKNOWN if is_open or _SET_BY_PROGRAMS.match(name) else Answer(None)

    def _match_constant(self, token: Token) -> bool | None:
        if token.attribute == "arch" and self._host.architecture:
            return compare(token, Answer(self._host.architecture))
        return None

    def _match_test(self, token: Token) -> bool | None:
        path = self.expand(token.value)
        if path is None or token.attribute:
            return None
        is_there = self._exists(path)
        return None if is_there is None else is_there == (token.operator == "==")

    def _exists(self, path: str) -> bool | None:
        """Return whether a file exists that is there at each boot, or never."""
        if path.startswith("[") or "*" in path or ".." in path:
            return None
        if not path.startswith("/"):
            answer = self.device.attribute(path)
            return answer.text is not None if answer.is_known else None
        if path.startswith("/sys/"):
            # A device or a driver that is there now need not be when the event comes.
            return None
        return self._host.files.changed_at(path) is not None if _is_on_disk(path) else None

    def _match_result(self, token: Token) -> bool | None:
        return compare(token, self._program_result)

    def _match_program(self, _token: Token) -> bool | None:
        self._program_result = UNKNOWN
        return None

    def _match_import(self, token: Token) -> bool | None:
        # builtin_kmod in src/udev/udev-builtin-kmod.c succeeds whether or not it loads a module.
        if token.attribute == "builtin" and token.value.startswith("kmod load"):
            return token.operator == "=="
        if token.attribute in ("db", "cmdline"):
            self._properties[token.value] = UNKNOWN
        elif token.attribute == "parent":
            self._import_from_parent(token)
        else:
            self._is_import_known = False
        return None

    def _import_from_parent(self, token: Token) -> None:
        """Take note of properties that may be those of the parent, the kernel's included."""
        pattern = self.expand(token.value) or "*"
        self._imported.append(pattern)
        for name in self._properties:
            if udev_patterns.fnmatch(pattern, name):
                self._properties[name] = UNKNOWN

    def _match_text(self, token: Token) -> bool | None:
        return compare(token, self._text_of(token.key))

    def _text_of(self, key: str) -> Answer:
        if key == "ACTION":
            return Answer(self.action)
        if key == "KERNEL":
            return Answer(self.device.kernel)
        if key == "DEVPATH":
            return _answer(self.device.devpath)
        # A device that is no network interface is not given a name.
        return Answer(None)

    def _match_subsystem(self, token: Token) -> bool | None:
        subsystem = self.device.subsystem
        if subsystem is not None and token.value in _SUBSYSTEM_OF_ALL:
            return (subsystem in _SUBSYSTEM_OF_ALL) == (token.operator == "==")
        return compare(token, _answer(subsystem))

    _checks: ClassVar[Mapping[str, Callable[[Event, Token], bool | None]]] = {
        "ACTION": _match_text,
        "ATTR": _match_attribute,
        "CONST": _match_constant,
        "DEVPATH": _match_text,
        "DRIVER": _match_driver,
        "ENV": _match_property,
        "IMPORT": _match_import,
        "KERNEL": _match_text,
        "NAME": _match_text,
        "PROGRAM": _match_program,
        "RESULT": _match_result,
        "SUBSYSTEM": _match_subsystem,
        "TEST": _match_test,
    }

    # What lines change.

    def _assign(self, line: Line, *, is_sure: bool) -> None:
        for token in line.tokens:
            if token.key == "ENV" and not token.is_match:
                self._set(token, is_sure=is_sure)
            elif token.key == "TAG" and not token.is_match:
                self._tag(token, is_sure=is_sure)

    def _set(self, token: Token, *, is_sure: bool) -> None:
        name = token.attribute or ""
        value = self._assigned(name, token) if is_sure else None
        self._properties[name] = UNKNOWN if value is None else Answer(value)

    def _assigned(self, name: str, token: Token) -> str | None:
        value = self.expand(token.value)
        if token.operator != "+=" or value is None:
            return value
        before = self.property(name)
        if not before.is_known:
            return None
        if not token.value or before.text is None:
            return before.text or value
        return "%s %s" % (before.text, value)

    def _tag(self, token: Token, *, is_sure: bool) -> None:
        tag = self.expand(token.value)
        is_tagged = token.operator != "-="
        if token.operator == "=":
            self.tags = {} if is_sure else dict.fromkeys(self.tags)
        if tag is None or not is_sure:
            # Any tag may be meant, but none is removed for sure.
            is_changed = self.tags.get(tag or token.value, False) is not is_tagged
            self.tags[tag or token.value] = None if is_changed else is_tagged
        else:
            self.tags[tag] = is_tagged

    # Substitutions.

    def expand(self, text: str) -> str | None:
        """Return a value with what stands for something else replaced; None if it is not known."""
        if "$" not in text and "%" not in text:
            return text
        parts = []
        position = 0
        for match in _FORMAT.finditer(text):
            parts.append(text[position : match.start()])
            position = match.end()
            if match.group() in ("$$", "%%"):
                parts.append(match.group()[0])
                continue
            attribute = match.group(3) or ""
            if attribute and (not attribute.endswith("}") or attribute == "{}"):
                # udev drops the rest of the value.
                return "".join(parts)
            name = match.group(1) or match.group(2)
            answer = self._substitute(_LETTERS.get(name, name), attribute[1:-1])
            if not answer.is_known:
                return None
            parts.append(answer.text or "")
        return "".join([*parts, text[position:]])

    def _substitute(self, name: str, attribute: str) -> Answer:
        if name == "env":
            return self.property(attribute)
        if name == "attr":
            return self._attribute_of_device_or_parent(attribute)
        if name == "result":
            return self._program_result
        if name == "id":
            return self._of_parent(lambda parent: Answer(parent.kernel))
        if name == "driver":
            return self._of_parent(lambda _parent: UNKNOWN)
        return self._plain(name)

    def _plain(self, name: str) -> Answer:
        if name == "number":
            match = _NUMBER.search(self.device.kernel)
            digits = match.group() if match else ""
            return Answer(digits if digits != self.device.kernel else None)
        known: Mapping[str, Answer] = {
            "kernel": Answer(self.device.kernel),
            "devpath": _answer(self.device.devpath),
            "root": Answer("/dev"),
            "sys": Answer("/sys"),
        }
        if name in known:
            return known[name]
        node = self.device.property("DEVNAME")
        if node is None or not node.is_known or node.text is not None:
            return UNKNOWN
        # Of a device without a node.
        without_node = {"name": self.device.kernel, "major": "0", "minor": "0"}
        return UNKNOWN if name == "parent" else Answer(without_node.get(name))

    def _of_parent(self, read: Callable[[UdevDevice], Answer]) -> Answer:
        if not self._is_parent_known:
            return UNKNOWN
        return read(self._parent) if self._parent else Answer(None)

    def _attribute_of_device_or_parent(self, name: str) -> Answer:
        if name.startswith("["):
            return UNKNOWN
        answer = self.device.attribute(name)
        if answer.is_known and answer.text is None:
            answer = self._of_parent(lambda parent: parent.attribute(name))
        if answer.text is None:
            return answer
        text = answer.text.rstrip(" \t\n\r")
        # Others are replaced, or kept, by what they are in UTF-8.
        return UNKNOWN if _UNUSUAL.search(text) else Answer(text)

    def directory(self, path: str) -> str | None:
        """Return the directory in /sys that a path below the device's leads to, if it is there."""
        if not self.device.path:
            return None
        return canonical(self.device.sysfs, "%s/%s" % (self.device.path, path))


class Changes(NamedTuple):
    """What lines can change for an event: properties by name, and by patterns of imported names."""

    names: Collection[str] = ()
    imported: Sequence[str] = ()


def changes_of(lines: Iterable[Line]) -> Changes:
    """Return what these lines can change."""
    names: set[str] = set()
    imported: list[str] = []
    for line in lines:
        for token in line.tokens:
            if token.key == "ENV" and not token.is_match:
                names.add(token.attribute or "")
            elif token.key == "IMPORT" and token.attribute in ("db", "cmdline"):
                names.add(token.value)
            elif token.key == "IMPORT" and token.attribute == "parent":
                is_plain = "$" not in token.value and "%" not in token.value
                imported.append(token.value if is_plain else "*")
    return Changes(names, imported)


class Outline(NamedTuple):
    """The lines of a file that act, those with a GOTO before the last of them, and where it leads.

    All are numbers of lines in the order of the file, which begin with 0.
    """

    acting: Collection[int]
    numbers: Sequence[int]
    targets: Mapping[int, int]


def outline_of(lines: Sequence[Line], is_acting: Callable[[Line], bool]) -> Outline:
    """Return the outline of a file."""
    acting = {number for number, line in enumerate(lines) if is_acting(line)}
    targets = _targets(lines) if acting else {}
    last = max(acting, default=-1)
    numbers = sorted(acting.union(number for number in targets if number < last))
    return Outline(acting, numbers, targets)


class UnplayedEvent(Event):
    """An event of which only that is known which no line changes; most lines cannot apply by it."""

    def __init__(self, host: Host, device: UdevDevice, action: str, changes: Changes) -> None:
        super().__init__(host, device, action)
        self._properties.update(dict.fromkeys(changes.names, UNKNOWN))
        self._imported.extend(changes.imported)
        self._is_import_known = False
        self._program_result = UNKNOWN

    def can_act(self, lines: Sequence[Line], outline: Outline) -> bool:
        """Return whether a line of a file that acts can apply."""
        jumps = _Jumps()
        reached = 0
        for number in outline.numbers:
            if number < reached:
                continue
            line = lines[number]
            # An earlier line can have decided it.
            self._parent, self._is_parent_known = None, False
            is_match = self._matches(line)
            if is_match is False:
                continue
            if number in outline.acting:
                return True
            is_taken = is_match is True and not line.may_be_dropped
            reached = jumps.follow(number, outline.targets[number], is_taken=is_taken)
        return False


def compare(token: Token, answer: Answer) -> bool | None:
    """Return whether a text meets a condition; a missing one is empty."""
    if not answer.is_known:
        return None
    is_alike = udev_patterns.is_match(
        token.value, answer.text or "", ignores_case=token.ignores_case
    )
    return is_alike == (token.operator == "==")


def _answer(text: str | None) -> Answer:
    return UNKNOWN if text is None else Answer(text)


def _targets(lines: Sequence[Line]) -> dict[int, int]:
    """Return the number of the line that a GOTO leads to, by the number of that with the GOTO."""
    labels: dict[str, int] = {}
    targets = {}
    for number in reversed(range(len(lines))):
        line = lines[number]
        if line.goto is not None:
            targets[number] = labels[line.goto]
        if line.label is not None:
            labels[line.label] = number
    return targets


def _is_on_disk(path: str) -> bool:
    """Return whether a path is on the root file system or in /usr, which udev starts with."""
    return path.startswith(("/etc/", "/usr/", "/bin/", "/sbin/", "/lib/"))
