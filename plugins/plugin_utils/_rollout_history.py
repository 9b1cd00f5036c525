# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last rollouts of a fleet, from what device_info returns for each host. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import ROLLOUT_NAME
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._candidates import Unread
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    failure_of,
    history_problem,
    malformed,
    one_line,
)

WIDTH = 120
_MOST_HOSTS = 5
_MOST_ROLLOUTS = 10
_DIGITS_OF_DIGEST = 12
# With seconds and a zone on the host; minutes are enough for people.
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_HEADER = ("ROLLOUT", "TIME (UTC)", "BY", "DIGEST", "HOSTS", "DEVICES")
_USER = 2
# What a rollout is on a host, by its state there.
_STATES = {
    "applied": "newest on",
    "replaced": "newest, but replaced by a run without a rollout, on",
    "overtaken": "overtaken on",
    "rolled_back": "rolled back on",
}
_READ = _answers.Record(
    {"rollouts": _answers.DEVICE_INFO["rollouts"]},
    {"rollouts_problem": _answers.DEVICE_INFO["rollouts_problem"]},
)

Record = Mapping[str, Any]


class FleetRollout(NamedTuple):
    """A rollout on the hosts of a fleet, each with its last record of this name."""

    name: str
    records: Mapping[str, Record]

    @property
    def time(self) -> str | None:
        """The median of the times of its hosts: the clocks of some may be wrong."""
        times = sorted(record["time"] for record in self.records.values() if record["time"])
        return times[(len(times) - 1) // 2] if times else None

    @property
    def devices(self) -> int:
        return sum(
            len(record["changed_devices"]) + record["more_devices"]
            for record in self.records.values()
        )

    def values(self, key: str) -> list[str]:
        """Return the different values that the records have of ``key``."""
        return sorted({record[key] for record in self.records.values() if record[key]})

    def hosts(self, state: str) -> list[str]:
        return [host for host, record in self.records.items() if record["state"] == state]


class FleetHistory(NamedTuple):
    """The rollouts of a fleet, newest first, hosts without any, and hosts that were not read."""

    rollouts: list[FleetRollout]
    without: list[str]
    unread: list[Unread]


def history(results: Mapping[str, Mapping[str, Any] | None]) -> FleetHistory:
    """Return the history of these hosts, from their registered results of device_info."""
    by_name: dict[str, dict[str, Record]] = {}
    without, unread = [], []
    for host, result in results.items():
        records = _read(result)
        if isinstance(records, str):
            unread.append(Unread(host, records))
            continue
        if not records:
            without.append(host)
        for record in records:
            by_name.setdefault(record["name"], {}).setdefault(host, record)
    rollouts = [FleetRollout(name, records) for name, records in by_name.items()]
    rollouts.sort(key=lambda rollout: rollout.time or "", reverse=True)
    return FleetHistory(rollouts, without, unread)


def _read(result: Mapping[str, Any] | None) -> Sequence[Record] | str:
    """Return the rollouts of a host, newest first, or why there are none."""
    if not result:
        return "It was not read: the run ended before it or skipped it."
    failure = failure_of(result)
    if failure:
        return failure[1]
    try:
        history = _READ.read(result, "")
        records = history["rollouts"]
        _check(records or ())
    except _answers.MalformedAnswerError as error:
        return malformed(error)
    if records is None:
        return history_problem(history.get("rollouts_problem"))
    return [_with_time(record) for record in records]


def _check(records: Sequence[Record]) -> None:
    """MalformedAnswerError if no version of device_info returns such records."""
    if len(records) > _MOST_ROLLOUTS:
        raise _answers.MalformedAnswerError("rollouts has more than %d items" % _MOST_ROLLOUTS)
    for record in records:
        if not ROLLOUT_NAME.fullmatch(record["name"]) or record["state"] not in _STATES:
            raise _answers.MalformedAnswerError("rollouts has an invalid name or state")


def _with_time(record: Record) -> Record:
    """Return the record without what is no time; times are compared with each other."""
    is_time = record["time"] and _TIME.fullmatch(record["time"])
    return {**record, "time": record["time"] if is_time else None}


def text(fleet: FleetHistory) -> list[str]:
    """Return the history as lines of up to WIDTH characters."""
    lines = _table(fleet.rollouts) if fleet.rollouts else []
    if fleet.without:
        lines += _wrapped("Without a rollout: %s" % _listed(fleet.without))
    for host in fleet.unread:
        lines += _wrapped("%s: %s" % (host.host, host.message))
    return [_answers.printable(line) for line in lines]


def _table(rollouts: Sequence[FleetRollout]) -> list[str]:
    rows = [_HEADER, *map(_cells, rollouts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[_USER] += min(0, WIDTH - sum(widths) - 2 * (len(widths) - 1))
    header, *lines = [_line(row, widths) for row in rows]
    shown = [header]
    for line, rollout in zip(lines, rollouts, strict=True):
        shown.append(line)
        for state, label in _STATES.items():
            hosts = rollout.hosts(state)
            shown += _wrapped("%s %s" % (label, _listed(hosts)), "  ") if hosts else []
    return shown


def _cells(rollout: FleetRollout) -> tuple[str, ...]:
    digests = rollout.values("digest")
    return (
        rollout.name,
        rollout.time[:16].replace("T", " ") if rollout.time else "-",
        ", ".join(map(one_line, rollout.values("user"))) or "-",
        "%d lists" % len(digests)
        if len(digests) > 1
        else "".join(digests)[:_DIGITS_OF_DIGEST] or "-",
        str(len(rollout.records)),
        str(rollout.devices),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = [
        cell if len(cell) <= width else cell[: width - 1] + "…"
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(cell.ljust(width) for cell, width in zip(cut, widths, strict=True)).rstrip()


def _wrapped(sentence: str, indent: str = "") -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _listed(hosts: Sequence[str]) -> str:
    more = len(hosts) - _MOST_HOSTS
    return ", ".join(hosts[:_MOST_HOSTS]) + (" and %d more" % more if more > 0 else "")


def data(fleet: FleetHistory) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "rollouts": [
            {
                "name": rollout.name,
                "time": rollout.time,
                "users": rollout.values("user"),
                "digests": rollout.values("digest"),
                "devices": rollout.devices,
                "hosts": [{"host": host, **record} for host, record in rollout.records.items()],
            }
            for rollout in fleet.rollouts
        ],
        "without": list(fleet.without),
        "unread": [{"host": host.host, "message": host.message} for host in fleet.unread],
    }
