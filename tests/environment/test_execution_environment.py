"""ansible-builder with the collection, and with the definition in the documentation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.harness.collection import install

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/execution-environment"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def ansible_builder(*words: str, directory: Path) -> str:
    done = subprocess.run(
        ["ansible-builder", *words], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the build context of the example, in a directory with only its two files."""
    directory = tmp_path_factory.mktemp("execution-environment")
    shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
    # The default depends on the container runtime of this machine.
    name = ("--output-filename", "Containerfile")
    ansible_builder("create", "--context", "context", *name, directory=directory)
    return directory / "context"


def test_the_collection_asks_for_nothing(tmp_path: Path) -> None:
    installed = install(tmp_path)
    assert (installed / "meta/execution-environment.yml").is_file()
    # By default, ansible-builder takes this file for the requirements of the control node.
    (installed / "requirements.txt").write_text("pytest-of-our-own\n")
    asked = yaml.safe_load(ansible_builder("introspect", str(tmp_path), directory=tmp_path))
    assert asked == {"python": [], "system": []}


def test_the_context_takes_the_collection(context: Path) -> None:
    (collection,) = read(context / "_build/requirements.yml")["collections"]
    assert collection["name"] == "armfleet.vfio"
    assert read(ROOT / "galaxy.yml")["version"] in SpecifierSet(collection["version"])
    assert "ansible-galaxy collection install" in (context / "Containerfile").read_text()


def test_the_context_takes_an_ansible_core_that_the_collection_runs_on(context: Path) -> None:
    required = read(ROOT / "meta/runtime.yml")["requires_ansible"].removesuffix(".0")
    assert f'"ansible-core{required} ansible-runner' in (context / "Containerfile").read_text()


def test_the_context_takes_ssh_and_no_other_package(context: Path) -> None:
    assert (context / "_build/bindep.txt").read_text().split() == ["openssh-clients"]
    assert not (context / "_build/requirements.txt").exists()
