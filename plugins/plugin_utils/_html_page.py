# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the template of the HTML page is filled with. Pure.

The page has hosts as rows of a table, and their devices as JSON. A device that several hosts have
in common is there once, and so is each value of a column.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
            {"key": column.key, **column.heading._asdict()}
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

    ``hosts`` have the numbers of their devices. ``devices`` has each column by its key: its
    distinct ``values``, and for each device the ``index`` of its value.
    """
    columns = {column.key: _Interned() for column in DEVICE_COLUMNS}
    devices = _Interned()

    def encoded(device: Mapping[str, Any]) -> dict[str, int]:
        return {
            column.key: columns[column.key].number_of(column.page_value(device[column.key]))
            for column in DEVICE_COLUMNS
        }

    return {
        "hosts": [
            {
                "host": host["host"],
                "devices": [devices.number_of(encoded(device)) for device in host["devices"]],
            }
            for host in hosts
        ],
        "devices": {
            key: {"values": column.values, "index": [device[key] for device in devices.values]}
            for key, column in columns.items()
        },
    }


def _in_script(data: Any) -> str:
    """Return JSON in which no parser of HTML finds the end of a script or a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
