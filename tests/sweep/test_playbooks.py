# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for fleets: waves that stop, hosts that are rolled back, drift that is reported."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODULES_LOAD,
    RULES,
)
from extensions.simulator.control import ask
from extensions.simulator.host import Plan
from tests.harness.playbook import Run, play, rows, summary
from tests.simulated.boards import flattened
from tests.simulated.eight import LIST, NAMES, SETTINGS, TREE, YAML
from tests.simulated.fleet import Fleet, fill, fleet, on_vfio, put_file_for_directory, run_on

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

VARIABLES = {
    "passthrough_initramfs": "never",
    **{f"passthrough_{name}": value for name, value in SETTINGS.items()},
}
ON_VFIO = sum(entry["policy"] == "vfio" for entry in LIST)
FIRST = LIST[:1]
GONE = {"simulated": {"gone": {"ansible_host": "/nowhere/gone"}}}


def plans(directory: Path, names: Sequence[str], *, without_vfio: str | None = None) -> list[Plan]:
    (directory / "board.dtb").write_bytes(flattened(TREE))
    (directory / "board.yml").write_text(YAML)
    (directory / "no-vfio.yml").write_text(YAML.replace("true}", "true, vfio: absent}", 1))
    return [
        Plan(
            name,
            directory / "board.dtb",
            directory / ("no-vfio.yml" if name == without_vfio else "board.yml"),
        )
        for name in names
    ]


def roll_out(fleet: Fleet, entries: Sequence[Mapping[str, Any]], **variables: Any) -> Run:
    given = {"passthrough_devices": entries, "passthrough_rollout": "test", **variables}
    return play(fleet.inventory, "armfleet.vfio.rollout", variables=given)


def test_a_rollout_stops_at_the_wave_that_fails_and_is_put_back(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "canary"]
    with fleet(tmp_path, plans(tmp_path, names, without_vfio="b"), VARIABLES) as boards:
        before = play(
            boards.inventory,
            "armfleet.vfio.apply",
            "--limit=a,d",
            variables={"passthrough_devices": FIRST},
        )
        assert before.code == 0, before.output
        retry = tmp_path / "failed"
        stopped = roll_out(
            boards,
            LIST,
            rollout_canaries=["canary"],
            rollout_waves=[2, "100%"],
            rollout_results=[str(tmp_path / "rollout.json"), str(tmp_path / "rollout.xml")],
            rollout_retry_file=str(retry),
        )
        assert stopped.code == 2
        assert boards.on_vfio() == {"canary": ON_VFIO, "a": ON_VFIO, "b": 0, "c": 0, "d": 1}
        table = rows(stopped)
        assert {name: row[:2] for name, row in table.items()} == {
            "b": ("2", "failed"),
            "canary": ("1", "changed"),
            "a": ("2", "changed"),
            "c": ("-", "not started"),
            "d": ("-", "not started"),
        }
        assert "has no vfio-platform" in table["b"].sentence
        assert "armfleet.vfio.rollback -e passthrough_rollout=test" in stopped.output
        assert f"add --limit @{retry}" in summary(stopped)[-1]
        assert retry.read_text() == "b\n"
        assert failures(tmp_path / "rollout.xml") == {"b"}
        written = json.loads((tmp_path / "rollout.json").read_text())
        assert written["totals"] == {"changed": 2, "failed": 1, "not started": 2}
        back = play(
            boards.inventory,
            "armfleet.vfio.rollback",
            variables={
                "passthrough_rollout": "test",
                "rollout_results": str(tmp_path / "back.xml"),
                "rollout_retry_file": str(retry),
            },
        )
        assert not retry.exists()
        assert failures(tmp_path / "back.xml") == set()
        assert back.code == 0, back.output
        assert boards.on_vfio() == {"canary": 0, "a": 1, "b": 0, "c": 0, "d": 1}
        assert {name for name, row in rows(back).items() if row.outcome == "changed"} == {
            "canary",
            "a",
        }


