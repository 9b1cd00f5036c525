# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drift of a fleet as a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import (
    DRIFT,
    STATES,
    one_line,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._inventory_list import OUTDATED
from ansible_collections.armfleet.vfio.plugins.plugin_utils._text_table import wrapped_lines

_ORDER = tuple(
    name for state in STATES for name in ((state, OUTDATED) if state == DRIFT else (state,))
)

# More hosts than these are one row if state and message are the same.
_MOST_ALIKE = 5
_MOST_NAMES = 20


def lines(
    states: Sequence[Mapping[str, Any]], failed: Sequence[str], retry_file: str | None
) -> list[str]:
    """Return the table of the hosts, the most urgent first, their totals, and those that fail."""
    ordered = sorted(states, key=lambda state: _ORDER.index(state["state"]))
    return [
        *_table(ordered),
        "",
        _totals(ordered),
        *(["Hosts that failed: %s" % _listed(failed)] if failed else []),
        *(["Only these hosts: add --limit @%s" % retry_file] if failed and retry_file else []),
    ]


def _table(states: Sequence[Mapping[str, Any]]) -> list[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for state in states:
        alike.setdefault((state["state"], _details(state)), []).append(state["host"])
    rows = [("HOST", "STATE", "DETAILS")]
    for (name, details), hosts in alike.items():
        shown = hosts
        if len(hosts) > _MOST_ALIKE:
            shown = ["%s and %d more" % (hosts[0], len(hosts) - 1)]
        rows += [(host, name, details) for host in shown]
    return wrapped_lines(rows)


def _details(state: Mapping[str, Any]) -> str:
    """Return the message, which has the first note, and how many notes it has beside it."""
    others = len(state["notes"]) - 1
    more = " One more note." if others == 1 else " %d more notes." % others
    return "%s%s" % (one_line(state["message"]), more if others > 0 else "")


def _totals(states: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(state["state"] for state in states)
    totals = ["%d %s" % (counts[name], name) for name in _ORDER if counts[name]]
    hosts = "One host" if len(states) == 1 else "%d hosts" % len(states)
    return "%s: %s." % (hosts, ", ".join(totals).replace("_", " "))


def _listed(hosts: Sequence[str]) -> str:
    more = len(hosts) - _MOST_NAMES
    return ", ".join(hosts[:_MOST_NAMES]) + (" and %d more" % more if more > 0 else "")
