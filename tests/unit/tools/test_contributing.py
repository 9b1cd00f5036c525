"""The files, targets and sessions that CONTRIBUTING.md and the workflows name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import tomllib
import yaml
from test_layers import ORDER

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_the_map_has_the_packages_of_module_utils_in_the_order_of_their_imports() -> None:
    entries = (ROOT / "plugins/module_utils").iterdir()
    names = {path.name + "/" * path.is_dir() for path in entries if path.name != "__pycache__"}
    table = TEXT.partition("| package |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    packages = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row.split("|")[1])]
    assert len(rows) == 10
    assert set(packages) == {*names, "plugins/modules/"}
    assert [name.rstrip("/").partition(".")[0] for name in packages] == [*ORDER, "plugins/modules"]


# Of os and os.path: what needs no file, or only which process and kernel it is.
PURE = {"fsencode", "environ", "strerror", "major", "minor", "umask", "uname", "path"}
PURE |= {"geteuid", "getuid", "getpid", "basename", "dirname", "join", "normpath"}
MODULES = {"fcntl", "glob", "pathlib", "select", "shutil", "socket", "subprocess", "tempfile"}


def has_io(source: str) -> bool:
    """Return whether a file of module_utils reads, writes or runs something by itself."""
    return any(_is_io(node) for node in ast.walk(ast.parse(source)))


def _is_io(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "open"
    if isinstance(node, ast.Attribute):
        is_of_os = ast.unparse(node.value) in ("os", "os.path")
        return is_of_os and node.attr not in PURE and not node.attr.startswith("O_")
    if isinstance(node, ast.Import):
        return not MODULES.isdisjoint(alias.name for alias in node.names)
    return isinstance(node, ast.ImportFrom) and not node.level and node.module in MODULES


@pytest.mark.parametrize(
    "line", ["open(path)", "os.stat(path)", "os.path.exists(path)", "import fcntl", "os.open"]
)
def test_input_and_output_are_found_in_code(line: str) -> None:
    assert has_io(line)
    assert not has_io("os.uname().release, os.O_RDONLY, os.path.join(a, b), file.open(path)")


def test_the_map_lists_what_reads_and_writes_without_the_gateways() -> None:
    utils = ROOT / "plugins/module_utils"
    acting = {
        str(path.relative_to(utils))
        for path in utils.rglob("*.py")
        if path.parent.name != "_system" and has_io(path.read_text())
    }
    exceptions = TEXT.partition("with these exceptions:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(_\w+/\w+\.py)`", exceptions)) == acting


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
