"""The files, targets and sessions that CONTRIBUTING.md and the workflows name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib
import yaml

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_the_map_has_each_package_of_module_utils() -> None:
    entries = (ROOT / "plugins/module_utils").iterdir()
    names = {path.name + "/" * path.is_dir() for path in entries if path.name != "__pycache__"}
    table = TEXT.partition("| package |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(_\w+(?:/|\.py))`", table)) - {"checker.py"} == names


def make_targets(text: str) -> set[str]:
    return set(re.findall(r"(?:`|\$ |run: |sudo env .*)make ([a-z]+)", text))


def test_each_make_target_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set().union(*map(make_targets, [TEXT, *(path.read_text() for path in WORKFLOWS)]))
    assert {"check", "docs", "integration", "matrix", "nightly", "release"} <= named
    assert named - set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE)) == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_sets_up_before_what_installs_no_system_packages(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    (installing,) = re.findall(r"^(.*): export ARMFLEET_INSTALL = yes$", makefile, re.MULTILINE)
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        runs = " ".join(step.get("run", "") for step in job.get("steps", []))
        targets = re.findall(r"\bmake ([a-z]+)", runs)
        assert not targets or targets[0] in installing.split()


def test_the_night_has_each_python_of_the_matrix() -> None:
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text()
    versions = tomllib.loads((ROOT / "tests/matrix/versions.toml").read_text())
    rows = versions["controllers"] + versions["targets"]
    installed = re.findall(r"^ +(3\.\d+)$", nightly, re.MULTILINE)
    assert set(installed) == {row["python"] for row in rows}


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|plugins|docs|tools|roles)/[\w./]+)`", TEXT)))
)
def test_each_path_is_there(path: str) -> None:
    assert (ROOT / path).exists()
