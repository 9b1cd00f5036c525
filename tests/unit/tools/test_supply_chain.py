"""Inputs and tools of a release are pinned by hash, and jobs have only the rights they need."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MANIFESTS = sorted(path.parent for path in (ROOT / "tests").glob("*/package.json"))
LOCKS = [ROOT / "tests/requirements.lock", ROOT / "tests/demo.lock"]


def jobs() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield every job: its name, its definition and its workflow."""
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        for name, job in workflow["jobs"].items():
            yield f"{path.stem}/{name}", job, workflow


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job, _workflow in jobs():
        for step in job.get("steps", []):
            yield name, step


def rights(job: dict[str, Any], workflow: dict[str, Any]) -> dict[str, str]:
    given: dict[str, str] = job.get("permissions", workflow["permissions"])
    return given


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_hash_and_says_its_version(path: Path) -> None:
    for action in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"\./.*|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_no_checkout_keeps_the_token() -> None:
    checkouts = [step for _name, step in steps() if "checkout@" in step.get("uses", "")]
    assert checkouts
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


def test_a_workflow_may_read_alone_unless_a_job_says_more() -> None:
    for _name, _job, workflow in jobs():
        assert workflow["permissions"] == {"contents": "read"}


def test_a_job_with_the_right_to_write_runs_nothing_of_the_repository() -> None:
    writing = [job for _name, job, workflow in jobs() if "write" in rights(job, workflow).values()]
    assert len(writing) == 2
    for job in writing:
        for step in job["steps"]:
            assert "checkout@" not in step.get("uses", "")
            assert re.match(r"gh |sha256sum |$", step.get("run", ""))


def test_the_package_has_a_checksum_and_its_provenance() -> None:
    (publish,) = [job for name, job, _workflow in jobs() if name == "release/publish"]
    assert publish["permissions"]["attestations"] == "write"
    used = " ".join(step.get("uses", step.get("run", "")) for step in publish["steps"])
    assert "attest-build-provenance@" in used
    assert "SHA256SUMS" in used


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_each_locked_package_has_hashes(path: Path) -> None:
    entries = re.split(r"\n(?=\S)", path.read_text().strip())
    for entry in entries:
        assert re.match(r"[\w.-]+==[^\s;\\]+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("directory", MANIFESTS, ids=lambda path: path.name)
def test_each_locked_package_of_npm_has_a_hash_and_names_no_registry(directory: Path) -> None:
    packages = json.loads((directory / "package-lock.json").read_text())["packages"]
    required = json.loads((directory / "package.json").read_text())["devDependencies"]
    locked = {name: package for name, package in packages.items() if name}
    for name, version in required.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    for package in locked.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_the_lock_has_the_versions_that_are_required() -> None:
    required = [ROOT / "tests/requirements.txt", ROOT / "extensions/simulator/requirements.txt"]
    wanted = {name: version for path in required for name, version in pins(path).items()}
    lock, demo = map(pins, LOCKS)
    assert wanted.items() <= lock.items()
    assert demo.items() <= lock.items()
    assert "ansible-core" in demo


def test_what_is_set_up_is_what_is_locked() -> None:
    setup = (ROOT / "tools/setup").read_text()
    wanted = re.findall(r"wanted=\((.*)\)", setup)
    assert wanted == [f"--require-hashes --requirement {path.relative_to(ROOT)}" for path in LOCKS]
