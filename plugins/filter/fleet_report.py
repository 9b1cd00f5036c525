# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: Render the states of hosts as JSON, CSV, Prometheus text and one line
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description: >-
  Renders what P(armfleet.vfio.host_states#filter) returns as texts with a common timestamp, and
  returns the data that a template for a page needs. The role P(armfleet.vfio.report#role) creates
  its files from it.
options:
  _input:
    description: Hosts, as P(armfleet.vfio.host_states#filter) returns them.
    type: list
    elements: dict
    required: true
  title:
    description: Title of the report.
    type: str
    default: Devices of the fleet
  sources:
    description: Inline style and script of a page, by names that you choose.
    type: dict
seealso:
  - plugin: armfleet.vfio.host_states
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the states of the fleet on one line
  ansible.builtin.debug:
    msg: "{{ (fleet | armfleet.vfio.fleet_report).summary }}"
  vars:
    fleet: "{{ ansible_play_hosts_all | armfleet.vfio.host_states(hostvars, 'device_info') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: Report.
  type: dict
  contains:
    summary:
      description: Number of hosts in each state, on one line.
      returned: always
      type: str
      sample: "200 hosts: 1 unreachable, 3 drift, 196 in sync"
    json:
      description: Complete report, with one host per line.
      returned: always
      type: str
    csv:
      description: One device per line; a host without devices has a line of its own.
      returned: always
      type: str
    prometheus:
      description: Gauges in Prometheus' text format.
      returned: always
      type: str
    page:
      description:
        - Data for the template of a page.
        - Texts of hosts are not escaped; the template must escape them. Only RV(_value.page.data)
          is ready for a C(script) element.
      returned: always
      type: dict
      contains:
        title:
          description: Title.
          returned: always
          type: str
          sample: Boards
        version:
          description: Version of this collection.
          returned: always
          type: str
          sample: 0.1.0
        made_at:
          description: Time of the report in ISO 8601.
          returned: always
          type: str
          sample: "2026-01-31T12:00:00+00:00"
        made_at_text:
          description: The same for readers.
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
            Columns of hosts. Each has its C(key) in RV(_value.page.hosts), its C(title), the
            C(class_name) of its cells, and C(total), the title of its number in
            RV(_value.page.totals) or null.
          returned: always
          type: list
          elements: dict
          sample: [{key: drifting, title: Drift, class_name: number, total: With drift}]
        totals:
          description: >-
            Numbers of C(devices), and of those that are C(listed), C(candidates) in no list,
            C(drifting) and C(in_use).
          returned: always
          type: dict
          sample: {devices: 796, listed: 199, candidates: 199, drifting: 3, in_use: 3}
        hosts:
          description: >-
            Hosts, the most urgent first. Each has C(host), C(state), the C(label) of the state,
            C(message), and numbers as in RV(_value.page.totals).
          returned: always
          type: list
          elements: dict
        data:
          description: Devices of these hosts in their order, as JSON for a C(script) element.
          returned: always
          type: str
        hashes:
          description: Hash of each of O(sources), in the format of a Content-Security-Policy.
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
