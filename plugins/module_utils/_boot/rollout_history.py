# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last rollouts of a host: what each changed, and the list before it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, NamedTuple, Sequence

from .. import _text
from .._errors import DAMAGED, PolicyError
from .._model.policy import ROLLOUT_NAME
from .._model.policy_list import parse_entries
from .._system.files import FileChange
from .last_applied import PREVIOUS, AppliedList, digest, from_options, to_mapping, to_options

FORMAT = 2
MOST_ROLLOUTS = 10
MOST_DEVICES = 20

APPLIED, REPLACED, OVERTAKEN, ROLLED_BACK = "applied", "replaced", "overtaken", "rolled_back"

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_USER = re.compile(r"[A-Za-z0-9._@+:-]{1,64}")
_NOT_OF_USERS = re.compile(r"[^A-Za-z0-9._@+:-]")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Of a device, of a driver, and of what is wrong with the file; the last is quoted in a sentence.
_LONGEST_NAME = 256
_LONGEST_USER = 64
_LONGEST_REASON = 200
_MOST_UNNAMED = 1 << 20


class Stamp(NamedTuple):
    """When something was done by the clock of the host (ISO 8601, UTC), and by whom, if known."""

    time: str | None = None
    user: str | None = None


class ChangedDevice(NamedTuple):
    """A device that a rollout changed, and its drivers before and after; None for none."""

    device: str
    before: str | None
    after: str | None


class Rollout(NamedTuple):
    """A rollout that changed the list of this host.

    ``before`` and ``after`` are the lists with their options, as JSON has them; None if only the
    name was recorded. ``digest`` is that of ``after``. ``more_devices`` were changed beside
    ``devices``. ``rolled_back`` is None while it is in force or overtaken.
    """

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    digest: str | None = None
    made: Stamp = Stamp()
    devices: Sequence[ChangedDevice] = ()
    more_devices: int = 0
    rolled_back: Stamp | None = None


class HistoryUpdate(NamedTuple):
    """The content of the file until now, and the rollouts after this run, newest first.

    If it ``adds`` one, the first of them is that of this run, or is continued by it.
    """

    content: str | None
    rollouts: Sequence[Rollout]
    adds: bool = False


def clean_user(name: str | None) -> str | None:
    """Return the name of a user as it may be recorded; None if there is none."""
    return _NOT_OF_USERS.sub("_", name)[:_LONGEST_USER] if name else None


def changed_device(device: str, before: str | None, after: str | None) -> ChangedDevice:
    """Return the record of a changed device; names that firmware gave are printable and short."""
    return ChangedDevice(_clean(device), before and _clean(before), after and _clean(after))


def _clean(name: str) -> str:
    return _text.printable(name, _LONGEST_NAME)[:_LONGEST_NAME]


