# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The candidates for VFIO of hosts, from results of device_info: tables and policy lists. Pure.

Hosts with the same board share a table, in which a device is a candidate if it is one on each.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import yaml

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    failure_of,
    malformed,
    one_line,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._suggested_entries import (
    entry_of,
    is_accepted,
)

WIDTH = 120
_MOST_NAMES = 5
_LONGEST_SELECTOR = 44
_LONGEST_DRIVER = 16
_KEYS = (
    *("name", "bus", "dt_path", "compatible", "acpi_path", "acpi_hid", "pci_id"),
    *("driver", "iommu_group", "claimed_by"),
    *("candidate", "why_not", "entry", "settings", "iommu_group_devices", "reset_function"),
    "isolated_interrupts",
)
_READ = _answers.Record(
    {
        "devices": _answers.ListOf(_answers.Completed(_answers.INSPECTED_DEVICE.part(*_KEYS))),
        "policy_list": _answers.DEVICE_INFO["policy_list"],
        "board": _answers.BOARD,
        "vfio_support": _answers.DEVICE_INFO["vfio_support"],
    }
)
_UNKNOWN = "unknown: it was read without root"
_NO_IOMMU_GROUP = "no_iommu_group"
# What each setting costs, as a comment of the list, and its variable of the role.
_COSTS = {
    "reset_required": (
        "Devices without a reset function are accepted. User space gets such a device in the state "
        "in which its native driver left it."
    ),
    "unsafe_noiommu": (
        "Devices without an IOMMU are accepted. User space that has one can read and write all "
        "memory of the host."
    ),
}
# Not needed with iommufd, and of no use to devices without an IOMMU.
_INTERRUPTS = "unsafe_interrupts"
_NOT_ISOLATED = (
    "The kernel does not isolate the interrupts of some of these devices, so user space that opens "
    "them through a container gets EPERM. To accept that they can raise interrupts of other "
    "devices, remove the first character of the next line."
)
_MAYBE_NOT_ISOLATED = (
    "If user space gets EPERM from a group or device, the kernel does not isolate its interrupts. "
    "docs/user-space.md describes unsafe_interrupts, and what it costs."
)


class Row(NamedTuple):
    """A device of a board. ``reasons`` have the hosts that they are of; empty for all."""

    entry: Mapping[str, Any]
    device: Mapping[str, Any]
    reasons: Sequence[tuple[str, Sequence[str]]]
    drivers: Sequence[str]
    settings: Mapping[str, bool]
    lacks_iommu_only: bool

    @property
    def is_candidate(self) -> bool:
        return not self.reasons

    @property
    def is_claimed(self) -> bool:
        return self.device["claimed_by"] is not None

    @property
    def selector(self) -> str:
        """The value of its selector, and the _UID beside it."""
        uid = self.entry.get("acpi_uid")
        value = str(next(iter(self.entry.values())))
        return value if uid is None else "%s, acpi_uid %s" % (value, uid)

    @property
    def compatible(self) -> str | None:
        """What firmware or hardware says that it is: its first compatible, or its id."""
        compatible: Sequence[str] = self.device["compatible"]
        hid: str | None = self.device["acpi_hid"]
        return compatible[0] if compatible else hid or self.device["pci_id"]


class BoardTable(NamedTuple):
    """Hosts with the same board, and its devices: the candidates first.

    ``counts`` has for each compatible how many devices of the board list it, of all its devices.
    """

    hosts: Sequence[str]
    names: Sequence[str]
    rows: Sequence[Row]
    counts: Mapping[str, int]
    policy_list: Sequence[Mapping[str, Any]]
    supports: Mapping[str, Mapping[str, Any]]

    @property
    def without_iommu(self) -> int:
        """How many devices would be candidates if VFIO did without an IOMMU."""
        return sum(row.lacks_iommu_only for row in self.rows)


class Unread(NamedTuple):
    """A host of which nothing is known, and why."""

    host: str
    message: str


def tables(
    results: Mapping[str, Mapping[str, Any] | None],
    only: Sequence[str] = (),
    *,
    accepts_noiommu: bool = False,
) -> tuple[list[BoardTable], list[Unread]]:
    """Return the boards of these hosts, from their registered results of device_info.

    ``only`` are patterns, one of which has to be found in a name, path, compatible or driver. A
    user who ``accepts_noiommu`` takes devices that have no IOMMU as well.
    """
    boards: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    unread = []
    for host, result in results.items():
        answer = _read(result)
        if isinstance(answer, str):
            unread.append(Unread(host, answer))
            continue
        identity = (
            *map(repr, answer["board"].values()),
            *(repr(device["entry"]) for device in answer["devices"]),
            repr(answer["policy_list"]),
        )
        boards.setdefault(identity, {})[host] = answer
    return [_table(answers, only, accepts_noiommu) for answers in boards.values()], unread


