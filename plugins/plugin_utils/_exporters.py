# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet as texts for programs: JSON, CSV and Prometheus; and as one line for people. Pure."""

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
    AS_LISTED,
    DRIFT,
    FAILED,
    REBOOT,
    STATES,
    UNMANAGED,
    UNREACHABLE,
    Binding,
    Device,
    HostState,
)

# Of the structure of the JSON text; it grows when a field is renamed or goes.
FORMAT = 1

LABELS = {
    FAILED: "Failed",
    UNREACHABLE: "Unreachable",
    DRIFT: "Drift",
    REBOOT: "Needs a boot",
    AS_LISTED: "As listed",
    UNMANAGED: "No list",
}

COLUMNS = (
    "host",
    "state",
    "sentence",
    "device",
    "name",
    "bus",
    "driver",
    "driver_override",
    "desired_driver",
    "desired_driver_override",
    "next_boot_driver",
    "next_boot_driver_override",
    "next_boot_reason",
    "drift",
    "hazards",
)

NO_DRIVER = "(none)"
_NOT_KNOWN = "(not known without root)"
DRIVER_NOT_KNOWN = "(not known)"

# What makes a spreadsheet take a cell for a formula, with the same letters in full width, behind
# what it skips: spaces of all kinds, what is not seen, and quotes. A spreadsheet that was told of
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


class Totals(NamedTuple):
    """Numbers of devices."""

    devices: int
    listed: int
    drifting: int
    with_hazards: int


def totals(devices: Sequence[Device]) -> Totals:
    """Of one host, or of all."""
    return Totals(
        len(devices),
        sum(device["desired"] is not None for device in devices),
        sum(bool(device["drift"]) for device in devices),
        sum(bool(device["hazards"]) for device in devices),
    )


def states(hosts: Sequence[HostState]) -> dict[str, int]:
    """The number of hosts in each state, that of none as well."""
    found = Counter(host["state"] for host in hosts)
    return {state: found[state] for state in STATES}


def as_summary(report: Report) -> str:
    """How many hosts are in which state, on one line."""
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
    """One host a line, so that tools for lines can be used as well."""
    every = [device for host in report.hosts for device in host["devices"]]
    head = {
        "format": FORMAT,
        "title": report.title,
        "made_at": report.made_at.isoformat(),
        "version": report.version,
        "summary": {
            "hosts": len(report.hosts),
            "states": states(report.hosts),
            **totals(every)._asdict(),
        },
    }
    lines = ",\n".join(json.dumps(host, separators=(",", ":")) for host in report.hosts)
    return '%s, "hosts": [\n%s\n]}\n' % (json.dumps(head)[:-1], lines)


def as_csv(report: Report) -> str:
    """One device a line; a host without devices has a line of its own."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for host in report.hosts:
        for cells in _rows(host):
            writer.writerow([_cell(text) for text in cells])
    return stream.getvalue()


def _rows(host: HostState) -> Iterator[Sequence[str]]:
    first = (host["host"], host["state"], host["sentence"])
    if not host["devices"]:
        yield (*first, *[""] * (len(COLUMNS) - len(first)))
    for device in host["devices"]:
        after = device["next_boot"]
        yield (
            *first,
            device["device"],
            device["name"],
            device["bus"],
            *_binding(device),
            *(_binding(device["desired"]) if device["desired"] else ("", "")),
            *(_binding(after) if after["known"] else (DRIVER_NOT_KNOWN, "")),
            after["reason"],
            "; ".join(device["drift"]),
            _NOT_KNOWN
            if device["hazards"] is None
            else "; ".join(hazard["sentence"] for hazard in device["hazards"]),
        )


def _binding(found: Binding | Device) -> tuple[str, str]:
    return found["driver"] or NO_DRIVER, found["driver_override"] or ""


def _cell(text: str) -> str:
    return _FORMULA.sub(r"\g<before>'", text)


def as_prometheus(report: Report) -> str:
    """Gauges in Prometheus' text format, as node_exporter's textfile collector reads them."""
    read = [host for host in report.hosts if host["devices"]]
    counted = {host["host"]: totals(host["devices"]) for host in read}
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
            "Devices by the driver that they are bound to; none if they have no driver.",
            [
                ({"host": host["host"], "driver": driver}, number)
                for host in read
                for driver, number in _drivers(host).items()
            ],
        ),
        _metric(
            "listed_devices",
            "Devices that the list last applied claims.",
            [({"host": name}, numbers.listed) for name, numbers in counted.items()],
        ),
        _metric(
            "drift_devices",
            "Devices that differ from the list, or will after the next boot.",
            [({"host": name}, numbers.drifting) for name, numbers in counted.items()],
        ),
        _metric(
            "drift_boot_files",
            "Differences of boot files from what the list last applied renders.",
            [({"host": host["host"]}, len(host["boot_files"])) for host in read],
        ),
        _metric(
            "hazard_devices",
            "Devices that carry something which would be hurt if they lost their drivers.",
            [({"host": name}, numbers.with_hazards) for name, numbers in counted.items()],
        ),
    ]
    return "".join(metrics)


def _drivers(host: HostState) -> Mapping[str, int]:
    return dict(sorted(Counter(device["driver"] or "none" for device in host["devices"]).items()))


def _metric(name: str, says: str, samples: Sequence[tuple[Mapping[str, str], Any]]) -> str:
    name = "armfleet_vfio_%s" % name
    lines = ["# HELP %s %s" % (name, says), "# TYPE %s gauge" % name]
    lines += ["%s%s %s" % (name, _labels(labels), value) for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ['%s="%s"' % (name, _escaped(value)) for name, value in labels.items()]
    return "{%s}" % ",".join(pairs) if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
