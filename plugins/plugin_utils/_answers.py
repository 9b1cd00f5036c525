# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host may answer to each module: documented keys, types, sizes, printable text. Pure.

A host is not trusted by the control node. Whoever has root on it can replace its Python
interpreter and answer a module with any text, in which ansible-core would find facts that precede
the variables of the inventory, hosts to add, warnings to show. So the answer is read by the shapes
below, which are those of the modules' documentation, and nothing else of it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

# A board with 1,000 devices answers with 3 MB.
LARGEST_ANSWER = 32 * 2**20
# A name or a sentence; a failure with a sentence for each of 500 entries; the rules of so many.
LONGEST_TEXT = 2**16
_LONGEST_FAILURE = 2**18
_LONGEST_DIFF = 2**22
MOST_ITEMS = 20_000
# Beside what a module returns; an output is for people who look for a cause.
_LONGEST_OUTPUT = 2**14
_MOST_WARNINGS = 100
# Of a distribution or its version.
_LONGEST_NAME = 128
_LONGEST_NUMBER = 18
_START = re.compile(r"^[ \t\r]*(?=\{)", re.MULTILINE)


class MalformedAnswerError(Exception):
    """An answer is not as the module's documentation says; the text says where."""


class Shape(Protocol):
    """What a value has to be."""

    def read(self, value: Any, path: str) -> Any:
        """Return a clean copy of ``value``; MalformedAnswerError names ``path`` if it is wrong."""


