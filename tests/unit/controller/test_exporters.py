# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a fleet is exported as JSON, CSV, metrics and data of an HTML page."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.armfleet.vfio.plugins.filter import fleet_report as filter_of_report
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _exporters
from ansible_collections.armfleet.vfio.plugins.plugin_utils._exporters import Report
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import host_state
from ansible_collections.armfleet.vfio.plugins.plugin_utils._html_page import page
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import (
    DEVICE_COLUMNS,
    Device,
    HostState,
)
from ansible_collections.armfleet.vfio.plugins.plugin_utils._version import version
from tests.report.fleet import EDGE, result, states, unreachable

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
HOSTILE = 'a"b\\c\nd</script>'


def report(*hosts: HostState) -> Report:
    return Report(hosts, "Boards", NOON, "1.2.3")


FLEET = states(
    {
        "edge-1": result(EDGE, vfio="crypto"),
        "edge-2": result(EDGE, vfio="crypto", state="drift"),
        "edge-3": unreachable("ssh: connect to host 192.0.2.3 port 22: Connection refused"),
    }
)


def metrics(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return values by name and labels, read by Prometheus' own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def cells(value: str) -> dict[str, str]:
    """Return the CSV line of a host whose only device has this text as path and as drift."""
    rows = csv.DictReader(_exporters.as_csv(report(host_of(value))).splitlines(True))
    (row,) = rows
    return row


def host_of(value: str) -> HostState:
    """Return a host with this text as its name, and as path and drift of its only device."""
    host = host_state(value, result(EDGE))
    host["devices"] = [{**host["devices"][0], "device": value, "drift": [value]}]
    return host


def test_json_has_all_of_it_one_host_a_line() -> None:
    text = _exporters.as_json(report(*FLEET))
    read = json.loads(text)
    assert read["hosts"] == FLEET
    assert read["summary"] == {
        "hosts": 3,
        "states": {
            "failed": 0,
            "unreachable": 1,
            "drift": 1,
            "reboot_required": 0,
            "in_sync": 1,
            "unmanaged": 0,
        },
        "devices": 68,
        "listed": 4,
        "candidates": 6,
        "drifting": 1,
        "in_use": 10,
    }
    assert read["made_at"] == "2026-01-31T12:00:00+00:00"
    assert read["version"] == "1.2.3"
    lines = text.splitlines()[1:-1]
    assert [json.loads(line.rstrip(","))["host"] for line in lines] == [
        "edge-1",
        "edge-2",
        "edge-3",
    ]


def test_csv_has_one_device_a_line_and_a_line_for_a_host_without_one() -> None:
    rows = list(csv.DictReader(_exporters.as_csv(report(*FLEET)).splitlines()))
    assert [row["host"] for row in rows].count("edge-1") == 34
    assert rows[-1]["host"] == "edge-3"
    assert rows[-1]["device"] == ""
    (drifting,) = (row for row in rows if row["drift"])
    assert drifting["driver"] == "ccp-crypto"
    assert drifting["desired_driver"] == drifting["next_boot_driver"] == "vfio-platform"
    assert {row["driver"] for row in rows if row["name"].endswith(".pmu")} == {"(none)"}


@pytest.mark.parametrize(
    "start",
    [
        *("=", "+", "-", "@", "\t", "\r", "\n", "  =", "\uff1d", "\uff0b"),
        *("\u00a0=", "\u2003+", "\u200b@", "\ufeff=", '"=', "' \u00a0=", "\x1b="),
    ],
)
def test_no_cell_of_the_csv_is_a_formula_for_a_spreadsheet(start: str) -> None:
    value = start + 'cmd|"/c calc"!A1'
    row = cells(value)
    assert row["host"] == row["device"] == row["drift"] == "'" + value


@pytest.mark.parametrize("separator", [";", "\t", "|", "\n", "\r", "; ", ';"', ";\u00a0"])
def test_no_cell_is_a_formula_if_another_separator_is_taken(separator: str) -> None:
    row = cells("on eth0" + separator + "=1+1")
    assert not re.search("[;\t|\r\n][^';\t|\r\n=]*=", row["drift"])
    assert row["drift"].replace("'", "") == ("on eth0" + separator + "=1+1")


def test_hazards_that_are_not_known_are_told_and_counted_as_none() -> None:
    returned = result(EDGE)
    returned["devices"] = [{**returned["devices"][0], "in_use_by": None}]
    host = host_state("edge-1", returned)
    (row,) = csv.DictReader(_exporters.as_csv(report(host)).splitlines())
    assert row["in_use_by"] == "(unknown without root)"
    assert _exporters.totals([host])["in_use"] == 0
    assert json.loads(page(report(host), {})["data"])["devices"]["in_use_by"]["values"] == [None]


def test_differences_of_boot_files_are_counted() -> None:
    files = [{"path": "/etc/x", "state": "present", "drift": ["a", "b"]}]
    host = host_state("edge-1", {**result(EDGE), "boot_files": files})
    read = metrics(_exporters.as_prometheus(report(host, FLEET[1])))
    counts = [
        read["armfleet_vfio_drift_boot_files", (("host", name),)] for name in ("edge-1", "edge-2")
    ]
    assert counts == [2, 0]


@pytest.mark.parametrize(
    "value", ["/soc/a@1", "a,b", 'say "x"', "two\nlines", "5 - 3", "a; b", "a|b", "x;y=1"]
)
def test_other_cells_of_the_csv_come_back_as_they_were(value: str) -> None:
    row = cells(value)
    assert row["host"] == row["device"] == row["drift"] == value


def test_prometheus_reads_the_gauges() -> None:
    read = metrics(_exporters.as_prometheus(report(*FLEET)))
    on_edge = (("host", "edge-2"),)
    assert read["armfleet_vfio_report_timestamp_seconds", ()] == NOON.timestamp()
    assert read["armfleet_vfio_report_info", (("version", "1.2.3"),)] == 1
    assert read["armfleet_vfio_drift_devices", on_edge] == 1
    assert read["armfleet_vfio_listed_devices", on_edge] == 2
    assert read["armfleet_vfio_in_use_devices", on_edge] == 5
    assert read["armfleet_vfio_devices", (("driver", "none"), *on_edge)] == 7
    assert read["armfleet_vfio_devices", (("driver", "vfio-platform"), *on_edge)] == 1
    for host in FLEET:
        held = {
            state: read["armfleet_vfio_host_state", (("host", host["host"]), ("state", state))]
            for state in _exporters.LABELS
        }
        assert [state for state, value in held.items() if value] == [host["state"]]
    assert ("armfleet_vfio_drift_devices", (("host", "edge-3"),)) not in read


def test_labels_come_back_as_they_were() -> None:
    host = host_state(HOSTILE, result(EDGE))
    host["devices"][0]["driver"] = HOSTILE
    text = _exporters.as_prometheus(report(host))
    read = metrics(text)
    assert read["armfleet_vfio_devices", (("driver", HOSTILE), ("host", HOSTILE))] == 1
    assert text.endswith("\n")
    assert all(line.startswith(("# ", "armfleet_vfio_")) for line in text.splitlines())


@pytest.mark.parametrize(
    ("hosts", "summary"),
    [
        ([], "0 hosts: nothing to report"),
        (FLEET[:1], "1 host: 1 in sync"),
        (FLEET, "3 hosts: 1 unreachable, 1 drift, 1 in sync"),
    ],
)
def test_the_summary_is_one_line(hosts: list[HostState], summary: str) -> None:
    assert _exporters.as_summary(report(*hosts)) == summary


def test_what_the_page_has_for_scripts_is_json_and_ends_no_script() -> None:
    host = host_state("edge-1", result(EDGE))
    host["devices"][0]["device"] = HOSTILE + "<!--"
    data = page(report(host), {})["data"]
    assert not {"<", ">", "&"} & set(data)
    assert json.loads(data)["devices"]["device"]["values"][0] == HOSTILE + "<!--"


def test_a_device_that_many_hosts_have_is_in_the_page_once() -> None:
    single, many = (
        page(report(*states({str(host): result(EDGE) for host in range(number)})), {})
        for number in (1, 100)
    )
    assert json.loads(single["data"])["devices"] == json.loads(many["data"])["devices"]


def test_the_template_gets_a_column_by_these_keys() -> None:
    columns = page(report(*FLEET), {})["columns"]
    assert {tuple(column) for column in columns} == {("key", "title", "class_name", "total")}


def test_the_page_has_the_devices_of_each_host_by_the_keys_of_json() -> None:
    data = json.loads(page(report(*FLEET), {})["data"])
    columns = data["devices"].items()
    decoded = {
        host["host"]: [
            {
                key: column["values"][column["index"][number] if column["index"] else 0]
                for key, column in columns
            }
            for number in host["devices"]
        ]
        for host in data["hosts"]
    }
    assert decoded == {
        host["host"]: [
            {
                column.key: column.page_value(device[column.key])
                for column in DEVICE_COLUMNS
                if column.page_value
            }
            for device in host["devices"]
        ]
        for host in FLEET
    }


def test_hosts_with_the_same_board_have_one_list_to_begin_with() -> None:
    boards = {f"edge-{number}": result(EDGE) for number in range(3)}
    data = json.loads(page(report(*states(boards), *FLEET), {})["data"])
    assert [host.get("list") for host in data["hosts"]] == [None] * 3 + [0] * 3
    assert yaml.safe_load(data["lists"][0]) == {
        "passthrough_reset_required": False,
        "passthrough_devices": [
            {"dt_path": "/soc/ethernet@e0020000", "policy": "vfio"},
            {"compatible": "acme,crypto", "expect": 2, "policy": "vfio"},
            {"compatible": "acme,dma", "expect": 2, "policy": "vfio"},
        ],
    }


def test_a_use_is_told_once() -> None:
    eth = states({"edge-1": result(EDGE)})[0]["devices"][0]
    assert eth["why_not"] == [{"kind": "in_use", "message": "in use"}]
    assert eth["in_use_by"] == [{"kind": "network", "message": "network interface eth0 is up"}]


@pytest.mark.parametrize("value", ["{{ 7 * 7 }}", "/soc/x y", HOSTILE, 5, ["/soc"]])
def test_a_host_suggests_no_entry_that_is_a_template(value: object) -> None:
    returned = result(EDGE)
    for device in returned["devices"]:
        device["entry"] = {"dt_path": value, "policy": "driver", "driver": "acme"}
        device["compatible"] = [str(value)]
    host = host_state("edge-1", returned)
    assert {json.dumps(device["entry"]) for device in host["devices"]} == {"null"}
    assert json.loads(page(report(host), {})["data"])["lists"] == []


def test_a_host_suggests_entries_with_a_selector_alone() -> None:
    returned = result(EDGE)
    for device in returned["devices"]:
        device["entry"] = {"dt_path": "/soc/x", "policy": "driver", "driver": "acme", "tag": "x"}
    entries = [device["entry"] for device in host_state("edge-1", returned)["devices"]]
    assert [entry for entry in entries if entry] == [{"dt_path": "/soc/x", "policy": "vfio"}] * 5


def test_each_column_of_csv_is_documented_in_its_order() -> None:
    header = _exporters.as_csv(report()).rstrip().split(",")
    section = (ROOT / "docs/report.md").read_text().partition("## CSV")[2].partition("\n\n")[2]
    assert re.findall(r"`(\w+)`", section.partition("\n\n")[0]) == header


def test_a_device_has_a_value_for_each_column() -> None:
    assert list(get_type_hints(Device)) == [column.key for column in DEVICE_COLUMNS]


def test_the_filter_returns_what_its_documentation_says() -> None:
    described = yaml.safe_load(filter_of_report.RETURN)["_value"]["contains"]
    made = filter_of_report.fleet_report(FLEET, sources={"style": ""})
    assert set(described) == set(made)
    assert set(described["page"]["contains"]) == set(made["page"])
    assert set(described["page"]["contains"]["totals"]["sample"]) == set(made["page"]["totals"])
    assert made["page"]["hashes"] == {
        "style": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    }


def test_the_version_is_that_of_the_checkout_or_of_what_was_installed(tmp_path: Path) -> None:
    assert version() == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "9.8.7"}}')
    assert version(tmp_path) == "9.8.7"