def _read(result: Mapping[str, Any] | None) -> Mapping[str, Any] | str:
    """Return the answer of a host, or why there is none."""
    if not result:
        return "It was not read: the run ended before it or skipped it."
    failure = failure_of(result)
    if failure:
        return failure[1]
    try:
        answer: Mapping[str, Any] = _READ.read(result, "")
    except _answers.MalformedAnswerError as error:
        return malformed(error)
    if any(device["entry"] is None for device in answer["devices"]):
        return "Its devices were read with `candidates: false`."
    return answer


def _table(
    answers: Mapping[str, Mapping[str, Any]], only: Sequence[str], accepts_noiommu: bool
) -> BoardTable:
    first = next(iter(answers.values()))
    supports = {host: answer["vfio_support"] for host, answer in answers.items()}
    accepts_noiommu = accepts_noiommu and _may_support_noiommu(supports)
    rows = []
    for number, device in enumerate(first["devices"]):
        if not _is_meant(device, only):
            continue
        of_hosts = {host: answer["devices"][number] for host, answer in answers.items()}
        rows.append(_row(of_hosts, accepts_noiommu))
    board = first["board"]
    names = [*board["compatible"][:1], *filter(None, (board["product_name"],))]
    rows.sort(key=lambda row: (not row.is_candidate, [reason for reason, _hosts in row.reasons]))
    counts = _count_compatibles(first["devices"])
    return BoardTable(
        hosts=list(answers),
        names=names,
        rows=rows,
        counts=counts,
        policy_list=first["policy_list"],
        supports=supports,
    )


