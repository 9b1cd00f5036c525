# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of a fleet is short enough to be read, and its file is used as it was written or not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.filter.fleet_plan import fleet_plan
from ansible_collections.armfleet.vfio.plugins.filter.saved_plan import saved_plan
from ansible_collections.armfleet.vfio.plugins.plugin_utils import (
    _fleet_plan,
    _rollout_result,
)

ROOT = Path(__file__).parents[3]
LIST = "a" * 32
DIGEST = ".".join([LIST, *["b" * 32] * 3])
RULES = "/etc/udev/rules.d/70-armfleet-vfio.rules"


def binding(driver: str | None, override: str | None = None) -> dict[str, Any]:
    return {"driver": driver, "driver_override": override}


def device(path: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    unset = ("acpi_path", "acpi_hid", "acpi_uid", "pci_id", "iommu_group")
    return {
        "name": "b.dev",
        "bus": "platform",
        "dt_path": path,
        "compatible": [],
        **dict.fromkeys(unset),
        **after,
        "vfio_nodes": [],
        "links": [],
        "before": before,
        "after": after,
        "changed": True,
        "steps": ["a step"],
    }


TO_VFIO = (binding("acme-crypto"), binding("vfio-platform", "vfio-platform"))
DEVICES = [
    device("/soc/crypto@b000000", *TO_VFIO),
    device("/soc/crypto@b001000", *TO_VFIO),
    device("/soc/dma@b002000", *reversed(TO_VFIO)),
]


def answer(**values: Any) -> dict[str, Any]:
    return {
        "changed": True,
        "devices": DEVICES,
        "skipped_entries": [],
        "interrupted": [],
        "host_steps": ["load module vfio-platform with reset_required=N"],
        "diff": [
            {"before": "", "after": "x\n", "before_header": "devices", "after_header": "devices"},
            {"before": "", "after": "rule\n", "before_header": RULES, "after_header": RULES},
        ],
        "kept_settings": [],
        "boot_files": [{"path": RULES, "changed": True, "state": "present"}],
        "initramfs_tool": None,
        "initramfs_command": None,
        "reboot_required": False,
        "not_checked": [],
        "kernel_command_line": [],
        "policy_digest": LIST * 2,
        "plan_digest": DIGEST,
        "rollout": None,
        "rolled_back": [],
        "inspection": None,
        **values,
    }


UNCHANGED = answer(
    changed=False, devices=[], host_steps=[], diff=[], boot_files=[], plan_digest=LIST
)


def of(results: dict[str, Any], **options: Any) -> Any:
    hostvars = {host: {"passthrough_applied": result} for host, result in results.items()}
    return fleet_plan(list(results), hostvars, **options)


def test_like_hosts_are_one_paragraph() -> None:
    made = of({f"board-{number}": answer() for number in range(1, 49)})
    names = "board-1, board-2, board-3, board-4, board-5 and 43 more"
    assert made["lines"] == [
        f"48 hosts: 2 devices to vfio-platform, 1 released: {names}",
        "  /soc/crypto@b000000: acme-crypto -> vfio-platform",
        "  /soc/crypto@b001000: acme-crypto -> vfio-platform",
        "  /soc/dma@b002000: vfio-platform -> acme-crypto",
        "  load module vfio-platform with reset_required=N",
        f"  boot files: write {RULES}",
        "",
        "Plan: 48 hosts to change. Nothing was changed.",
    ]
    assert made["failed"] == []


def test_the_guide_shows_what_the_playbook_prints() -> None:
    refused = {"failed": True, "msg": "/soc/sata@e0300000 is in use: disk on sda"}
    results = {**{f"board-{number}": answer() for number in range(1, 49)}, "board-49": refused}
    assert "\n".join(of(results)["lines"]) + "\n```" in (ROOT / "docs/fleet.md").read_text()


def test_each_outcome_is_counted_and_has_its_reason() -> None:
    failure = {"failed": True, "msg": "/soc/x is in use: disk on sda\nanother"}
    gone = {"unreachable": True, "msg": "Connection refused"}
    results = {"a": UNCHANGED, "b": failure, "c": failure, "d": gone, "e": {}, "f": answer()}
    made = of(results)
    text = "\n".join(made["lines"])
    assert made["lines"][-1] == (
        "Plan: 1 host to change, 1 unchanged, 3 refused, 1 unreachable. Nothing was changed."
    )
    assert "2 hosts refused: b, c\n  /soc/x is in use: disk on sda. (and 1 more)" in text
    assert "1 host unreachable: d\n  It cannot be reached: Connection refused." in text
    assert "1 host refused: e\n  The run ended on this host without a result." in text
    assert "1 host unchanged: a" in text
    assert made["failed"] == ["b", "c", "d", "e"]


def test_boot_files_are_shown_if_asked_for() -> None:
    shown = of({"a": answer()}, boot_files=True)["lines"]
    assert "  +rule" in shown
    assert "  +x" not in shown
    other = answer(
        diff=[{"before": "", "after": "2\n", "before_header": RULES, "after_header": RULES}]
    )
    assert len([line for line in of({"a": answer(), "b": other})["lines"] if "host" in line]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan_digest": None},
        {"plan_digest": "nonsense"},
        {"devices": "nonsense"},
        {"devices": [{}]},
        {"boot_files": None},
        {"interrupted": ["An earlier run"]},
    ],
)
def test_a_host_that_answers_nonsense_or_was_interrupted_has_no_plan(wrong: Any) -> None:
    made = of({"bad": answer(**wrong), "good": answer()})
    assert made["failed"] == ["bad"]
    assert made["lines"][-1].startswith("Plan: 1 host to change, 1 refused.")