@dataclass(frozen=True)
class Text:
    """A string of up to so many characters; ``has_lines`` lets it have line breaks and tabs."""

    longest: int = LONGEST_TEXT
    has_lines: bool = False

    def read(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise _wrong(path, "is not a string")
        if len(value) > self.longest:
            raise _wrong(path, "has more than %d characters" % self.longest)
        return printable(value, has_lines=self.has_lines)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            raise _wrong(path, "is neither true nor false")
        return value


@dataclass(frozen=True)
class Count:
    """A number of things, up to ``most``."""

    most: int = 2**16

    def read(self, value: Any, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(path, "is not a number")
        if not 0 <= value <= self.most:
            raise _wrong(path, "is not between 0 and %d" % self.most)
        return int(value)


@dataclass(frozen=True)
class Nullable:
    """Null, or what ``shape`` says."""

    shape: Shape

    def read(self, value: Any, path: str) -> Any:
        return None if value is None else self.shape.read(value, path)


@dataclass(frozen=True)
class ListOf:
    """A list; ``shape`` is that of each item."""

    shape: Shape

    def read(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise _wrong(path, "is not a list")
        if len(value) > MOST_ITEMS:
            raise _wrong(path, "has more than %d items" % MOST_ITEMS)
        return [
            self.shape.read(item, "%s[%d]" % (path, number)) for number, item in enumerate(value)
        ]


@dataclass(frozen=True)
class Record:
    """A mapping with all ``keys`` and some of ``optional``; what else it has is not kept.

    If it ``omits_nulls``, one of ``keys`` that may be null can be missing.
    """

    keys: Mapping[str, Shape]
    optional: Mapping[str, Shape] = field(default_factory=dict)
    omits_nulls: bool = False

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(path, "is no mapping")
        within = "%s." % path if path else ""
        clean = {}
        for key, shape in {**self.keys, **self.optional}.items():
            if key in value:
                clean[key] = shape.read(value[key], within + key)
            elif key in self.keys and not (self.omits_nulls and isinstance(shape, Nullable)):
                raise _wrong(within + key, "is missing")
        return clean

    def part(self, *keys: str) -> Record:
        """Return the record with some of its keys only."""
        return Record({key: self.keys[key] for key in keys}, omits_nulls=self.omits_nulls)


@dataclass(frozen=True)
class Completed:
    """What ``record`` says, with null for each key that is missing."""

    record: Record

    def read(self, value: Any, path: str) -> dict[str, Any]:
        return {**dict.fromkeys(self.record.keys), **self.record.read(value, path)}


@dataclass(frozen=True)
class Flags:
    """A mapping from names to true or false."""

    def read(self, value: Any, path: str) -> dict[str, bool]:
        return _read_values(value, path, Flag().read)


@dataclass(frozen=True)
class Entry:
    """An entry of a policy list: options with texts, numbers, flags, or lists of texts."""

    def read(self, value: Any, path: str) -> dict[str, Any]:
        return _read_values(value, path, _option)


def _read_values(value: Any, path: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
    """Return a mapping from texts to what ``read`` makes of each value and its path."""
    if not isinstance(value, Mapping):
        raise _wrong(path, "is no mapping")
    if len(value) > MOST_ITEMS:
        raise _wrong(path, "has more than %d items" % MOST_ITEMS)
    return {
        _TEXT.read(key, path): read(item, "%s.%s" % (path, printable(str(key))))
        for key, item in value.items()
    }


def _option(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return (_TEXTS if isinstance(value, Sequence) and not isinstance(value, str) else _TEXT).read(
        value, path
    )


_TEXT = Text()
_TEXTS = ListOf(_TEXT)
_FAILURE = Text(_LONGEST_FAILURE, has_lines=True)
_LINES = Text(_LONGEST_DIFF, has_lines=True)
_MAYBE = Nullable(_TEXT)
_FLAG = Flag()
_ENTRY = Entry()
_BINDING = Record({"driver": _MAYBE, "driver_override": _MAYBE})
_BUILTIN_BINDING: dict[str, Shape] = {
    "name": _TEXT,
    "driver": _TEXT,
    "parameter": _MAYBE,
    "message": _TEXT,
}
_HAZARD: dict[str, Shape] = {"kind": _TEXT, "subject": _TEXT, "message": _TEXT}
_DEVICE: dict[str, Shape] = {
    "name": _TEXT,
    "bus": _TEXT,
    "dt_path": _MAYBE,
    "compatible": _TEXTS,
    "acpi_path": _MAYBE,
    "acpi_hid": _MAYBE,
    "acpi_uid": _MAYBE,
    "pci_id": _MAYBE,
    "driver": _MAYBE,
    "driver_override": _MAYBE,
    "iommu_group": _MAYBE,
    "vfio_nodes": _TEXTS,
}
_CHANGED_DEVICE: dict[str, Shape] = {
    **_DEVICE,
    "before": _BINDING,
    "after": _BINDING,
    "changed": _FLAG,
    "steps": _TEXTS,
}
_DIFF = ListOf(
    Record({"before": _LINES, "after": _LINES}, {"before_header": _TEXT, "after_header": _TEXT})
)
_CHANGES: dict[str, Shape] = {
    "devices": ListOf(Record(_CHANGED_DEVICE)),
    "skipped_entries": _TEXTS,
    "interrupted": _TEXTS,
    "host_steps": _TEXTS,
    "diff": _DIFF,
}
HAZARD = Record(_HAZARD)
# Only a use has a subject.
OBSTACLE = Record({"kind": _TEXT, "message": _TEXT}, {"subject": _TEXT})
LOSS = Record({**_HAZARD, "accepted": _FLAG})
BOOT_FILE = Record({"path": _TEXT, "state": _TEXT, "drift": Nullable(_TEXTS)})
KERNEL = Record(
    {"release": _TEXT, "running": _FLAG, "new": _FLAG, "missing": _TEXTS, "note": _MAYBE}
)
BOARD = Record({"compatible": _TEXTS, "product_name": _MAYBE, "board_name": _MAYBE})
_VFIO_SETTINGS = ("reset_required", "unsafe_noiommu", "unsafe_interrupts")
INSPECTED_DEVICE = Record(
    {
        **_DEVICE,
        "bound_by": Nullable(Record({"kind": _TEXT, "message": _TEXT})),
        "links": _TEXTS,
        "in_use_by": Nullable(ListOf(HAZARD)),
        "claimed_by": Nullable(_ENTRY),
        "desired": Nullable(_BINDING),
        "next_boot": Record(
            {**_BINDING.keys, "known": _FLAG, "reason": _TEXT}, {"in_drift": _FLAG}
        ),
        "lost_at_boot": ListOf(LOSS),
        "drift": _TEXTS,
        "candidate": Nullable(_FLAG),
        "why_not": Nullable(ListOf(OBSTACLE)),
        "entry": Nullable(_ENTRY),
        "settings": Nullable(Record({}, dict.fromkeys(_VFIO_SETTINGS, _FLAG))),
        "iommu_group_devices": Nullable(_TEXTS),
        "reset_function": Nullable(_FLAG),
        "isolated_interrupts": Nullable(_FLAG),
        "sriov_numvfs": Nullable(Count()),
        "sriov_totalvfs": Nullable(Count()),
        "driverctl": Nullable(Record({"path": _TEXT, "entry": _ENTRY})),
        "foreign_rules": ListOf(Record({"location": _TEXT, "driver_override": _MAYBE})),
        "module_configuration": ListOf(Record({"location": _TEXT, "text": _TEXT})),
        "kernel_command_line": Nullable(Record(_BUILTIN_BINDING)),
    },
    omits_nulls=True,
)
VFIO_SUPPORT = Record(
    {
        "kernel": _TEXT,
        "distribution": _MAYBE,
        "drivers": Flags(),
        "iommus": _TEXTS,
        "noiommu": Nullable(_FLAG),
        "unsafe_interrupts": Flags(),
        "signed_modules": _MAYBE,
        "initramfs_tool": _MAYBE,
        "systemd": _FLAG,
        "kernel_options": Entry(),
        "kernel_options_source": _MAYBE,
        "deprecated": Entry(),
        "missing": _TEXTS,
    }
)
LOST_ENTRY = Record({"entry": _ENTRY, "former": _TEXTS, "now": _TEXTS, "message": _TEXT})
_STAMP: dict[str, Shape] = {"time": Nullable(Text(64)), "user": Nullable(Text(64))}
ROLLOUT = Record(
    {
        "name": Text(64),
        "state": Text(64),
        **_STAMP,
        "digest": Nullable(Text(64)),
        "changed_devices": ListOf(Record({"device": _TEXT, "before": _MAYBE, "after": _MAYBE})),
        "more_devices": Count(2**20),
        "rolled_back": Nullable(Record(_STAMP)),
    }
)
DEVICE_INFO: dict[str, Shape] = {
    "devices": ListOf(INSPECTED_DEVICE),
    "policy_list": ListOf(_ENTRY),
    "lost_entries": ListOf(LOST_ENTRY),
    "policy_digest": _TEXT,
    "rollout": _MAYBE,
    "rollouts": Nullable(ListOf(ROLLOUT)),
    "rollouts_problem": _MAYBE,
    "boot_files": ListOf(BOOT_FILE),
    "kernels": ListOf(KERNEL),
    "reboot_required": _FLAG,
    "board": BOARD,
    "driverctl_notes": _TEXTS,
    "skipped_entries": _TEXTS,
    "vfio_support": Nullable(VFIO_SUPPORT),
}

# What each module returns beside changed, failed and msg.
SHAPES: dict[str, Mapping[str, Shape]] = {
    "device_info": DEVICE_INFO,
    "driver_override": _CHANGES,
    "no_autobind": _CHANGES,
    "vfio_binding": {**_CHANGES, "kept_settings": _TEXTS},
    "host_policy": {
        **_CHANGES,
        "devices": ListOf(Record({**_CHANGED_DEVICE, "links": _TEXTS})),
        "kept_settings": _TEXTS,
        "boot_files": ListOf(Record({"path": _TEXT, "changed": _FLAG, "state": _TEXT})),
        "initramfs_tool": _MAYBE,
        "initramfs_command": Nullable(_TEXTS),
        "reboot_required": _FLAG,
        "not_checked": _TEXTS,
        "kernel_command_line": ListOf(Record(_BUILTIN_BINDING)),
        "policy_digest": _TEXT,
        "plan_digest": _MAYBE,
        "rollout": Nullable(Record({"name": _TEXT, "ended": _FLAG})),
        "rolled_back": _TEXTS,
        "inspection": Nullable(Record(DEVICE_INFO)),
    },
    # The rest is the answer of another module.
    "last_answer": {"is_kept": _FLAG},
    "initramfs": {
        "tool": _TEXT,
        "command": _TEXTS,
        "images": ListOf(
            Record(
                {
                    "path": _TEXT,
                    "kernel": _TEXT,
                    "rebuilt": _FLAG,
                    "missing": _TEXTS,
                    "unexpected": _TEXTS,
                }
            )
        ),
    },
}


def printable(text: str, *, has_lines: bool = False) -> str:
    """Return the text with an escape of Python's for each character that is not printable.

    Printable is what ``str.isprintable`` says: no control character of a terminal, none that turns
    the direction of the text, no lone surrogate, no space but the one of ASCII. ``has_lines``
    leaves line breaks and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if has_lines else ""
    return "".join(
        letter
        if letter.isprintable() or letter in kept
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def decode(output: str) -> Any:
    """Return the first JSON object in the output of a module, or None if it has none.

    Lines before it are those of a login. MalformedAnswerError says why it cannot be read.
    """
    if len(output) > LARGEST_ANSWER:
        raise MalformedAnswerError("it has more than %d characters" % LARGEST_ANSWER)
    start = _START.search(output)
    if start is None:
        return None
    try:
        return DECODER.raw_decode(output, start.end())[0]
    except RecursionError as error:
        raise MalformedAnswerError("it is nested too deeply") from error
    except ValueError as error:
        raise MalformedAnswerError("it is not JSON") from error


def _number(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Refuse long numbers: Python before 3.10.7 takes quadratic time for them."""

    def parse_short(digits: str) -> Any:
        if len(digits) > _LONGEST_NUMBER:
            raise ValueError(digits[:_LONGEST_NUMBER])
        return parse(digits)

    return parse_short


# For what may be hostile.
DECODER = json.JSONDecoder(parse_int=_number(int), parse_float=_number(float))


def read(module: str, answer: Any) -> dict[str, Any]:
    """Return what may be kept of a module's answer.

    That is ``changed``, what the module returns (all of it if it did not fail), and for people
    ``msg``, the first of the ``warnings`` and ``exception``, a traceback. MalformedAnswerError if
    it is not as the module returns it.
    """
    clean = _COMMON.read(answer, "")
    clean.setdefault("changed", False)
    warnings = clean.get("warnings", ())
    if len(warnings) > _MOST_WARNINGS:
        more = "and %d more warnings" % (len(warnings) - _MOST_WARNINGS)
        clean["warnings"] = [*warnings[:_MOST_WARNINGS], more]
    if clean.get("failed"):
        clean.setdefault("msg", "")
        for key, shape in SHAPES[module].items():
            with suppress(MalformedAnswerError, KeyError):
                clean[key] = shape.read(answer[key], key)
        return clean
    return {**clean, **Record(SHAPES[module]).read(answer, "")}


def output(text: str) -> str:
    """Return the output of a program as people may see it: printable, and its end if it is long."""
    return printable(text[-_LONGEST_OUTPUT:].replace("\r\n", "\n"), has_lines=True)


def command_output(text: str) -> str:
    """Return the output of a command that ansible-core itself runs on a host, as ``output`` does.

    The discovery of an interpreter reads names of the distribution from JSON, and quotes them: an
    escape of JSON is printable, and the character that it stands for need not be.
    """
    clean = output(text)
    try:
        answer = decode(clean)
        return clean if answer is None else json.dumps(_DISCOVERED.read(answer, ""))
    except MalformedAnswerError:
        return ""


@dataclass(frozen=True)
class _Message:
    """A warning or a traceback: a text, or ansible-core's own record of one (2.19 and later)."""

    key: str

    def read(self, value: Any, path: str) -> str:
        while isinstance(value, Mapping):
            value = value.get(self.key, value.get("event"))
        return _FAILURE.read(value, path)


_DISCOVERED = Record(
    {},
    {
        "platform_dist_result": ListOf(Text(_LONGEST_NAME)),
        "osrelease_content": Nullable(Text(has_lines=True)),
    },
)
_COMMON = Record(
    {},
    {
        "changed": _FLAG,
        "failed": _FLAG,
        "msg": _FAILURE,
        "warnings": ListOf(_Message("msg")),
        "exception": _Message("formatted_traceback"),
    },
)


def _wrong(path: str, problem: str) -> MalformedAnswerError:
    return MalformedAnswerError("%s %s" % (path or "it", problem))
