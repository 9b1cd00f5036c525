# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders the page from the role's template, without a run of Ansible."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from ansible_collections.armfleet.vfio.plugins.plugin_utils._exporters import Report
from ansible_collections.armfleet.vfio.plugins.plugin_utils._html_page import page
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import HostState
from ansible_collections.armfleet.vfio.plugins.plugin_utils._version import version

ROLE = Path(__file__).parents[2] / "roles/report"
TITLE = "Devices of the fleet"
MADE_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def write(hosts: Sequence[HostState], file: Path, title: str = TITLE) -> Path:
    """Write the page of a report; test_playbook.py shows that a run of Ansible writes the same."""
    style, script = (
        (ROLE / "files" / name).read_text().rstrip() for name in ("report.css", "report.js")
    )
    filled = page(Report(hosts, title, MADE_AT, version()), {"style": style, "script": script})
    # Ansible renders templates with these settings.
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((ROLE / "templates/report.html.j2").read_text())
    file.write_text(
        template.render(report_made={"page": filled}, report_style=style, report_script=script)
    )
    return file
