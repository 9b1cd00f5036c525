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
    File,
    Results,
    remove,
    write,
    write_lines,
    write_retry,
    write_texts,
)

HOSTILE = "a\0b\x1b[31m\ud800\ufffe<&\"'> é"


OPTIONS: dict[str, Any] = {
    "paths": [],
    "lines_file": None,
    "retry_file": None,
    "files": [],
    "directory": None,
    "hosts": None,
}


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
    given = {**OPTIONS, "paths": [str(tmp_path / "r.json")], **RESULTS._asdict()}
    with pytest.raises(AnsibleError, match="The results cannot be written: Is a directory"):
        write_task(given, is_check=False)
    write_task({**given, "hosts": None}, is_check=False)
    assert (tmp_path / "r.json").is_dir()


def a_text(path: Path | str, content: str = "new", mode: Any = "0640") -> dict[str, Any]:
    return {**OPTIONS, "files": [{"path": str(path), "content": content, "mode": mode}]}


def refusal(given: dict[str, Any], *, is_check: bool = False) -> str:
    with pytest.raises(AnsibleError) as raised:
        write_task(given, is_check=is_check)
    return raised.value.message


def test_a_text_has_its_content_and_mode_and_is_left_alone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    assert write_task(a_text(path), is_check=False) == [str(path)]
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = path.stat()
    assert write_task(a_text(path), is_check=False) == []
    assert path.stat() == before
    assert write_task(a_text(path, mode="0600"), is_check=False) == [str(path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert write_task(a_text(path, "other", "u+x"), is_check=False) == [str(path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan"]


def test_a_text_of_an_unusual_name_and_letters_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a \n\x1b ä"
    assert write_task(a_text(path, HOSTILE), is_check=False) == [str(path)]
    assert path.read_bytes() == HOSTILE.encode(errors="backslashreplace")


def test_check_mode_writes_no_text(tmp_path: Path) -> None:
    given = {**a_text("report.html"), "directory": str(tmp_path / "new")}
    assert write_task(given, is_check=True) == [str(tmp_path / "new/report.html")]
    (tmp_path / "kept").write_text("new")
    (tmp_path / "kept").chmod(0o640)
    assert write_task(a_text(tmp_path / "kept"), is_check=True) == []
    (tmp_path / "directory").mkdir()
    assert "Is a directory" in refusal(a_text(tmp_path / "directory"), is_check=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "kept"]


def test_a_directory_of_texts_is_made_and_one_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    given = {**a_text("report.html"), "directory": str(tmp_path / "new/below")}
    write_task(given, is_check=False)
    assert (tmp_path / "new/below/report.html").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "new/below").stat().st_mode) == 0o755
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o770)
    (tmp_path / "link").symlink_to("shared")
    write_task({**given, "directory": str(tmp_path / "link")}, is_check=False)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o770
    assert (tmp_path / "shared/report.html").exists()


def test_a_link_is_followed_only_if_the_user_names_it(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/report.html").symlink_to(tmp_path / "victim")
    (tmp_path / "plan").symlink_to("directory/plan")
    (tmp_path / "victim").write_text("old")
    given = {**a_text("report.html"), "directory": str(tmp_path / "directory")}
    assert write_task(given, is_check=False) == [str(tmp_path / "directory/report.html")]
    assert (tmp_path / "victim").read_text() == "old"
    assert not (tmp_path / "directory/report.html").is_symlink()
    write_task(a_text(tmp_path / "plan"), is_check=False)
    assert (tmp_path / "plan").is_symlink()
    assert (tmp_path / "directory/plan").read_text() == "new"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("directory", "Is a directory"),
        ("nowhere/plan", "No such file or directory"),
        ("file/plan", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 256, "File name too long"),
    ],
)
def test_a_text_that_cannot_be_written_is_one_sentence_with_its_path(
    tmp_path: Path, path: str, reason: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    sentence = refusal(a_text(tmp_path / path))
    assert sentence == (
        f"The results cannot be written: {reason} ({tmp_path / path}). Free space or correct the "
        "path, and run this again"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_place_of_the_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = refusal({**a_text("report.html"), "directory": str(tmp_path / "file")})
    assert f"File exists ({tmp_path}/file)" in sentence


@pytest.mark.parametrize("mode", [640, 0o640, "rw", None])
def test_a_mode_that_is_no_text_is_refused_before_anything_is_written(
    tmp_path: Path, mode: Any
) -> None:
    sentence = refusal(a_text(tmp_path / "plan", mode=mode))
    assert sentence.startswith(f"The mode of {tmp_path}/plan is {json.dumps(mode)}. ")
    assert "Give it as a string, such as '0644'" in sentence
    assert list(tmp_path.iterdir()) == []


def test_each_row_is_a_line_of_json(tmp_path: Path) -> None:
    write_lines(str(tmp_path / "drift.jsonl"), RESULTS.hosts)
    lines_of_file = (tmp_path / "drift.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines_of_file)) == RESULTS.hosts


def test_a_text_is_unchanged_if_it_is_a_link_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("new")
    (tmp_path / "kept").chmod(0o640)
    (tmp_path / "link").symlink_to("kept")
    assert write_texts([File(str(tmp_path / "link"), "new", "0640")]) == []


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