def test_a_rollout_that_nothing_stops_reaches_all_and_changes_nothing_again(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path, plans(tmp_path, ["a", "b", "c"]), VARIABLES) as boards:
        preview = play(
            boards.inventory,
            "armfleet.vfio.rollout",
            "--check",
            variables={"passthrough_devices": LIST},
        )
        assert preview.code == 0, preview.output
        assert set(boards.on_vfio().values()) == {0}
        first = roll_out(boards, LIST, rollout_waves=[1, "100%"])
        assert first.code == 0, first.output
        assert set(boards.on_vfio().values()) == {ON_VFIO}
        again = roll_out(boards, LIST, rollout_waves=[1, "100%"])
        assert again.changed == {"a": 0, "b": 0, "c": 0}


def test_each_broken_host_is_its_own_row_and_in_nobodys_way(tmp_path: Path) -> None:
    names = ["good", "full", "no-directory", "no-vfio"]
    broken = plans(tmp_path, names, without_vfio="no-vfio")
    with fleet(tmp_path, broken, VARIABLES, GONE) as boards:
        fill(boards.boards["full"], "/etc/udev/rules.d")
        put_file_for_directory(boards.boards["no-directory"], "/etc/udev/rules.d")
        run = roll_out(boards, LIST, rollout_waves=["100%"])
        assert run.code == 2
        assert "Traceback" not in run.output
        assert boards.on_vfio() == {"good": ON_VFIO, "full": 0, "no-directory": 0, "no-vfio": 0}
        table = rows(run)
        assert {name: row.outcome for name, row in table.items()} == {
            "good": "changed",
            "full": "failed",
            "no-directory": "failed",
            "no-vfio": "failed",
            "gone": "unreachable",
        }
        assert "No space left on device" in table["full"].sentence
        assert "/etc/udev/rules.d" in table["no-directory"].sentence
        assert "no vfio-platform" in table["no-vfio"].sentence
        assert "no simulated host runs in /nowhere/gone" in table["gone"].sentence


def test_drift_is_one_line_of_json_for_each_host_and_an_exit_code(tmp_path: Path) -> None:
    with fleet(tmp_path, plans(tmp_path, ["a", "b", "c"]), VARIABLES, GONE) as boards:
        retry = tmp_path / "failed"
        retry.write_text("old\n")
        asked = {
            "drift_file": str(tmp_path / "drift.jsonl"),
            "drift_results": f"{tmp_path}/drift.json,{tmp_path}/drift.xml",
            "drift_retry_file": str(retry),
            "passthrough_hosts": "a,b,c",
        }
        roll_out(boards, LIST, rollout_waves=["100%"], passthrough_hosts="a,b,c")
        clean = play(boards.inventory, "armfleet.vfio.drift", variables=asked)
        assert clean.code == 0, clean.output
        assert states(tmp_path) == {"a": "in_sync", "b": "in_sync", "c": "in_sync"}
        assert summary(clean)[-1] == "3 hosts: 3 in sync."
        assert not retry.exists()
        given = {**asked, "passthrough_devices": FIRST}
        outdated = play(boards.inventory, "armfleet.vfio.drift", variables=given)
        assert outdated.code == 0, outdated.output
        assert summary(outdated)[-1] == "3 hosts: 3 outdated."
        gated = {**given, "passthrough_hosts": "a", "drift_fail_outdated": True}
        assert play(boards.inventory, "armfleet.vfio.drift", variables=gated).code == 2
        assert states(tmp_path) == {"a": "outdated"}
        same = {**asked, "passthrough_devices": LIST}
        again = play(boards.inventory, "armfleet.vfio.drift", variables=same)
        assert summary(again)[-1] == "3 hosts: 3 in sync."
        odd = {**asked, "passthrough_devices": "{{ nowhere }}"}
        unknown = play(boards.inventory, "armfleet.vfio.drift", variables=odd)
        assert unknown.code == 0, unknown.output
        assert all("cannot be evaluated" in line["message"] for line in lines(tmp_path))
        # Unbind the device, as other tools do.
        driver = f"/sys/bus/platform/devices/{NAMES[0]}/driver"
        run_on(boards.boards["b"], "sh", "-c", f"echo {NAMES[0]} > {driver}/unbind")
        run_on(boards.boards["c"], "sh", "-c", f": > {MODULES_LOAD}; chmod 777 {RULES}")
        drifted = play(
            boards.inventory, "armfleet.vfio.drift", variables={**asked, "passthrough_hosts": "all"}
        )
        assert drifted.code == 2
        assert states(tmp_path) == {
            "a": "in_sync",
            "b": "drift",
            "c": "drift",
            "gone": "unreachable",
        }
        assert "4 hosts: 1 unreachable, 2 drift, 1 in sync." in summary(drifted)
        assert max(map(len, summary(drifted))) <= 120
        assert summary(drifted)[-1] == f"Only these hosts: add --limit @{retry}"
        assert retry.read_text().split() == ["b", "c", "gone"]
        written = json.loads((tmp_path / "drift.json").read_text())
        assert written["totals"] == {"drift": 2, "in_sync": 1, "unreachable": 1}
        assert failures(tmp_path / "drift.xml") == {"b", "c", "gone"}
        for line in lines(tmp_path):
            assert datetime.now(UTC) - datetime.fromisoformat(line["made_at"]) < timedelta(
                minutes=5
            )
        (device,) = lines(tmp_path)[1]["devices"]
        assert device["name"] == NAMES[0]
        assert lines(tmp_path)[2]["devices"] == []
        assert lines(tmp_path)[2]["boot_files"] == [
            f"{RULES} is root:root mode 0777, but must be root:root mode 0644",
            f"{MODULES_LOAD} is empty",
        ]
        assert set(drifted.changed.values()) == {0}


