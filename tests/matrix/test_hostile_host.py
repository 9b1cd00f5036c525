# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A managed host lies to the control node, with the first ansible-playbook in PATH."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.hostile import answer, leave_shell, take_over, take_over_shell
from tests.harness.playbook import Run, play, rows
from tests.matrix.test_role import DRIVERS, PARTS, PLAYBOOKS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

EVIL, HONEST, LATE = "evil", "honest", "late"
BOARDS = [EVIL, HONEST, LATE]
LISTED = 2
# The other playbooks are run every night.
OFTEN = ("report",)
NIGHTLY = pytest.mark.nightly
# Terminals execute the first four; the others reverse the text or cannot be encoded.
NOT_PRINTABLE = "\x1b]0;title\x07\x9b31m\x00\u202e\u2028\udc80"


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three boards, the hostile one first."""
    directory = tmp_path_factory.mktemp("hostile")
    plans = alike(directory, BOARDS, PARTS, DRIVERS)
    with fleet(directory, plans, VARIABLES) as running:
        take_over(running, EVIL)
        yield running


@pytest.fixture(scope="module")
def fact_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one directory for all tests: Ansible is loaded once for each set of settings."""
    return tmp_path_factory.mktemp("facts")


@pytest.fixture(autouse=True)
def with_fact_cache(
    boards: Fleet, fact_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Turn facts into variables, which is Ansible's default, and keep them in an empty cache."""
    for kept in fact_cache.iterdir():
        kept.unlink()
    monkeypatch.setenv("ANSIBLE_INJECT_FACT_VARS", "True")
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN", "jsonfile")
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(fact_cache))
    yield
    answer(boards, EVIL)
    if any(boards.on_vfio().values()):
        assert run(boards, "release").code == 0


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    return play(boards.inventory, f"armfleet.vfio.{playbook}", *arguments, variables=variables)


def command(tmp_path: Path) -> str:
    """Return a template that creates a file on the machine that evaluates it."""
    return "{{ lookup('ansible.builtin.pipe', 'touch %s/ran') }}" % tmp_path


def facts(tmp_path: Path) -> dict[str, Any]:
    """Return all variables that would change what the control node writes or decides."""
    theirs = str(tmp_path / "theirs")
    return {
        "drift_file": theirs,
        "drift_accepted": ["failed", "drift"],
        "drift_path": theirs,
        "report_path": theirs,
        "report_mode": "0777",
        "report_title": command(tmp_path),
        "report_formats": ["json"],
        "report_registered": "nothing",
        "rollout_max_failures": 9,
        "rollout_row": {"host": EVIL, "wave": 1, "outcome": "changed", "message": "fine"},
        "passthrough_rollout": "theirs",
        "ansible_connection": "local",
        "armfleet_board_names": [command(tmp_path)],
        "ansible_facts": {},
        "directory": theirs,
    }


def lies(tmp_path: Path) -> dict[str, Any]:
    """Return the keys of a module's result that ansible-core acts on or displays."""
    return {
        "ansible_facts": facts(tmp_path),
        "_ansible_facts_cacheable": True,
        "_ansible_verbose_always": NOT_PRINTABLE,
        "ansible_facts_cacheable": True,
        "ansible_stats": {"data": {NOT_PRINTABLE: 1}},
        "add_host": {"host_name": "added", "groups": ["all"]},
        "add_group": "added",
        "argument_errors": [command(tmp_path)],
        "attempts": NOT_PRINTABLE,
        "deprecations": [{"msg": NOT_PRINTABLE, "version": "9"}],
        "diff": [{"before": NOT_PRINTABLE, "after": command(tmp_path)}],
        "exception": NOT_PRINTABLE,
        "invocation": {"module_args": {"path": NOT_PRINTABLE}},
        "results": [NOT_PRINTABLE],
        "skipped": False,
        "stdout": NOT_PRINTABLE,
        "unreachable": False,
        "warnings": ["careful: " + NOT_PRINTABLE, command(tmp_path)],
    }


def not_printable(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable() and letter not in "\n\t\r"}


