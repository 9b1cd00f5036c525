# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook over simulated boards, some of which cannot be read, and its four files."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families as metrics_of

from extensions.simulator.host import Host, start
from extensions.simulator.inventory import inventory
from tests.harness.playbook import Run, play
from tests.report.fleet import large
from tests.simulated.boards import Part, alike

PLAYBOOK = "armfleet.vfio.report"
PARTS = [Part("net", False, True, False, False, None), Part("dma", False, True, False, False, None)]
DRIVERS = """
kernel: {groups_at_boot: true}
drivers:
  - {name: acme-net, compatible: ["acme,net"]}
  - {name: acme-dma, compatible: ["acme,dma"]}
"""
LIST = [{"dt_path": "/net@1000", "policy": "vfio"}]
UNBIND = "echo 1000.net >/sys/bus/platform/drivers/vfio-platform/unbind"
# A malicious value of a host, which must stay text everywhere, also in Ansible's templating.
TEMPLATE = "{{ lookup('ansible.builtin.pipe', 'touch %s') }}"

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)


class Fleet(NamedTuple):
    """An inventory, and the directory below which reports are written."""

    inventory: Path
    directory: Path


class Reported(NamedTuple):
    """A run, and the directory of its report."""

    run: Run
    directory: Path

    @property
    def json(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.directory / "report.json").read_text())
        return read

    @property
    def states(self) -> dict[str, str]:
        return {host["host"]: host["state"] for host in self.json["hosts"]}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Start four boards, one of them without Python, and add hosts that cannot be reached."""
    directory = tmp_path_factory.mktemp("report")
    names = ("listed", "drifting", "untouched", "no-python")
    hosts = start(alike(directory, names, PARTS, DRIVERS))
    try:
        group = yaml.safe_load(inventory(hosts))
        content = group["simulated"]
        content["hosts"]["no-python"]["ansible_python_interpreter"] = "/nowhere/python3"
        content["hosts"]["gone"] = {"ansible_host": str(directory / "no such directory")}
        content["hosts"]["template"] = {
            "ansible_host": str(directory / "no-such-directory"),
            # Ansible does not template it; the error message of ssh repeats it.
            "ansible_user": "root",
        }
        # The control node is no host of the fleet: variables of all hosts must not break it.
        other = {"ansible_become_user": "nobody", "ansible_become_exe": "/bin/false"}
        group["all"] = {"vars": {"ansible_become": True, **other}}
        content["vars"].update(ansible_become_user="root", ansible_become_exe="sudo")
        content["vars"]["ansible_become"] = False
        (directory / "hosts.yml").write_text(yaml.safe_dump(group))
        applied = play(
            directory / "hosts.yml",
            "armfleet.vfio.apply",
            variables={
                "passthrough_hosts": "listed,drifting",
                "passthrough_devices": LIST,
                "passthrough_initramfs": "never",
                "passthrough_reset_required": False,
                "passthrough_allow": ["consumers", "group"],
            },
        )
        assert applied.code == 0, applied.output
        (drifting,) = (host for host in hosts if host.name == "drifting")
        done = on(drifting, content["vars"]["ansible_ssh_executable"], UNBIND)
        assert done.returncode == 0, done.stderr
        yield Fleet(directory / "hosts.yml", directory)
    finally:
        for host in hosts:
            host.stop()


def on(host: Host, ssh: str, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ssh, str(host.directory), command], capture_output=True, text=True, check=False, timeout=60
    )


def report(fleet: Fleet, *arguments: str, **variables: Any) -> Reported:
    directory = fleet.directory / "out" / str(time.monotonic_ns())
    given = {f"report_{name}": value for name, value in variables.items()}
    run = play(
        fleet.inventory,
        PLAYBOOK,
        *arguments,
        variables={"report_path": str(directory), "passthrough_hosts": "simulated", **given},
    )
    return Reported(run, directory)


@pytest.fixture(scope="module")
def reported(fleet: Fleet) -> Reported:
    made = report(fleet, title="Boards & <more>")
    assert made.run.code == 0, made.run.output
    return made


def test_hosts_that_cannot_be_read_are_rows_and_in_nobodys_way(reported: Reported) -> None:
    assert reported.states == {
        "listed": "in_sync",
        "drifting": "drift",
        "untouched": "unmanaged",
        "no-python": "failed",
        "gone": "unreachable",
        "template": "unreachable",
    }
    sentences = {host["host"]: host["message"] for host in reported.json["hosts"]}
    assert "ansible_python_interpreter" in sentences["no-python"]
    assert sentences["gone"].startswith("It cannot be reached: ")
    assert sentences["drifting"].startswith(
        "/net@1000 is bound to no driver instead of vfio-platform."
    )
    assert sentences["untouched"].startswith("No list is applied to it. None of its ")
    assert "Traceback" not in reported.run.output


def test_the_run_says_how_the_hosts_are_and_where_the_files_are(reported: Reported) -> None:
    message = str(reported.run.of("ansible.builtin.debug")["msg"])
    assert message == (
        "6 hosts: 1 failed, 2 unreachable, 1 drift, 1 in sync, 1 no list. "
        f"The report is in {reported.directory}."
    )
    assert {path.name for path in reported.directory.iterdir()} == {
        "report.html",
        "report.json",
        "report.csv",
        "report.prom",
    }
    assert {path.stat().st_mode & 0o777 for path in reported.directory.iterdir()} == {0o600}


def test_all_files_say_the_same(reported: Reported, tab: Page) -> None:
    with (reported.directory / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["host"]: row["state"] for row in rows} == reported.states
    (drifting,) = (row for row in rows if row["drift"])
    (host,) = (host for host in reported.json["hosts"] if host["host"] == "drifting")
    (device,) = (device for device in host["devices"] if device["drift"])
    assert drifting["host"] == "drifting"
    assert drifting["device"] == device["device"] == "/net@1000"
    assert drifting["driver"] == "(none)"
    assert drifting["desired_driver"] == device["desired"]["driver"] == "vfio-platform"
    metrics = {
        (sample.name, sample.labels.get("host"), sample.labels.get("state")): sample.value
        for family in metrics_of((reported.directory / "report.prom").read_text())
        for sample in family.samples
    }
    assert metrics["armfleet_vfio_drift_devices", "drifting", None] == 1
    assert metrics["armfleet_vfio_host_state", "gone", "unreachable"] == 1
    assert metrics["armfleet_vfio_host_state", "gone", "failed"] == 0
    assert ("armfleet_vfio_drift_devices", "gone", None) not in metrics
    made_at = datetime.fromisoformat(reported.json["made_at"])
    assert metrics["armfleet_vfio_report_timestamp_seconds", None, None] == made_at.timestamp()
    assert made_at.tzinfo == UTC
    tab.goto((reported.directory / "report.html").as_uri())
    expect(tab.get_by_role("heading", level=1)).to_have_text("Boards & <more>")
    shown = tab.locator("#ui-table > tbody > tr")
    assert {
        row.locator("th").inner_text(): row.get_attribute("data-state") for row in shown.all()
    } == reported.states
    tab.get_by_role("button", name="drifting", exact=True).click()
    expect(tab.get_by_role("table", name="Devices of drifting")).to_contain_text(device["drift"][0])


def test_only_what_is_asked_for_is_written(fleet: Fleet) -> None:
    made = report(fleet, "--limit", "listed,gone", formats=["csv"], mode="0644")
    assert made.run.code == 0, made.run.output
    (file,) = made.directory.iterdir()
    assert file.name == "report.csv"
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_report_reads_and_writes_nothing_on_the_hosts(reported: Reported) -> None:
    changed = [task.task for task in reported.run.tasks if task.result.get("changed")]
    assert changed == []


def test_check_mode_writes_nothing(fleet: Fleet) -> None:
    made = report(fleet, "--check")
    assert made.run.code == 0, made.run.output
    assert not made.directory.exists()
    assert "Check mode: no report was written to" in made.run.output
    assert "The report is in" not in made.run.output


def test_what_a_host_says_is_no_template(tmp_path: Path) -> None:
    """Text from a host that an attacker controls is never evaluated as a template."""
    trace = tmp_path / "taken"
    encoded = base64.b64encode((TEMPLATE % trace).encode()).decode()
    (tmp_path / "hosts").write_text("localhost ansible_connection=local\n")
    run = play(
        tmp_path / "hosts",
        [
            {
                "name": "Report",
                "hosts": "localhost",
                "gather_facts": False,
                "tasks": [
                    {
                        "name": "Say it",
                        "ansible.builtin.command": {"argv": ["base64", "-d"], "stdin": encoded},
                        "register": "said",
                    },
                    {
                        "name": "Fail with it",
                        "ansible.builtin.fail": {"msg": "{{ said.stdout }}"},
                        "register": "device_info",
                        "ignore_errors": True,
                    },
                    {
                        "name": "Keep its state",
                        "ansible.builtin.set_fact": {
                            "kept": "{{ [inventory_hostname] "
                            "| armfleet.vfio.host_states(hostvars, 'device_info') }}"
                        },
                    },
                    {"name": "Show it", "ansible.builtin.debug": {"msg": "{{ kept[0].message }}"}},
                ],
            }
        ],
    )
    assert run.code == 0, run.output
    assert (TEMPLATE % trace) in str(run.of("ansible.builtin.debug")["msg"])
    assert not trace.exists()


def test_a_large_fleet_is_reported(depth: str, tmp_path: Path) -> None:
    # 500 hosts take a minute here. test_page.py opens a page of 500 hosts in any case.
    fleet = large(500 if depth == "nightly" else 30)
    read = {
        host["host"]: {
            "device_info": {
                "policy_list": [{}],
                "devices": [
                    {
                        **device,
                        "dt_path": device["device"],
                        "acpi_path": None,
                        "in_use_by": device["in_use_by"],
                    }
                    for device in host["devices"]
                ],
            }
        }
        for host in fleet
    }
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": read}}))
    run = play(
        tmp_path / "hosts.json",
        [
            {
                "name": "Report",
                "hosts": "all",
                "gather_facts": False,
                "tasks": [
                    {
                        "name": "Write the report",
                        "ansible.builtin.include_role": {"name": "armfleet.vfio.report"},
                        "vars": {
                            "report_registered": "device_info",
                            "report_path": str(tmp_path / "out"),
                        },
                        "run_once": True,
                    }
                ],
            }
        ],
    )
    assert run.code == 0, run.output[-2000:]
    print()
    for task in run.tasks:
        print(f"{task.seconds:6.1f} s  {task.task}")
    read_back = json.loads((tmp_path / "out/report.json").read_text())
    drifting = [any(device["drift"] for device in host["devices"]) for host in fleet]
    assert [host["state"] == "drift" for host in read_back["hosts"]] == drifting
    assert any(drifting)
    for file in sorted((tmp_path / "out").iterdir()):
        print(f"{file.stat().st_size / 1024:8,.0f} KiB  {file.name}")