def test_only_what_waits_for_a_boot_is_booted_and_who_is_not_there_is_said_so(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path, plans(tmp_path, ["a"]), VARIABLES, GONE) as boards:
        asked = {"rollout_waves": ["100%"]}
        run = play(boards.inventory, "armfleet.vfio.reboot", variables=asked)
        assert run.code == 2
        assert set(run.changed.values()) == {0}
        table = rows(run)
        assert table["a"] == ("1", "unchanged", "No reboot was required.")
        assert table["gone"].outcome == "unreachable"
        assert "no simulated host runs in /nowhere/gone" in table["gone"].sentence


def test_what_driverctl_configured_is_moved_to_a_list_and_no_device_leaves_its_driver(
    tmp_path: Path,
) -> None:
    device = f"/sys/bus/platform/devices/{NAMES[0]}"
    stored = f"/etc/driverctl.d/platform-{NAMES[0]}"
    with fleet(tmp_path, plans(tmp_path, ["a"]), VARIABLES) as boards:
        board = boards.boards["a"]
        run_on(
            board,
            "sh",
            "-ec",
            f"""
            mkdir -p /etc/driverctl.d
            echo vfio-platform > {stored}
            modprobe vfio-platform reset_required=0
            echo vfio-platform > {device}/driver_override
            echo {NAMES[0]} > {device}/driver/unbind
            echo {NAMES[0]} > /sys/bus/platform/drivers_probe
            """,
        )
        assert {path.name for path in on_vfio(board)} == {NAMES[0]}
        ask(board.control, do="writes")
        run = play(boards.inventory, "armfleet.vfio.migrate_driverctl")
        assert run.code == 0, run.output
        writes = [path for path, _text, _errno in ask(board.control, do="writes")]
        assert not [path for path in writes if path.startswith("bus/")]
        assert {path.name for path in on_vfio(board)} == {NAMES[0]}
        assert run_on(board, "ls", "/etc/driverctl.d") == ""
        assert "vfio-platform" in run_on(board, "cat", RULES)


def test_putting_back_needs_the_name_of_the_rollout(tmp_path: Path) -> None:
    with fleet(tmp_path, plans(tmp_path, ["a"]), VARIABLES) as boards:
        run = play(boards.inventory, "armfleet.vfio.rollback")
        assert run.code == 2
        assert "Give its name with -e passthrough_rollout=NAME" in run.output


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "drift.jsonl").read_text().splitlines()]


def failures(path: Path) -> set[str | None]:
    """Return the test cases of a JUnit file that failed."""
    cases = ET.parse(path).iter("testcase")
    return {case.get("name") for case in cases if case.find("failure") is not None}


def states(directory: Path) -> dict[str, str]:
    return {line["host"]: line["state"] for line in lines(directory)}