def in_force(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Return the rollouts that were not rolled back, newest first."""
    return [rollout for rollout in rollouts if rollout.rolled_back is None]


def is_applied(rollout: Rollout, now: AppliedList) -> bool:
    """Return whether ``now`` is the list that the rollout left; PolicyError if it is damaged."""
    return rollout.after is not None and to_list(rollout.after) == now


def states(rollouts: Sequence[Rollout], now: AppliedList) -> list[str]:
    """Return the state of each rollout on a host with the list ``now``.

    PolicyError if the list of the newest one is damaged.
    """
    newest = next(iter(in_force(rollouts)), None)
    return [
        ROLLED_BACK
        if rollout.rolled_back is not None
        else OVERTAKEN
        if rollout is not newest
        else APPLIED
        if is_applied(rollout, now)
        else REPLACED
        for rollout in rollouts
    ]


def bounded(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Return the last rollouts; those that were rolled back are forgotten before others."""
    kept = list(rollouts)
    while len(kept) > MOST_ROLLOUTS:
        rolled_back = [number for number, rollout in enumerate(kept) if rollout.rolled_back]
        del kept[rolled_back[-1] if rolled_back else -1]
    return kept


def to_change(update: HistoryUpdate, devices: Sequence[ChangedDevice]) -> FileChange:
    """Return the change of the file by a run that changes ``devices``."""
    rollouts = list(update.rollouts)
    if update.adds:
        rollouts[0] = _with_devices(rollouts[0], devices)
    lines = ",\n".join(json.dumps(_to_mapping(rollout)) for rollout in bounded(rollouts))
    # A rollout is a line, which a diff shows as one.
    content = '{"format": %d, "rollouts": [\n%s\n]}\n' % (FORMAT, lines)
    return FileChange(PREVIOUS, update.content, content)


def _with_devices(rollout: Rollout, devices: Sequence[ChangedDevice]) -> Rollout:
    """Return the rollout with what it changed, in this run and in those before."""
    changed = {device.device: device for device in rollout.devices}
    for device in devices:
        first = changed.get(device.device, device)
        changed[device.device] = device._replace(before=first.before)
    more = max(len(changed) - MOST_DEVICES, rollout.more_devices, 0)
    return rollout._replace(devices=list(changed.values())[:MOST_DEVICES], more_devices=more)


def from_list(applied: AppliedList) -> dict[str, Any]:
    """Return a list and its options as JSON has them."""
    devices = [to_mapping(entry) for entry in applied.entries]
    return dict(from_options(applied.options), devices=devices)


def to_list(mapping: Mapping[str, Any]) -> AppliedList:
    """Return a recorded list and its options; PolicyError if they are damaged."""
    try:
        options = dict(mapping)
        return AppliedList(parse_entries(options.pop("devices")), to_options(**options))
    except DAMAGED as error:
        raise _damaged(error) from None


def check_lists(rollouts: Sequence[Rollout]) -> None:
    """PolicyError if a recorded list is damaged."""
    for rollout in rollouts:
        for mapping in (rollout.before, rollout.after):
            if mapping is not None:
                to_list(mapping)


def parse(content: str | None) -> list[Rollout]:
    """Return the rollouts of the file, newest first; PolicyError if it cannot be read.

    The lists in them are not parsed.
    """
    if content is None:
        return []
    try:
        kept = json.loads(content)
        version = kept.get("format", 1)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError("its format is no number")
        rollouts = _READERS[version](kept) if version in _READERS else None
    except PolicyError:
        # It names the file already.
        raise
    except DAMAGED as error:
        raise _damaged(error) from None
    if rollouts is None:
        raise PolicyError(
            "%s has format %s, which a later version of this collection wrote, so the rollouts of "
            "this host are unknown. Run that version, or delete the file and apply the list that "
            "this host should have" % (PREVIOUS, str(version)[:_LONGEST_USER])
        )
    return rollouts


def _damaged(error: Exception) -> PolicyError:
    return PolicyError(
        "%s cannot be parsed (%s), so the list before the last rollout is unknown. Delete "
        "the file, which was edited, and apply the list that this host should have"
        % (PREVIOUS, _text.printable(str(error), _LONGEST_REASON)[:_LONGEST_REASON])
    )


def _parse_last(kept: Mapping[str, Any]) -> list[Rollout]:
    """Return the rollout of a file of format 1, and those of which it has only the names."""
    before, after = _mapping(kept["before"]), _mapping(kept["after"])
    applied = to_list(after)
    last = Rollout(_name(kept["rollout"]), before, after, digest(*applied))
    names = [_name(name) for name in _list(kept.get("overtaken", []), MOST_ROLLOUTS)]
    return bounded([last, *(Rollout(name, None, None) for name in dict.fromkeys(names))])


def _parse_all(kept: Mapping[str, Any]) -> list[Rollout]:
    return [_rollout(_mapping(item)) for item in _list(kept["rollouts"], MOST_ROLLOUTS)]


_READERS = {1: _parse_last, FORMAT: _parse_all}


def _rollout(item: Mapping[str, Any]) -> Rollout:
    before, after = item["before"], item["after"]
    if (before is None) is not (after is None):
        raise ValueError("a rollout has one list")
    back = item["rolled_back"]
    return Rollout(
        name=_name(item["rollout"]),
        before=before if before is None else _mapping(before),
        after=after if after is None else _mapping(after),
        digest=_match(_DIGEST, item["digest"]),
        made=_stamp(item),
        devices=[_device(_mapping(device)) for device in _list(item["devices"], MOST_DEVICES)],
        more_devices=_count(item["more_devices"]),
        rolled_back=back if back is None else _stamp(_mapping(back)),
    )


def _to_mapping(rollout: Rollout) -> dict[str, Any]:
    back = rollout.rolled_back
    return {
        "rollout": rollout.name,
        **_from_stamp(rollout.made),
        "digest": rollout.digest,
        "devices": [_from_device(device) for device in rollout.devices],
        "more_devices": rollout.more_devices,
        "rolled_back": back and _from_stamp(back),
        "before": rollout.before,
        "after": rollout.after,
    }


def _from_stamp(stamp: Stamp) -> dict[str, str | None]:
    return {"time": stamp.time, "user": stamp.user}


def _from_device(device: ChangedDevice) -> dict[str, str | None]:
    return {"device": device.device, "before": device.before, "after": device.after}


def _stamp(item: Mapping[str, Any]) -> Stamp:
    return Stamp(_match(_TIME, item["time"]), _match(_USER, item["user"]))


def _device(item: Mapping[str, Any]) -> ChangedDevice:
    device = _short(item["device"])
    if device is None:
        raise ValueError("a device has no name")
    return ChangedDevice(device, _short(item["before"]), _short(item["after"]))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not ROLLOUT_NAME.fullmatch(value):
        raise ValueError("the name of a rollout is invalid")
    return value


def _match(pattern: re.Pattern[str], value: Any) -> str | None:
    if value is not None and not pattern.fullmatch(value):
        raise ValueError("a time, a user or a digest is invalid")
    return None if value is None else str(value)


def _short(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_NAME or not value.isprintable():
        raise ValueError("the name of a device or of a driver is invalid")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_UNNAMED:
        raise ValueError("a number of devices is invalid")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("it has something else than an object")
    return value


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("it has something else than a list")
    if len(value) > most:
        raise ValueError("a list has %d items, and may have %d" % (len(value), most))
    return value