def _count_compatibles(devices: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    return Counter(compatible for device in devices for compatible in set(device["compatible"]))


def _may_support_noiommu(supports: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether the kernels of all hosts have it; where that is unknown, a run finds out."""
    return not any(support["noiommu"] is False for support in supports.values())


def _is_meant(device: Mapping[str, Any], only: Sequence[str]) -> bool:
    texts = [
        *(device["name"], device["dt_path"], device["acpi_path"], device["acpi_hid"]),
        device["pci_id"],
        *(device["driver"], *device["compatible"]),
        *(str(value) for key, value in device["entry"].items() if key != "policy"),
    ]
    return not only or any(
        fnmatchcase(text.lower(), "*%s*" % pattern.lower())
        for pattern in only
        for text in filter(None, texts)
    )


def _row(of_hosts: Mapping[str, Mapping[str, Any]], accepts_noiommu: bool) -> Row:
    device = next(iter(of_hosts.values()))
    by_reason: dict[str, list[str]] = {}
    settings = dict(device["settings"])
    kinds = {reason["kind"] for other in of_hosts.values() for reason in other["why_not"]}
    if accepts_noiommu and _NO_IOMMU_GROUP in kinds:
        settings["unsafe_noiommu"] = True
    for host, other in of_hosts.items():
        sentences = [
            reason["message"]
            for reason in other["why_not"]
            if not (accepts_noiommu and reason["kind"] == _NO_IOMMU_GROUP)
        ]
        if other["candidate"] is None:
            sentences.append(_UNKNOWN)
        for sentence in dict.fromkeys(sentences):
            by_reason.setdefault(sentence, []).append(host)
    reasons = [
        (sentence, [] if len(hosts) == len(of_hosts) else hosts)
        for sentence, hosts in by_reason.items()
    ]
    return Row(
        entry_of(device["entry"]),
        device,
        reasons,
        list(dict.fromkeys(other["driver"] or "-" for other in of_hosts.values())),
        settings,
        lacks_iommu_only=bool(reasons) and kinds == {_NO_IOMMU_GROUP},
    )


def text(boards: Iterable[BoardTable], unread: Iterable[Unread]) -> list[str]:
    """Return tables and lists as lines of up to WIDTH characters."""
    lines: list[str] = []
    for board in boards:
        policy_list = _list(board.rows, board.counts, board.policy_list)
        for part in (_heading(board), _support(board), _rows(board), _advice(board), policy_list):
            lines += [*part, ""] if part else []
    for host in unread:
        lines += textwrap.wrap("%s: %s" % (host.host, host.message), WIDTH)
    return [_answers.printable(line) for line in lines]


def _heading(board: BoardTable) -> list[str]:
    able = sum(row.is_candidate for row in board.rows)
    names = " (%s)" % ", ".join(map(one_line, board.names)) if board.names else ""
    sentence = "%s%s: %d of %d devices can be bound to VFIO" % (
        _listed(board.hosts),
        names,
        able,
        len(board.rows),
    )
    return textwrap.wrap(sentence, WIDTH)


def _support(board: BoardTable) -> list[str]:
    """Return what the hosts have of what VFIO needs, and what they lack."""
    lines = []
    for label, read in _SUPPORT.items():
        by_value: dict[str, list[str]] = {}
        for host, support in board.supports.items():
            by_value.setdefault(one_line(read(support)), []).append(host)
        value = "; ".join(
            value + (" (%s)" % _listed(hosts) if len(by_value) > 1 else "")
            for value, hosts in by_value.items()
        )
        lines += textwrap.wrap("%-16s%s" % (label, value), WIDTH, subsequent_indent=" " * 16)
    missing = [sentence for support in board.supports.values() for sentence in support["missing"]]
    for sentence in dict.fromkeys(missing):
        wrapped = textwrap.wrap(
            "%-16s%s." % ("missing", one_line(sentence)), WIDTH, subsequent_indent=" " * 16
        )
        lines += wrapped
    return lines


def _named(flags: Mapping[str, bool]) -> str:
    return ", ".join("%s %s" % (name, _YES[flag]) for name, flag in flags.items()) or "-"


_YES = {True: "yes", False: "no", None: "unknown"}
# The lines about a host.
_SUPPORT: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "kernel": lambda support: ", ".join(filter(None, (support["kernel"], support["distribution"]))),
    "VFIO drivers": lambda support: _named(support["drivers"]),
    "IOMMU": lambda support: _listed(support["iommus"]) or "none is active",
    "VFIO_NOIOMMU": lambda support: _YES[support["noiommu"]],
    "signed modules": lambda support: support["signed_modules"] or "not required",
    "at boot": lambda support: (
        "%s, %s"
        % (
            support["initramfs_tool"] or "no initramfs tool",
            "systemd" if support["systemd"] else "no systemd",
        )
    ),
}


def _advice(board: BoardTable) -> list[str]:
    number = board.without_iommu
    if not number or not _may_support_noiommu(board.supports):
        return []
    return textwrap.wrap(
        "%s only an IOMMU. To include %s, add -e candidates_unsafe_noiommu=true: user space that "
        "has such a device can read and write all memory of the host."
        % (("One device lacks", "it") if number == 1 else ("%d devices lack" % number, "them")),
        WIDTH,
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES])
    return "%s and %d more" % (shown, more) if more > 0 else shown


def _rows(board: BoardTable) -> list[str]:
    if not board.rows:
        return ["No device matches candidates_only."]
    selectors = [one_line(row.selector) for row in board.rows]
    widths = (
        4,
        min(_LONGEST_SELECTOR, max(map(len, [*selectors, "selector"]))),
        min(_LONGEST_DRIVER, max(len(_driver(row)) for row in board.rows)),
        max(5, *(len(_group(row)[0]) for row in board.rows)),
        5,
    )
    header = _line(("VFIO", "selector", "driver", "group", "reset"), widths)
    lines = [header + "compatible, or why not"]
    for row, selector in zip(board.rows, selectors):
        driver = _cut(_driver(row), widths[2])
        cells = ("yes" if row.is_candidate else "no", selector, driver, *_group(row))
        if len(selector) > widths[1]:
            lines.append("%-*s  %s" % (widths[0], cells[0], selector))
            cells = ("", "", *cells[2:])
        start = _line(cells, widths)
        notes = textwrap.wrap(_note(row, board.counts), WIDTH - len(header)) or [""]
        lines.append((start + notes[0]).rstrip())
        lines += [" " * len(header) + note for note in notes[1:]]
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join("%-*s  " % (width, cell) for cell, width in zip(cells, widths))


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _driver(row: Row) -> str:
    return "differs" if len(row.drivers) > 1 else one_line(row.drivers[0])


def _group(row: Row) -> tuple[str, str]:
    group = row.device["iommu_group"]
    reset = {True: "yes", False: "no", None: "-"}[row.device["reset_function"]]
    others = len(row.device["iommu_group_devices"])
    return ("%s+%d" % (group, others) if others else group or "-"), reset


def _note(row: Row, counts: Mapping[str, int]) -> str:
    if row.is_candidate:
        compatible = one_line(row.compatible or "")
        listed = "in the list" if row.is_claimed else ""
        number = counts.get(row.compatible or "", 1)
        kind = "%s (one of %d)" % (compatible, number) if number > 1 and compatible else compatible
        return "; ".join(filter(None, (listed, kind)))
    sentence, hosts = row.reasons[0]
    return one_line(sentence) + (" (%s)" % _listed(hosts) if hosts else "")


def first_list(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the list with the candidates of a host without one, as lines of YAML.

    ``devices`` are those of a report; the list is empty if none of them is a candidate.
    """
    rows = []
    for device in devices:
        if device["entry"]:
            whole = {**device, "dt_path": device["device"], "claimed_by": None}
            drivers = [device["driver"] or "-"]
            settings = device["settings"]
            rows.append(Row(device["entry"], whole, (), drivers, settings, lacks_iommu_only=False))
    lines = _list(rows, _count_compatibles(devices), ())
    return [_answers.printable(line) for line in lines]


def _list(
    rows: Sequence[Row], counts: Mapping[str, int], policy_list: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return a policy list with the candidates, as YAML to be pasted."""
    new = [
        row for row in rows if row.is_candidate and not row.is_claimed and is_accepted(row.entry)
    ]
    if not new:
        return []
    lines = ["# For group_vars or host_vars. Keep the entries of the devices that VFIO shall have."]
    for name, cost in _COSTS.items():
        values = {row.settings.get(name) for row in new} - {None}
        if values:
            lines += _comment(cost)
            lines += _yaml({"passthrough_" + name: values.pop()})
    lines += [*_interrupts(new), "passthrough_devices:"]
    if policy_list:
        lines += ["  # applied already", *_indented(policy_list)]
    for entry, rows_of_entry in _entries(new, counts):
        lines += ["  # " + _answers.printable(_remark(rows_of_entry)), *_indented([entry])]
    return lines


def _interrupts(new: Sequence[Row]) -> list[str]:
    """Return what to know of interrupts, as comments: the choice is the user's."""
    if any(row.settings.get(_INTERRUPTS) for row in new):
        option = _yaml({"passthrough_" + _INTERRUPTS: True})
        return [*_comment(_NOT_ISOLATED), *("#" + line for line in option)]
    is_known = all(row.device.get("isolated_interrupts") for row in new)
    return [] if is_known else _comment(_MAYBE_NOT_ISOLATED)


def _entries(
    new: Sequence[Row], counts: Mapping[str, int]
) -> Iterable[tuple[Mapping[str, Any], Sequence[Row]]]:
    """Yield entries: one for all devices that list a compatible if each of them is a candidate."""
    by_compatible: dict[str | None, list[Row]] = {}
    for row in new:
        by_compatible.setdefault(row.compatible, []).append(row)
    for compatible, rows in by_compatible.items():
        number = counts.get(compatible or "", 0)
        if len(rows) == number > 1 and is_accepted({"compatible": compatible}):
            yield {"compatible": compatible, "expect": number, "policy": "vfio"}, rows
        else:
            yield from ((row.entry, [row]) for row in rows)


def _remark(rows: Sequence[Row]) -> str:
    first = rows[0]
    drivers = sorted({_driver(row) for row in rows} - {"-"})
    groups = sorted({str(row.device["iommu_group"]) for row in rows if row.device["iommu_group"]})
    members = sorted({name for row in rows for name in row.device["iommu_group_devices"]})
    path = first.device["dt_path"]
    parts = [one_line(path)] if path and path != first.selector and len(rows) == 1 else []
    parts += [one_line(first.compatible or first.device["name"])]
    parts += ["driver %s" % ", ".join(drivers)] if drivers else ["no driver"]
    if groups:
        parts.append("IOMMU group %s" % ", ".join(groups[:_MOST_NAMES]))
    if members:
        parts.append("keep together with %s" % ", ".join(map(one_line, members[:_MOST_NAMES])))
    return textwrap.shorten("; ".join(parts), WIDTH - 4, placeholder=" …")


def _comment(sentence: str) -> list[str]:
    return ["# " + line for line in textwrap.wrap(sentence, WIDTH - 2)]


def _yaml(data: Any) -> list[str]:
    # ansible-core's marked texts are of types that yaml does not know.
    plain = json.loads(json.dumps(data))
    dumped: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=False, width=10_000)
    return dumped.splitlines()


def _indented(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["  " + line for entry in entries for line in _yaml([dict(entry)])]


def data(boards: Iterable[BoardTable], unread: Iterable[Unread]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "boards": [
            {
                "hosts": list(board.hosts),
                "board": list(board.names),
                "vfio_support": dict(board.supports),
                "devices": [
                    {
                        "entry": dict(row.entry),
                        "compatible": row.compatible,
                        "drivers": [None if name == "-" else name for name in row.drivers],
                        "iommu_group": row.device["iommu_group"],
                        "iommu_group_devices": row.device["iommu_group_devices"],
                        "reset_function": row.device["reset_function"],
                        "isolated_interrupts": row.device["isolated_interrupts"],
                        "settings": dict(row.settings),
                        "candidate": row.is_candidate,
                        "listed": row.is_claimed,
                        "why_not": [
                            {"message": sentence, "hosts": list(hosts or board.hosts)}
                            for sentence, hosts in row.reasons
                        ],
                    }
                    for row in board.rows
                ],
            }
            for board in boards
        ],
        "unread": [{"host": host.host, "message": host.message} for host in unread],
    }
