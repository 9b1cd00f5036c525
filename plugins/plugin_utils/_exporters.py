# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as JSON, CSV, Prometheus text and a summary of one line. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    DRIFT,
    FAILED,
    IN_SYNC,
    REBOOT_REQUIRED,
    STATES,
    UNMANAGED,
    UNREACHABLE,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import (
    DEVICE_COLUMNS,
    HOST_COLUMNS,
    HostState,
)

# The version of the JSON text's structure; it grows when a field is renamed or removed.
FORMAT = 1

LABELS = {
    FAILED: "Failed",
    UNREACHABLE: "Unreachable",
    DRIFT: "Drift",
    REBOOT_REQUIRED: "Reboot required",
    IN_SYNC: "In sync",
    UNMANAGED: "No list",
}

# What makes a spreadsheet take a cell for a formula, with the same letters in full width, behind
# what it skips: spaces of all kinds, invisible characters, and quotes. A spreadsheet that is set to
# another separator than the comma begins a cell behind it.
_FORMULA = re.compile(
    r"(?P<before>^|[;\t|\r\n])(?=[\t\r\n]|[\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f"
    r"\ufeff\"']*[=+\-@\uff1d\uff0b\uff0d\uff20])"
)


class Report(NamedTuple):
    """A fleet at a moment."""

    hosts: Sequence[HostState]
    title: str
    made_at: datetime
    version: str


def totals(hosts: Sequence[HostState]) -> dict[str, int]:
    """Return the sums over all hosts that reports show, by the keys of their columns."""
    return {
        column.key: sum(map(column.value, hosts))
        for column in HOST_COLUMNS
        if column.heading and column.heading.total
    }


def states(hosts: Sequence[HostState]) -> dict[str, int]:
    """Return the number of hosts in each state, including states without hosts."""
    hosts_by_state = Counter(host["state"] for host in hosts)
    return {state: hosts_by_state[state] for state in STATES}


def as_summary(report: Report) -> str:
    """Return the number of hosts in each state, on one line."""
    counted = [
        "%d %s" % (number, LABELS[state].lower())
        for state, number in states(report.hosts).items()
        if number
    ]
    number = len(report.hosts)
    return "%s: %s" % (
        "1 host" if number == 1 else "%d hosts" % number,
        ", ".join(counted) or "nothing to report",
    )


def as_json(report: Report) -> str:
    """Return JSON with one host per line, for tools that read lines."""
    head = {
        "format": FORMAT,
        "title": report.title,
        "made_at": report.made_at.isoformat(),
        "version": report.version,
        "summary": {
            "hosts": len(report.hosts),
            "states": states(report.hosts),
            **totals(report.hosts),
        },
    }
    lines = ",\n".join(json.dumps(host, separators=(",", ":")) for host in report.hosts)
    return '%s, "hosts": [\n%s\n]}\n' % (json.dumps(head)[:-1], lines)


_HOST_CELLS = [column for column in HOST_COLUMNS if column.is_in_csv]
_DEVICE_CELLS = [name for column in DEVICE_COLUMNS for name in column.cells]


def as_csv(report: Report) -> str:
    """Return CSV with one device per line; a host without devices has a line of its own."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow([*(column.key for column in _HOST_CELLS), *_DEVICE_CELLS])
    for host in report.hosts:
        for cells in _rows(host):
            writer.writerow([_cell(text) for text in cells])
    return stream.getvalue()


def _rows(host: HostState) -> Iterator[Sequence[str]]:
    host_cells = [column.value(host) for column in _HOST_CELLS]
    if not host["devices"]:
        yield [*host_cells, *[""] * len(_DEVICE_CELLS)]
    for device in host["devices"]:
        yield [*host_cells, *_device_cells(device)]


def _device_cells(device: Mapping[str, Any]) -> Iterator[str]:
    for column in DEVICE_COLUMNS:
        for text_of in column.cells.values():
            yield text_of(device[column.key])


def _cell(text: str) -> str:
    return _FORMULA.sub(r"\g<before>'", text)


def as_prometheus(report: Report) -> str:
    """Return gauges in Prometheus' text format, for node_exporter's textfile collector."""
    read = [host for host in report.hosts if host["devices"]]
    metrics = [
        _metric(
            "report_timestamp_seconds",
            "When the report was made, in seconds since 1970.",
            [({}, report.made_at.timestamp())],
        ),
        _metric(
            "report_info",
            "The version of armfleet.vfio that made the report.",
            [({"version": report.version}, 1)],
        ),
        _metric(
            "host_state",
            "1 for the state that the host is in, 0 for the others.",
            [
                ({"host": host["host"], "state": state}, int(host["state"] == state))
                for host in report.hosts
                for state in STATES
            ],
        ),
        _metric(
            "devices",
            "Devices by the driver that they are bound to; none without a driver.",
            [
                ({"host": host["host"], "driver": driver}, number)
                for host in read
                for driver, number in _drivers(host).items()
            ],
        ),
        *(
            _metric(
                column.metric.name,
                column.metric.explanation,
                [({"host": host["host"]}, column.value(host)) for host in read],
            )
            for column in HOST_COLUMNS
            if column.metric
        ),
    ]
    return "".join(metrics)


def _drivers(host: HostState) -> Mapping[str, int]:
    return dict(sorted(Counter(device["driver"] or "none" for device in host["devices"]).items()))


def _metric(name: str, explanation: str, samples: Sequence[tuple[Mapping[str, str], Any]]) -> str:
    name = "armfleet_vfio_%s" % name
    lines = ["# HELP %s %s" % (name, explanation), "# TYPE %s gauge" % name]
    lines += ["%s%s %s" % (name, _labels(labels), value) for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ['%s="%s"' % (name, _escaped(value)) for name, value in labels.items()]
    return "{%s}" % ",".join(pairs) if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