def test_no_answer_reaches_the_terminal_as_a_control_character() -> None:
    lie = "\x1b[2J\u202e" + "x" * 9000 + "\n"
    hostile = answer(
        devices=[device(lie, binding(lie), binding(lie, lie))],
        host_steps=[lie],
        boot_files=[{"path": lie, "changed": True, "state": lie}],
        diff=[{"before": "", "after": lie, "before_header": RULES, "after_header": RULES}],
    )
    results = {"a": hostile, "b": {"failed": True, "msg": lie}, "c\x1b": answer()}
    for options in ({}, {"boot_files": True}):
        for line in of(results, **options)["lines"]:
            assert line.isprintable()
            assert len(line) <= 120


def written(directory: Path, **options: Any) -> Path:
    file = directory / "plan.json"
    results = {"a": answer(), "b": UNCHANGED, "c": {"failed": True, "msg": "no"}}
    file.write_text(of(results, made_at="2026-01-01", **options)["content"])
    return file


def test_a_plan_file_has_the_digest_of_each_host_with_a_plan(tmp_path: Path) -> None:
    read = saved_plan(str(written(tmp_path, rollout="crypto-v3")), ["a", "b", "c"])
    assert read["problems"] == []
    assert read["plans"] == {"a": DIGEST, "b": LIST}
    assert read["rollout"] == "crypto-v3"
    assert read["made_at"] == "2026-01-01"


def problem(file: Path, hosts: list[str]) -> str:
    read = saved_plan(str(file), hosts)
    (sentence,) = read["problems"]
    assert read["plans"] == {}
    assert sentence.startswith("`passthrough_plan`: ")
    assert sentence.endswith(" Make a new plan with armfleet.vfio.plan.")
    return str(sentence)


