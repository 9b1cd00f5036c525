# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the template of the HTML page is filled with. Pure.

The page has hosts as rows of a table, and the devices once as JSON in which each text, and each
device that several hosts have alike, is there once and is referred to by its number.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ansible_collections.armfleet.vfio.plugins.plugin_utils._exporters import (
    DRIVER_NOT_KNOWN,
    LABELS,
    Report,
    states,
    totals,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    STATES,
    Device,
    Hazard,
    HostState,
)

_NOT_KNOWN = [
    Hazard(kind="unknown", sentence="it was read without root, and other users' files were not")
]

_Value = TypeVar("_Value", bound=tuple[Any, ...] | str)


class _Numbered(Generic[_Value]):
    """Values in the order in which they came, each once."""

    def __init__(self) -> None:
        self._numbers: dict[_Value, int] = {}

    def number(self, value: _Value) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[_Value]:
        return list(self._numbers)


def page(report: Report, sources: Mapping[str, str]) -> dict[str, Any]:
    """Hosts in need of somebody come first; ``sources`` are texts of inline style and script."""
    made_at = report.made_at
    hosts = sorted(report.hosts, key=_place)
    every = [device for host in hosts for device in host["devices"]]
    return {
        "title": report.title,
        "version": report.version,
        "made_at": made_at.isoformat(timespec="seconds"),
        "made_at_in_words": made_at.strftime("%-d %B %Y, %H:%M %Z"),
        "states": [
            {"state": state, "label": LABELS[state], "hosts": number}
            for state, number in states(hosts).items()
        ],
        "hosts": [_row(host) for host in hosts],
        "totals": totals(every)._asdict(),
        "data": _in_script(_encoded([host["devices"] for host in hosts])),
        "hashes": {name: _source_hash(text) for name, text in sources.items()},
    }


def _source_hash(text: str) -> str:
    """The text as a Content-Security-Policy names it."""
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-%s" % base64.b64encode(digest).decode()


def _place(host: HostState) -> tuple[int, list[tuple[int, str]]]:
    """Numbers in names count as numbers: board-9 comes before board-10."""
    parts = re.findall(r"\d+|\D+", host["host"])
    return STATES.index(host["state"]), [
        (int(part), "") if part.isdecimal() else (-1, part) for part in parts
    ]


def _row(host: HostState) -> dict[str, Any]:
    return {
        "host": host["host"],
        "state": host["state"],
        "label": LABELS[host["state"]],
        "sentence": host["sentence"],
        **totals(host["devices"])._asdict(),
    }


def _encoded(fleet: Sequence[Sequence[Device]]) -> dict[str, Any]:
    texts: _Numbered[str] = _Numbered()
    devices: _Numbered[tuple[Any, ...]] = _Numbered()

    def text(value: str | None) -> int:
        return -1 if value is None else texts.number(value)

    def encoded(device: Device) -> tuple[Any, ...]:
        desired = device["desired"]
        after = device["next_boot"]
        return (
            text(device["device"]),
            text(device["name"]),
            text(device["bus"]),
            text(device["driver"]),
            text(device["driver_override"]),
            () if desired is None else (text(desired["driver"]), text(desired["driver_override"])),
            text(after["driver"] if after["known"] else DRIVER_NOT_KNOWN),
            text(after["driver_override"]),
            text(after["reason"]),
            tuple(text(sentence) for sentence in device["drift"]),
            tuple(
                (text(one["kind"]), text(one["sentence"]))
                for one in (_NOT_KNOWN if device["hazards"] is None else device["hazards"])
            ),
        )

    hosts = [[devices.number(encoded(device)) for device in host] for host in fleet]
    return {"texts": texts.values, "devices": devices.values, "hosts": hosts}


def _in_script(data: Any) -> str:
    """JSON that no parser of HTML finds an end of script or a comment in."""
    written = json.dumps(data, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
