# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CI systems can read the results of a playbook, whatever hosts answered."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from ansible.errors import AnsibleError

from ansible_collections.armfleet.vfio.plugins.action.write_results import write as write_task
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _interrupted_rollout
from ansible_collections.armfleet.vfio.plugins.plugin_utils._drift_result import lines
from ansible_collections.armfleet.vfio.plugins.plugin_utils._result_files import (
    Results,
    remove,
    write,
    write_retry,
)

HOSTILE = "a\0b\x1b[31m\ud800\ufffe<&\"'> é"


def row(host: str, outcome: str, message: str = "") -> dict[str, Any]:
    return {"host": host, "outcome": outcome, "message": message}


RESULTS = Results(
    "rollout",
    "outcome",
    [row("a", "failed", HOSTILE), row("b", "changed", "in sync"), row("c", "not started")],
    ["a"],
    ["c"],
)


def junit(path: Path, results: Results) -> ET.Element:
    write(str(path), results)
    suite = ET.fromstring(path.read_bytes()).find("testsuite")
    assert suite is not None
    return suite


def test_junit_has_a_test_case_for_each_host(tmp_path: Path) -> None:
    suite = junit(tmp_path / "r.xml", RESULTS)
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "rollout",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    cases = list(suite)
    assert [(case.get("name"), case.get("classname")) for case in cases] == [
        ("a", "rollout"),
        ("b", "rollout"),
        ("c", "rollout"),
    ]
    assert [[part.tag for part in case] for case in cases] == [
        ["failure"],
        ["system-out"],
        ["skipped"],
    ]


def test_junit_has_the_message_without_what_xml_cannot_hold(tmp_path: Path) -> None:
    failure = junit(tmp_path / "r.xml", RESULTS).find("testcase/failure")
    assert failure is not None
    assert failure.attrib == {"type": "failed", "message": "ab[31m<&\"'> é"}
    assert failure.text == "ab[31m<&\"'> é"


def test_junit_bounds_messages(tmp_path: Path) -> None:
    long = RESULTS._replace(hosts=[row("a", "failed", "x" * 100000)])
    failure = junit(tmp_path / "r.xml", long).find("testcase/failure")
    assert failure is not None
    assert len(failure.get("message", "")) == 2000


def test_json_has_totals_and_the_rows(tmp_path: Path) -> None:
    write(str(tmp_path / "r.json"), RESULTS)
    content = json.loads((tmp_path / "r.json").read_text())
    del content["made_at"]
    assert content == {
        "playbook": "rollout",
        "check_mode": False,
        "totals": {"changed": 1, "failed": 1, "not started": 1},
        "failed": ["a"],
        "hosts": RESULTS.hosts,
    }


@pytest.mark.parametrize("name", ["r.json", "r.xml"])
def test_a_file_is_replaced_through_a_link_and_readable_by_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o600)
    (tmp_path / name).symlink_to("kept")
    write(str(tmp_path / name), RESULTS)
    assert (tmp_path / name).is_symlink()
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o644
    assert (tmp_path / "kept").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["kept", name])


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(str(tmp_path / "r.json"), RESULTS)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_result_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    given: dict[str, Any] = {
        "paths": [str(tmp_path / "r.json")],
        "retry_file": None,
        **RESULTS._asdict(),
    }
    with pytest.raises(AnsibleError, match="The results cannot be written: Is a directory"):
        write_task(given, is_check=False)
    write_task({**given, "hosts": None}, is_check=False)
    assert (tmp_path / "r.json").is_dir()


def test_a_retry_file_is_never_empty_because_that_would_be_no_limit(tmp_path: Path) -> None:
    path = tmp_path / "failed"
    write_retry(str(path), ["a", "b"])
    assert path.read_text() == "a\nb\n"
    write_retry(str(path), [])
    assert not path.exists()
    write_retry(str(path), [])


def test_only_files_are_removed(tmp_path: Path) -> None:
    remove(str(tmp_path))
    assert tmp_path.is_dir()


def test_an_interrupted_rollout_writes_its_results(tmp_path: Path) -> None:
    texts = {
        "playbook": "rollout",
        "is_check": False,
        "results": [str(tmp_path / "r.json")],
        "retry_file": str(tmp_path / "failed"),
    }
    done = {**row("a", "changed"), "wave": 1, "rollout": "x"}
    given = {
        "a": {"rollout_texts": texts, "rollout_row": done, "rollout_wave": 1},
        "b": {"rollout_texts": texts, "rollout_wave": 2},
        "c": {"rollout_texts": texts, "rollout_wave": 0},
    }
    _interrupted_rollout.write_results(list(given), given)
    content = json.loads((tmp_path / "r.json").read_text())
    assert [host["outcome"] for host in content["hosts"]] == ["changed", "failed", "not started"]
    assert (tmp_path / "failed").read_text() == "b\n"


def state(host: str, name: str, message: str, *notes: str) -> dict[str, Any]:
    return {"host": host, "state": name, "message": message, "notes": list(notes)}


def test_drift_is_a_table_with_the_urgent_hosts_first_and_totals() -> None:
    fleet = [state(f"b-{number:02}", "in_sync", "2 devices are in sync.") for number in range(36)]
    fleet += [state("x", "drift", "It differs. " * 20, "n", "m", "o")]
    fleet += [state("y", "reboot_required", "Reboot it."), state("z", "unreachable", "No way.")]
    shown = lines(fleet, ["x", "z"], "failed")
    assert [line.split("  ")[0].strip() for line in shown if not line.startswith(" ")] == [
        "HOST",
        "z",
        "x",
        "y",
        "b-00 and 35 more",
        "",
        "39 hosts: 1 unreachable, 1 drift, 1 reboot required, 36 in sync.",
        "Hosts that failed: x, z",
        "Only these hosts: add --limit @failed",
    ]
    assert max(map(len, shown)) <= 120
    assert any("2 more notes." in line for line in shown)


def test_drift_of_one_host_that_is_in_sync_has_no_advice() -> None:
    shown = lines([state("a", "in_sync", "In sync.")], [], "failed")
    assert shown[-1] == "One host: 1 in sync."
