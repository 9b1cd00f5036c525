# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an interrupted run, checked line by line before anything is undone by it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Mapping

from .._boot import driverctl, initramfs, last_applied
from .._boot.rollout_backup import PREVIOUS
from .._model.buses import VFIO_DRIVERS
from . import symlinks
from .run_lock import (
    DEVICE,
    FILE,
    FORMAT,
    LINKS,
    MODULE,
    NODE,
    NOIOMMU,
    RELOADED,
    DamagedLine,
    Interrupted,
    Undo,
)

# Files that a run writes or removes; driverctl's are in a directory of their own.
PATHS = (
    *(*last_applied.PATHS, *initramfs.PATHS),
    *(PREVIOUS, last_applied.WAITS_FOR_BOOT, initramfs.OUTDATED),
)

_MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
_MODE = re.compile(r"[0-7]{3,4}\Z")
# Of a group, and of a device: vfio_group_get_from_iommu and vfio_init_device in drivers/vfio.
_NODE = re.compile(symlinks.DEV + r"/(?:(?:noiommu-)?[0-9]+|devices/vfio[0-9]+)\Z")
_LONGEST_QUOTE = 60


def parse(content: bytes, boot: str) -> Interrupted | None:
    """What the journal says; None if it is empty or of another boot than ``boot``.

    ValueError if it cannot be told whose it is. Other lines that cannot be read are kept apart.
    """
    # A line that was cut short stands for a change that was not made.
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
    if not lines:
        return None
    head = _mapping(_loads(lines[0]), "its first line")
    if _text(head.get("boot"), "the boot") != boot:
        for line in lines:
            _loads(line)
        return None
    # True would be equal to 1.
    if head.get("format") != FORMAT or isinstance(head["format"], bool):
        raise ValueError(
            "its format is %s, and this version of the collection reads format %d"
            % (_quoted(head.get("format")), FORMAT)
        )
    interrupted = Interrupted(_printable(head.get("who"), "who it was"), [], [])
    for number, line in enumerate(lines[1:], start=2):
        try:
            interrupted.undos.append(_undo(_loads(line)))
        except ValueError as error:
            interrupted.damaged.append(DamagedLine(number, line, str(error)))
    return interrupted


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


def _undo(record: Any) -> Undo:
    if not isinstance(record, list) or len(record) != len(Undo._fields):
        raise ValueError("%s is no record" % _quoted(record))
    kind, subject, values, is_late = record
    if not isinstance(kind, str) or kind not in _CHECKS:
        raise ValueError("%s is no kind of change" % _quoted(kind))
    _printable(subject, "the subject")
    if not isinstance(is_late, bool):
        raise ValueError("%s is neither true nor false" % _quoted(is_late))
    checks = _CHECKS[kind]
    if _mapping(values, "what it was").keys() != checks.keys():
        raise ValueError("%s does not have the keys %s" % (_quoted(values), ", ".join(checks)))
    for key, check in checks.items():
        check(values[key], key)
    return Undo(kind, subject, values, is_late)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("%s is %s" % (what, _quoted(value)))
    return value


def _text(value: Any, what: str) -> str:
    """A text that a file or its name can have."""
    if not isinstance(value, str):
        raise ValueError("%s is %s" % (what, _quoted(value)))
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("%s is %s" % (what, _quoted(value))) from None
    return value


def _printable(value: Any, what: str) -> str:
    text = _text(value, what)
    if not text.isprintable():
        raise ValueError("%s is %s" % (what, _quoted(value)))
    return text


def _name(value: Any, what: str) -> None:
    """A name in a directory of sysfs."""
    text = _text(value, what)
    if text in ("", ".", "..") or "/" in text or not text.isprintable():
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _override(value: Any, what: str) -> None:
    if not _text(value, what) or set(value) & set("\n\0"):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _module(value: Any, what: str) -> None:
    if not _MODULE_NAME.match(_text(value, what)):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _modules(value: Any, what: str) -> None:
    if not isinstance(value, list):
        raise ValueError("%s is %s" % (what, _quoted(value)))
    for name in value:
        _module(name, what)


def _vfio_module(value: Any, what: str) -> None:
    if value not in list(VFIO_DRIVERS.values()):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _switch(value: Any, what: str) -> None:
    if value not in ("Y", "N"):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _boolean(value: Any, what: str) -> None:
    if not isinstance(value, bool):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _mode(value: Any, what: str) -> None:
    if not _MODE.match(_text(value, what)):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _our_path(value: Any, what: str) -> None:
    directory, _slash, name = _text(value, what).rpartition("/")
    is_stored = directory == driverctl.DIRECTORY and "\0" not in name and driverctl.device_of(name)
    if value not in PATHS and not is_stored:
        raise ValueError("%s is %s, no file of this collection" % (what, _quoted(value)))


def _node(value: Any, what: str) -> None:
    if not _NODE.match(_text(value, what)):
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _link(value: Any, what: str) -> None:
    directory, _slash, name = _text(value, what).rpartition("/")
    if directory not in symlinks.FOLDERS or name in ("", ".", "..") or "\0" in name:
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _target(value: Any, what: str) -> None:
    if not _text(value, what) or "\0" in value:
        raise ValueError("%s is %s" % (what, _quoted(value)))


def _device(value: Any, what: str) -> None:
    """A device's Identity as JSON has it."""
    if not isinstance(value, list) or len(value) != 6 or not isinstance(value[3], list):
        raise ValueError("%s is %s" % (what, _quoted(value)))
    bus, name, dt_path, compatible, acpi_path, acpi_hid = value
    if not isinstance(bus, str) or bus not in VFIO_DRIVERS:
        raise ValueError("the bus is %s" % _quoted(bus))
    _name(name, "the device's name")
    for text in (dt_path, acpi_path, acpi_hid):
        if text is not None:
            _text(text, what)
    for text in compatible:
        _text(text, what)


def _wanted(value: Any, what: str) -> None:
    """The driver and the override that the run wanted."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("%s is %s" % (what, _quoted(value)))
    _or_null(_name)(value[0], what)
    _or_null(_override)(value[1], what)


def _quoted(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"


_Check = Callable[[Any, str], object]


def _or_null(check: _Check) -> _Check:
    return lambda value, what: value is None or check(value, what)


def _each(check_key: _Check, check_value: _Check) -> _Check:
    def check(value: Any, what: str) -> None:
        for key, one in _mapping(value, what).items():
            check_key(key, what)
            check_value(one, what)

    return check


# What each kind of change has written down, and what that can be.
_CHECKS: Mapping[str, Mapping[str, _Check]] = {
    DEVICE: {
        "device": _device,
        "driver": _or_null(_name),
        "driver_override": _or_null(_override),
        "wanted": _or_null(_wanted),
    },
    MODULE: {"module": _module, "before": _modules, "came": _modules},
    RELOADED: {
        "module": _vfio_module,
        "reset_required": _switch,
        "noiommu": _or_null(_boolean),
    },
    NOIOMMU: {"value": _switch},
    FILE: {"path": _our_path, "before": _or_null(_text), "after": _or_null(_text)},
    NODE: {"path": _node, "group": _or_null(_name), "mode": _or_null(_mode)},
    LINKS: {
        "before": _each(_link, _or_null(_target)),
        "owners": _each(_link, _device),
    },
}
