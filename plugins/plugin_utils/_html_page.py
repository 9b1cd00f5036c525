# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the template of the HTML page is filled with. Pure.

The page has hosts as rows of a table, and their devices as JSON. A device that several hosts have
in common is there once, and so is each value of a column, and the list that such hosts can begin
with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils._candidates import first_list
from ansible_collections.armfleet.vfio.plugins.plugin_utils._exporters import (
    LABELS,
    Report,
    states,
    totals,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import STATES
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import (
    DEVICE_COLUMNS,
    HOST_COLUMNS,
    HostState,
)


class _Interned:
    """Distinct values in the order in which they came."""

    def __init__(self) -> None:
        self._numbers: dict[str | bytes, int] = {}
        self.values: list[Any] = []

    def number_of(self, value: Any) -> int:
        key = value if isinstance(value, str) else json.dumps(value).encode()
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]


def page(report: Report, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template needs.

    The most urgent hosts come first. ``sources`` are the texts of the inline style and script.
    """
    made_at = report.made_at
    hosts = sorted(report.hosts, key=_urgency)
    return {
        "title": report.title,
        "version": report.version,
        "made_at": made_at.isoformat(timespec="seconds"),
        "made_at_text": made_at.strftime("%-d %B %Y, %H:%M %Z"),
        "states": [
            {"state": state, "label": LABELS[state], "hosts": number}
            for state, number in states(hosts).items()
        ],
        "columns": [
            {
                "key": column.key,
                "title": column.heading.title,
                "class_name": column.heading.class_name,
                "total": column.heading.total,
            }
            for column in HOST_COLUMNS
            if column.heading
        ],
        "hosts": [_row(host) for host in hosts],
        "totals": totals(hosts),
        "data": _in_script(_encoded(hosts)),
        "hashes": {name: _source_hash(text) for name, text in sources.items()},
    }


def _source_hash(text: str) -> str:
    """Return the hash of a text as a Content-Security-Policy names it."""
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-%s" % base64.b64encode(digest).decode()


def _urgency(host: HostState) -> tuple[int, list[tuple[int, str]]]:
    """Numbers in names count as numbers: board-9 comes before board-10."""
    parts = re.findall(r"\d+|\D+", host["host"])
    return STATES.index(host["state"]), [
        (int(part), "") if part.isdecimal() else (-1, part) for part in parts
    ]


def _row(host: HostState) -> dict[str, Any]:
    values = {column.key: column.value(host) for column in HOST_COLUMNS if column.heading}
    return {**values, "label": LABELS[host["state"]]}


def _encoded(hosts: Sequence[HostState]) -> dict[str, Any]:
    """Return the devices of hosts as report.js decodes them.

    ``hosts`` have the numbers of their devices, and that of their list in ``lists`` if they have
    none and could have one. ``devices`` has each column by its key: its distinct ``values``, and
    for each device the ``index`` of its value, if there is more than one.
    """
    shown = [(column.key, column.page_value) for column in DEVICE_COLUMNS if column.page_value]
    columns = {key: _Interned() for key, _page_value in shown}
    devices = _Interned()
    lists = _Interned()
    lists_of_boards: dict[tuple[int, ...], str] = {}

    def encoded(device: Mapping[str, Any]) -> dict[str, int]:
        return {key: columns[key].number_of(page_value(device[key])) for key, page_value in shown}

    def encoded_host(host: HostState) -> dict[str, Any]:
        numbers = [devices.number_of(encoded(device)) for device in host["devices"]]
        row = {"host": host["host"], "devices": numbers}
        if any(device["desired"] for device in host["devices"]):
            return row
        board = tuple(numbers)
        if board not in lists_of_boards:
            lists_of_boards[board] = "\n".join(first_list(host["devices"]))
        policy_list = lists_of_boards[board]
        return {**row, "list": lists.number_of(policy_list)} if policy_list else row

    encoded_hosts = [encoded_host(host) for host in hosts]
    return {
        "hosts": encoded_hosts,
        "lists": lists.values,
        "devices": {
            key: {
                "values": column.values,
                "index": [device[key] for device in devices.values] if column.values[1:] else [],
            }
            for key, column in columns.items()
        },
    }


def _in_script(data: Any) -> str:
    """Return JSON in which no parser of HTML finds the end of a script or a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