# Of Ansible's own modules, ansible-core alone decides what an answer may contain.
@pytest.mark.parametrize(
    "playbook",
    [
        *OFTEN,
        *(
            pytest.param(playbook, marks=NIGHTLY)
            for playbook in sorted({*PLAYBOOKS} - {*OFTEN, "pull", "vfio_modules"})
        ),
    ],
)
def test_no_playbook_does_what_a_host_says(
    boards: Fleet,
    playbook: str,
    tmp_path: Path,
    fact_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer(boards, EVIL, lies(tmp_path))
    given = {"passthrough_rollout": "ours"} if playbook == "rollback" else {}
    done = run(boards, playbook, "--diff", "-vvv", **given)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs").exists()
    assert not not_printable(done.output)
    assert "Traceback" not in done.output
    assert hosts_of(done) == BOARDS, done.output
    # No host has anything to roll back.
    assert done.code == (2 if playbook == "rollback" else 0), done.output
    assert cached(fact_cache) <= {"armfleet_board_names"}


def test_pull_does_not_either(
    boards: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer(boards, EVIL, lies(tmp_path))
    repository = "https://git.example/boards.git"
    done = run(boards, "pull", "--check", f"--limit={EVIL}", pull_repository=repository)
    assert hosts_of(done) == [EVIL]
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs").exists()


def test_the_role_for_modules_does_not_either(
    boards: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer(boards, EVIL, lies(tmp_path))
    done = run(boards, "vfio_modules", "--check", f"--limit={EVIL}")
    assert hosts_of(done) == [EVIL]
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs").exists()


def hosts_of(done: Run) -> list[str]:
    """Return the hosts of the recap."""
    return re.findall(r"^(\S+)\s+: ok=", done.output, re.MULTILINE)


def cached(fact_cache: Path) -> set[str]:
    """Return the names of the hostile host's facts in the cache."""
    kept = fact_cache / EVIL
    return set(json.loads(kept.read_text())) if kept.exists() else set()


@pytest.fixture
def ours(boards: Fleet, tmp_path: Path, fact_cache: Path) -> Iterator[Path]:
    """Yield a directory that the inventory sets, while the fact cache has lies of the host."""
    (tmp_path / "ours").mkdir()
    (fact_cache / EVIL).write_text(json.dumps(facts(tmp_path)))
    variables = boards.inventory.parent / "group_vars/all.yml"
    variables.parent.mkdir(exist_ok=True)
    settings = {
        "directory": str(tmp_path / "ours"),
        "drift_file": "{{ directory }}/drift.jsonl",
        "report_path": "{{ directory }}/report",
        "report_mode": "0640",
    }
    variables.write_text(yaml.safe_dump(settings))
    yield tmp_path / "ours"
    variables.unlink()


def test_cached_facts_do_not_choose_what_is_written(
    boards: Fleet, ours: Path, tmp_path: Path
) -> None:
    drift = run(boards, "drift")
    assert drift.code == 0, drift.output
    assert states(ours) == dict.fromkeys(BOARDS, "outdated")
    report = run(boards, "report")
    assert report.code == 0, report.output
    names = ["report.csv", "report.html", "report.json", "report.prom"]
    assert sorted(path.name for path in (ours / "report").iterdir()) == names
    assert {stat.S_IMODE((ours / "report" / name).stat().st_mode) for name in names} == {0o640}
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs").exists()


@NIGHTLY
@pytest.mark.usefixtures("ours")
def test_a_setting_of_a_play_counts_though_a_fact_has_its_value(
    boards: Fleet, tmp_path: Path, fact_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    drift = {"drift_file": str(chosen / "drift.jsonl"), "drift_accepted": ["failed", "drift"]}
    cached = {**facts(tmp_path), **drift, "report_path": str(chosen / "report")}
    (fact_cache / EVIL).write_text(json.dumps(cached))
    # The defaults would write to the current directory.
    monkeypatch.chdir(tmp_path)
    settings = {
        "drift": drift,
        "report": {"report_path": cached["report_path"], "report_mode": cached["report_mode"]},
    }
    for playbook, variables in settings.items():
        imported = {"name": "Import", "import_playbook": f"armfleet.vfio.{playbook}"}
        done = play(boards.inventory, [{**imported, "vars": variables}])
        assert done.code == 0, done.output
    assert states(chosen) == dict.fromkeys(BOARDS, "outdated")
    assert stat.S_IMODE((chosen / "report/report.html").stat().st_mode) == 0o777
    assert list((tmp_path / "ours").iterdir()) == []


@NIGHTLY
@pytest.mark.usefixtures("ours")
def test_cached_facts_neither_name_a_rollout_nor_tolerate_a_failure(boards: Fleet) -> None:
    answer(boards, EVIL, {"devices": [{}]})
    done = run(boards, "rollout", rollout_waves=1)
    assert done.code == 2
    assert {name: row.outcome for name, row in rows(done).items()} == {
        EVIL: "failed",
        HONEST: "not started",
        LATE: "not started",
    }
    assert "passthrough_rollout=theirs" not in done.output
    assert boards.on_vfio() == dict.fromkeys(BOARDS, 0) | {EVIL: LISTED}


def states(directory: Path) -> dict[str, str]:
    lines = (directory / "drift.jsonl").read_text().splitlines()
    return {line["host"]: line["state"] for line in map(json.loads, lines)}


@pytest.mark.parametrize(
    "lie",
    [
        {"fields": {"devices": [{}]}},
        pytest.param({"fields": {"failed": "no", "unreachable": True}}, marks=NIGHTLY),
        pytest.param({"text": '{"devices": ' + "[" * 100_000}, marks=NIGHTLY),
        pytest.param({"text": "\x1b[2J" + NOT_PRINTABLE[:-1] + "not JSON"}, marks=NIGHTLY),
        {"text": "", "stderr": "\x1b[2J" + NOT_PRINTABLE[:-1], "code": 255},
    ],
    ids=["{}", "flags", "deep", "text", "255"],
)
def test_a_malformed_answer_is_a_row(boards: Fleet, tmp_path: Path, lie: dict[str, Any]) -> None:
    answer(boards, EVIL, **lie)
    done = run(boards, "drift", drift_file=str(tmp_path / "drift.jsonl"))
    assert done.code == 2
    expected = "unreachable" if lie.get("code") else "failed"
    others = dict.fromkeys([HONEST, LATE], "outdated")
    assert states(tmp_path) == {EVIL: expected, **others}
    assert not not_printable(done.output)
    assert "Traceback" not in done.output


# Like NOT_PRINTABLE, without characters that end a command or a line.
NOT_PRINTABLE_WORD = "\x1b[31m\x9b31m\u202e"
HOSTILE_PYTHON = f"/opt/{NOT_PRINTABLE_WORD}/hostile-python"
DISCOVERY = f"PLATFORM\n%s\nFOUND\n{HOSTILE_PYTHON}\n/usr/bin/python3\nENDFOUND\n"


@pytest.fixture
def shell(boards: Fleet) -> Iterator[None]:
    """Give the host a hostile shell, and let ansible-core ask it for a Python interpreter."""
    variables = boards.inventory.parent / f"host_vars/{EVIL}.yml"
    before = variables.read_text()
    variables.write_text("ansible_python_interpreter: auto_legacy\n")
    take_over_shell(boards, EVIL)
    yield
    answer(boards, EVIL)
    leave_shell(boards, EVIL)
    variables.write_text(before)


@pytest.mark.parametrize(
    "reported",
    [
        {"discovery": DISCOVERY % f"plan9{NOT_PRINTABLE_WORD}"},
        pytest.param(
            {
                "discovery": DISCOVERY % "Linux",
                "platform": ["redhat", f"8{NOT_PRINTABLE_WORD}", ""],
            },
            marks=NIGHTLY,
        ),
        pytest.param(
            {"discovery": DISCOVERY % "Linux", "platform": [NOT_PRINTABLE_WORD, "1", ""]},
            marks=NIGHTLY,
        ),
        pytest.param(
            {"discovery": DISCOVERY % "Linux", "platform": NOT_PRINTABLE_WORD}, marks=NIGHTLY
        ),
        pytest.param({"discovery": f"{NOT_PRINTABLE_WORD}\n"}, marks=NIGHTLY),
    ],
    ids=["platform", "version", "distribution", "no list", "nothing"],
)
@pytest.mark.usefixtures("shell")
def test_what_is_discovered_of_an_interpreter_is_printable(
    boards: Fleet, tmp_path: Path, fact_cache: Path, reported: dict[str, Any]
) -> None:
    platform = json.dumps(
        {"platform_dist_result": reported.get("platform"), "osrelease_content": None}
    )
    commands = [
        (["ENDFOUND"], {"stdout": reported["discovery"], "stderr": NOT_PRINTABLE_WORD}),
        # Only ansible-core before 2.17 runs this command, before any module.
        *(
            [(["hostile-python && sleep 0"], {"stdout": platform, "stderr": NOT_PRINTABLE_WORD})]
            if "platform" in reported
            else []
        ),
    ]
    answer(boards, EVIL, commands=commands)
    done = run(boards, "drift", "-vvv", drift_file=str(tmp_path / "drift.jsonl"))
    assert not not_printable(done.output)
    assert "Traceback" not in done.output
    assert {HONEST: "outdated", LATE: "outdated"}.items() <= states(tmp_path).items()
    kept = fact_cache / EVIL
    assert not kept.exists() or not not_printable(str(json.loads(kept.read_text())))


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([(["rm -f -r"], {"stderr": NOT_PRINTABLE_WORD, "code": 1})], marks=NIGHTLY),
        [(["mkdir -p"], {"stdout": NOT_PRINTABLE_WORD, "stderr": NOT_PRINTABLE_WORD, "code": 1})],
        pytest.param([(["echo ~"], {"stdout": f"/root/{NOT_PRINTABLE_WORD}\n"})], marks=NIGHTLY),
        pytest.param(
            [(["dd of="], {"stdout": NOT_PRINTABLE_WORD, "stderr": NOT_PRINTABLE_WORD, "code": 1})],
            marks=NIGHTLY,
        ),
        pytest.param([(["chmod u+"], {"stderr": NOT_PRINTABLE_WORD, "code": 1})], marks=NIGHTLY),
    ],
    ids=["rm", "mkdir", "home", "dd", "chmod"],
)
@pytest.mark.usefixtures("shell")
def test_what_is_told_of_the_files_of_ansible_is_printable(
    boards: Fleet,
    tmp_path: Path,
    commands: list[tuple[list[str], dict[str, Any]]],
) -> None:
    variables = boards.inventory.parent / f"host_vars/{EVIL}.yml"
    # Pipelining is off by default.
    way = "ansible_pipelining: false\nansible_ssh_transfer_method: piped\n"
    variables.write_text(f"ansible_python_interpreter: /usr/bin/python3\n{way}")
    answer(boards, EVIL, commands=commands)
    # With -vvv, ansible-core's own ssh plugin displays the output of a command that failed.
    has_failed = any(reported.get("code") for _marks, reported in commands)
    more = [] if has_failed else ["-vvv"]
    done = run(boards, "drift", *more, drift_file=str(tmp_path / "drift.jsonl"))
    assert r"\x1b[31m" in done.output.replace("\\\\", "\\")
    assert not not_printable(done.output)
    assert "Traceback" not in done.output
    assert {HONEST: "outdated", LATE: "outdated"}.items() <= states(tmp_path).items()


@pytest.mark.parametrize("playbook", ["drift", pytest.param("report", marks=NIGHTLY)])
def test_a_fleet_that_becomes_root_does_not_on_the_control_node(
    boards: Fleet, tmp_path: Path, playbook: str
) -> None:
    becoming = tmp_path / "becoming.yml"
    # Becoming the current user runs no program, and these tests run as root.
    other = {"ansible_become_user": "nobody", "ansible_become_exe": "/bin/false"}
    variables = {"ansible_become": True, **other}
    root = {"ansible_become_user": "root", "ansible_become_exe": "sudo"}
    hosts = {"simulated": {"vars": root}}
    becoming.write_text(yaml.safe_dump({"all": {"vars": variables, "children": hosts}}))
    done = run(
        boards,
        playbook,
        f"--inventory={becoming}",
        drift_file=str(tmp_path / "drift.jsonl"),
        report_path=str(tmp_path / "report"),
    )
    assert done.code == 0, done.output


@NIGHTLY
def test_texts_of_a_host_are_written_for_all_hosts(boards: Fleet, tmp_path: Path) -> None:
    entry = {"name": NOT_PRINTABLE + command(tmp_path), "policy": "vfio"}
    answer(boards, EVIL, {"policy_list": [entry], "skipped_entries": [NOT_PRINTABLE]})
    done = run(boards, "report", report_path=str(tmp_path / "report"))
    assert done.code == 0, done.output
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert [host["state"] for host in report["hosts"]] == ["in_sync", "unmanaged", "unmanaged"]
    assert not (tmp_path / "ran").exists()


def test_a_malformed_answer_stops_a_rollout(boards: Fleet) -> None:
    answer(boards, EVIL, {"devices": [{}]})
    done = run(boards, "rollout", rollout_waves=[2, 1])
    assert done.code == 2
    assert {name: row.outcome for name, row in rows(done).items()} == {
        EVIL: "failed",
        HONEST: "changed",
        LATE: "not started",
    }
    assert boards.on_vfio()[LATE] == 0


@pytest.mark.parametrize(
    ("tolerated", "late"),
    [(0, "not started"), pytest.param(1, "changed", marks=NIGHTLY)],
)
def test_a_host_that_leaves_its_wave_without_a_result_has_failed(
    boards: Fleet, tolerated: int, late: str
) -> None:
    variables = boards.inventory.parent / f"host_vars/{EVIL}.yml"
    before = variables.read_text()
    # The task that creates the row fails for this host.
    variables.write_text(before + 'rollout_unchanged: "{{ 1 // 0 }}"\n')
    done = run(boards, "rollout", rollout_waves=[2, 1], rollout_max_failures=tolerated)
    variables.write_text(before)
    assert done.code == 2, done.output
    assert {name: row.outcome for name, row in rows(done).items()} == {
        EVIL: "failed",
        HONEST: "changed",
        LATE: late,
    }


def change(text: str) -> dict[str, Any]:
    """Return what a plan is made of: an answer in which each text is ``text``."""
    binding = {"driver": text, "driver_override": text}
    unset = ("dt_path", "acpi_path", "acpi_hid", "acpi_uid", "pci_id", "iommu_group")
    device = {
        "name": text,
        "bus": text,
        "compatible": [text],
        **dict.fromkeys(unset, text),
        **binding,
        "vfio_nodes": [text],
        "links": [text],
        "steps": [text],
        "changed": True,
        "before": binding,
        "after": {**binding, "driver": None},
    }
    file = {"path": text, "changed": True, "state": text}
    diff = {"before": text, "after": text, "before_header": text, "after_header": text}
    return {
        "devices": [device],
        "host_steps": [text],
        "boot_files": [file],
        "diff": [diff],
        "initramfs_command": [text],
        "plan_digest": ".".join(["0" * 32] * 3),
    }


@pytest.mark.parametrize("boot_files", [True, pytest.param(False, marks=NIGHTLY)])
def test_a_plan_keeps_what_a_host_says_as_text(
    boards: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, boot_files: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    answer(boards, EVIL, {**lies(tmp_path), **change(command(tmp_path) + NOT_PRINTABLE)})
    plan = tmp_path / "plan.json"
    made = run(boards, "plan", "-vvv", plan_file=str(plan), plan_boot_files=boot_files)
    assert made.code == 0, made.output
    assert not not_printable(made.output)
    assert "Plan: 3 hosts to change. Nothing was changed." in made.output
    hosts = json.loads(plan.read_text())["hosts"]
    assert list(hosts) == BOARDS
    assert hosts[EVIL]["change"]["host_steps"][0].startswith(command(tmp_path))
    assert not not_printable(plan.read_text())
    assert not not_printable(hosts[EVIL]["change"]["host_steps"][0])

    # It does not change what it had announced, and whatever it answers is its own result.
    answer(boards, EVIL)
    done = run(boards, "rollout", passthrough_plan=str(plan), rollout_max_failures=1)
    assert done.code == 2, done.output
    assert {name: row.outcome for name, row in rows(done).items()} == {
        EVIL: "failed",
        HONEST: "changed",
        LATE: "changed",
    }
    assert boards.on_vfio() == {EVIL: 0, HONEST: LISTED, LATE: LISTED}
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs").exists()


def test_who_edits_a_plan_file_runs_nothing_on_the_control_node(
    boards: Fleet, tmp_path: Path
) -> None:
    plan, results = tmp_path / "plan.json", tmp_path / "results.json"
    assert run(boards, "plan", plan_file=str(plan)).code == 0
    results.write_text("of an earlier run")
    content = json.loads(plan.read_text())
    parts = {key: content[key] for key in ("hosts", "rollout", "made_at")}
    forged = {**parts, "rollout": command(tmp_path) + NOT_PRINTABLE[:-1]}
    text = json.dumps(forged, sort_keys=True)
    checksum = hashlib.sha256(text.encode("ascii")).hexdigest()
    plan.write_text(json.dumps({**content, **forged, "checksum": checksum}))
    done = run(boards, "rollout", passthrough_plan=str(plan), rollout_results=str(results))
    assert done.code == 2
    assert "is damaged. Make a new plan with armfleet.vfio.plan." in done.output
    assert not not_printable(done.output)
    assert not (tmp_path / "ran").exists()
    assert not results.exists()
    assert set(boards.on_vfio().values()) == {0}


def test_the_name_of_a_board_is_no_template(boards: Fleet, tmp_path: Path) -> None:
    names = [command(tmp_path), "acme,one", *map(str, range(200)), "x" * 5_000]
    answer(boards, EVIL, {"board": {"compatible": names, "product_name": None, "board_name": None}})
    assert run(boards, "boards").code == 0
    constructed = boards.inventory.parent / "constructed.yml"
    constructed.write_text(
        "plugin: ansible.builtin.constructed\nstrict: true\n"
        "keyed_groups: [{key: armfleet_board_names, prefix: board}]\n"
    )
    listed = subprocess.run(
        ["ansible-inventory", "-i", boards.inventory, "-i", constructed, "--list"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    groups = json.loads(listed)
    assert groups["board_acme_one"]["hosts"] == [EVIL]
    assert not (tmp_path / "ran").exists()
    assert sum(EVIL in group.get("hosts", ()) for group in groups.values()) < 70