def test_a_plan_of_another_fleet_is_refused(tmp_path: Path) -> None:
    assert "has a plan for none of these hosts" in problem(written(tmp_path), ["c", "x"])


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("format", 2, "has another format than this version of the collection"),
        ("format", None, "has another format"),
        ("kind", "drift", "is no plan"),
        ("checksum", "0", "was edited or is damaged. Make a new plan"),
        ("hosts", {}, "was edited or is damaged"),
        ("rollout", "another", "was edited or is damaged"),
        ("made_at", "2027", "was edited or is damaged"),
    ],
)
def test_an_edited_plan_is_refused(tmp_path: Path, key: str, value: Any, sentence: str) -> None:
    file = written(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert sentence in problem(file, ["a"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200000, b"null", b'"x"'])
def test_what_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    assert "is no plan of armfleet.vfio.plan" in problem(file, ["a"])
    file.write_bytes(written(tmp_path).read_bytes()[:-40])
    assert "is no plan" in problem(file, ["a"])


def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in problem(tmp_path / "gone", ["a"])
    assert "cannot be read" in problem(tmp_path, ["a"])
    os.mkfifo(tmp_path / "fifo")
    assert "is no file" in problem(tmp_path / "fifo", ["a"])


@pytest.mark.parametrize(
    "hosts",
    [[], {"a": 1}, {"a": {"outcome": "to change"}}, {"a": {"outcome": "to change", "plan": "x"}}],
)
def test_a_plan_with_a_right_checksum_may_still_be_damaged(tmp_path: Path, hosts: Any) -> None:
    assert "is damaged" in problem(forged(tmp_path, hosts=hosts), ["a"])


def forged(directory: Path, **values: Any) -> Path:
    """Write a plan as somebody does who can compute its checksum."""
    hosts = {"a": {"outcome": "to change", "plan": DIGEST}}
    content = {"hosts": hosts, "rollout": None, "made_at": None, **values}
    file = directory / "plan.json"
    kept = {"kind": "armfleet.vfio.plan", "format": 1, "checksum": _fleet_plan._checksum(content)}
    file.write_text(json.dumps({**kept, **content}))
    return file


@pytest.mark.parametrize(
    "rollout",
    [
        "",
        " ",
        "a b",
        "-e",
        "../x",
        "x" * 65,
        "x\n",
        "x\x1b[2J",
        "\u202e",
        "{{ lookup('pipe', 'id') }}",
        "'; id",
        5,
        True,
        ["x"],
        {"x": 1},
    ],
)
def test_the_name_in_a_plan_is_one_that_a_rollout_may_have(tmp_path: Path, rollout: Any) -> None:
    assert "is damaged" in problem(forged(tmp_path, rollout=rollout), ["a"])
    assert saved_plan(str(forged(tmp_path, rollout="x" * 64)), ["a"])["problems"] == []


@pytest.mark.parametrize("made_at", ["\x1b[2J", "{{ 1 }}", "2026-01-01\n", "1" * 41, 5, []])
def test_the_time_in_a_plan_is_a_time(tmp_path: Path, made_at: Any) -> None:
    assert "is damaged" in problem(forged(tmp_path, made_at=made_at), ["a"])


@pytest.mark.parametrize("levels", [100, 300, 500, 900, 1000, 3000, 30_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_a_plan_that_is_nested_deeply_is_refused(
    tmp_path: Path, levels: int, brackets: str
) -> None:
    opening, closing = brackets if brackets == "[]" else ('{"a":', "}")
    nested = opening * levels + "1" + closing * levels
    file = forged(tmp_path)
    file.write_text(file.read_text().replace('"hosts": {', '"hosts": {"b": %s, ' % nested))
    assert problem(file, ["a"])


def test_a_number_that_takes_long_to_read_is_refused(tmp_path: Path) -> None:
    file = forged(tmp_path)
    file.write_text(file.read_text().replace('"format": 1', '"format": ' + "1" * 100_000))
    assert "is no plan" in problem(file, ["a"])


@pytest.mark.parametrize(
    ("applied", "outcome", "message"),
    [
        (answer(), "would change", "3 devices would change. Nothing was changed."),
        (answer(devices=DEVICES[:1]), "would change", "One device would change."),
        (answer(devices=[]), "would change", "No device would change."),
        (UNCHANGED, "unchanged", "Its list changes nothing."),
    ],
)
def test_check_mode_reports_what_would_change(applied: Any, outcome: str, message: str) -> None:
    row = _rollout_result.rollout_state("a", 1, applied, {"skipped": True}, None, None)
    assert row["outcome"] == outcome
    assert message in row["message"]
