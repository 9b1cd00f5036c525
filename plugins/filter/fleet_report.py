# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: Write the states of hosts as JSON, CSV, Prometheus text and one line
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Writes what P(armfleet.vfio.host_states#filter) returns as texts, all of the same moment, and
    makes of it what a template for a page needs. The role P(armfleet.vfio.report#role) makes its
    files of it.
options:
  _input:
    description: The hosts, as P(armfleet.vfio.host_states#filter) returns them.
    type: list
    elements: dict
    required: true
  title:
    description: The title of the report.
    type: str
    default: Devices of the fleet
  sources:
    description: Texts of a page's inline style and script, by names of your own.
    type: dict
seealso:
  - plugin: armfleet.vfio.host_states
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Say in one line how the fleet is
  ansible.builtin.debug:
    msg: "{{ (fleet | armfleet.vfio.fleet_report).summary }}"
  vars:
    fleet: "{{ ansible_play_hosts_all | armfleet.vfio.host_states(hostvars, 'found') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    summary:
      description: One line for people, the number of hosts in each state.
      returned: always
      type: str
      sample: "200 hosts: 1 unreachable, 3 drift, 196 in sync"
    json:
      description: All of it, one host a line.
      returned: always
      type: str
    csv:
      description: One device a line, and a host without devices on a line of its own.
      returned: always
      type: str
    prometheus:
      description: Gauges in Prometheus' text format.
      returned: always
      type: str
    page:
      description:
        - What a template for a page needs.
        - Texts of hosts are as they were said, and the template must escape them. Only
          RV(_value.page.data) is ready for a C(script) element.
      returned: always
      type: dict
      contains:
        title:
          description: The title.
          returned: always
          type: str
          sample: Boards
        version:
          description: The version of this collection.
          returned: always
          type: str
          sample: 0.1.0
        made_at:
          description: When it was made, in ISO 8601.
          returned: always
          type: str
          sample: "2026-01-31T12:00:00+00:00"
        made_at_text:
          description: The same for people.
          returned: always
          type: str
          sample: 31 January 2026, 12:00 UTC
        states:
          description: Each state, with its C(label) and the number of C(hosts) in it.
          returned: always
          type: list
          elements: dict
          sample: [{state: drift, label: Drift, hosts: 3}]
        columns:
          description: >-
            The columns of hosts, each with its C(key) in RV(_value.page.hosts), its C(title), the
            C(class_name) of its cells, and C(total), the title of its number in
            RV(_value.page.totals), null if it has none.
          returned: always
          type: list
          elements: dict
          sample: [{key: drifting, title: Drift, class_name: number, total: With drift}]
        totals:
          description: >-
            Numbers of C(devices), of those that are C(listed), that are C(drifting), and that are
            C(in_use).
          returned: always
          type: dict
          sample: {devices: 796, listed: 199, drifting: 3, in_use: 3}
        hosts:
          description: >-
            The hosts in need of somebody first, each with C(host), C(state), its C(label),
            C(message), and numbers as in RV(_value.page.totals).
          returned: always
          type: list
          elements: dict
        data:
          description: >-
            JSON of the devices of these hosts, in their order, for a C(script) element.
          returned: always
          type: str
        hashes:
          description: The hash of each of O(sources), as a Content-Security-Policy names it.
          returned: always
          type: dict
          sample: {script: sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _exporters, _html_page
from ansible_collections.armfleet.vfio.plugins.plugin_utils._unsafe import make_unsafe
from ansible_collections.armfleet.vfio.plugins.plugin_utils._version import version


def fleet_report(
    hosts: Sequence[Any],
    title: str = "Devices of the fleet",
    sources: Mapping[str, str] | None = None,
) -> Any:
    """As documented above."""
    # Rounded, as the page shows seconds and all files are to say the same.
    now = datetime.now(timezone.utc).replace(microsecond=0)
    report = _exporters.Report(hosts, title, now, version())
    return make_unsafe(
        {
            "summary": _exporters.as_summary(report),
            "json": _exporters.as_json(report),
            "csv": _exporters.as_csv(report),
            "prometheus": _exporters.as_prometheus(report),
            "page": _html_page.page(report, sources or {}),
        }
    )


class FilterModule:
    """The filter, for ansible-core."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_report": fleet_report}
