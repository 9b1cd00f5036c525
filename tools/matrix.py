# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/matrix.py [--depth test | nightly] [VERSION]...

Runs the collection on each version that tests/matrix/versions.toml has, two at a time, and prints
a table. With ``--depth test`` it runs on the oldest and the newest of each kind. With versions it
runs on these alone: 2.16 or 2.16.19 is an ansible-core on the control node, 3.8 is a Python on the
managed host. Where a Python is not on this machine the table says so; that is a failure where it
was asked for, and in CI.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from environments import Environment, EnvironmentFailedError, find_interpreter

_SOURCE = Path.cwd()
_PLACE = _SOURCE.parents[2] / "matrix"
_VERSIONS = Path("tests/matrix/versions.toml")
_ABREAST = 2
_MISSING = "not on this machine"

# Of style, which make check looks at once, by the rules of its ansible-core.
_STYLE = ("pep8", "pylint")


class Result(NamedTuple):
    """What came of one run; ``output`` is for people who look for the reason."""

    word: str
    seconds: float
    output: str = ""

    @property
    def is_passed(self) -> bool:
        return self.word.startswith("ok")


class Line(NamedTuple):
    """One line of the table."""

    ansible_core: str
    python: str
    ran: str
    result: Result


@dataclass(frozen=True)
class Row:
    """A version with its environment, and what is to be run in it."""

    ansible_core: str
    environment: Environment
    # The version that it stands for, and by which users choose it.
    name: str
    runs: Sequence[tuple[str, Callable[[Row, Path], list[str]]]]

    @property
    def collection(self) -> Path:
        """Of its own, for what runs in it leaves files there."""
        return _PLACE / self.name / "ansible_collections/armfleet/vfio"

    def is_one_of(self, versions: Sequence[str]) -> bool:
        return not versions or bool({self.name, self.name.rpartition(".")[0]} & set(versions))


def _rows(versions: Mapping[str, Any], depth: str) -> list[Row]:
    """The slow ones first, so that none of them is left over at the end."""
    controllers = [_controller(versions, **one) for one in versions["controllers"]]
    targets = [_target(versions, **one) for one in versions["targets"]]
    if depth == "test":
        # Their order is from the oldest to the newest.
        controllers, targets = ([rows[0], rows[-1]] for rows in (controllers, targets))
    return controllers + targets


def _controller(versions: Mapping[str, Any], ansible_core: str, python: str) -> Row:
    tests = [*versions["unit_tests"][python], *versions["controller_tests"]["packages"]]
    packages = (f"ansible-core=={ansible_core}", *tests)
    runs = [("sanity", _sanity), ("controller's units", _units), ("role on boards", _role)]
    return Row(ansible_core, Environment(python, packages), ansible_core, runs)


def _target(versions: Mapping[str, Any], ansible_core: str, python: str) -> Row:
    # A host is sent a part of it, and has not the rest that it would need to run.
    part = ("--no-deps", "--ignore-requires-python", f"ansible-core=={ansible_core}")
    environment = Environment(python, tuple(versions["unit_tests"][python]), (part,))
    return Row(ansible_core, environment, python, [("module_utils' units", _target_units)])


def _sanity(row: Row, programs: Path) -> list[str]:
    sanity = [str(programs / "python"), "tools/sanity.py", "--color", "no"]
    skipped = [word for test in _STYLE for word in ("--skip-test", test)]
    return [*sanity, "--python", row.environment.python, *skipped]


def _units(_row: Row, programs: Path) -> list[str]:
    return [str(programs / "python"), "-m", "pytest", "-q", "tests/unit/controller"]


def _target_units(row: Row, programs: Path) -> list[str]:
    """Those of module_utils' packages and of examples; the others need more than a host has."""
    units = row.collection / "tests/unit"
    tests = sorted(map(str, [*units.glob("test_*.py"), *units.glob("_*/test_*.py")]))
    return [str(programs / "python"), "-m", "pytest", "-q", *tests]


def _role(row: Row, _programs: Path) -> list[str]:
    """The test itself and the boards run on our own Python; ansible-playbook is that in PATH."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/matrix",
        "--ansible-core",
        row.ansible_core,
    ]


def _run(row: Row) -> list[Line]:
    def line(ran: str, result: Result) -> Line:
        return Line(row.ansible_core, row.environment.python, ran, result)

    if find_interpreter(row.environment.python) is None:
        return [line(ran, Result(_MISSING, 0)) for ran, _command in row.runs]
    try:
        programs = row.environment.ensure()
    except EnvironmentFailedError as error:
        return [line("set up", Result("FAILED", 0, str(error)))]
    shutil.rmtree(row.collection, ignore_errors=True)
    shutil.copytree(_SOURCE, row.collection)
    lines = []
    for ran, command in row.runs:
        print(f"{row.ansible_core} on Python {row.environment.python}, {ran}: started", flush=True)
        lines.append(line(ran, _result_of(command(row, programs), row.collection, programs)))
    return lines


def _result_of(command: list[str], collection: Path, programs: Path) -> Result:
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=collection,
        env={
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(collection.parents[2]),
            "ANSIBLE_COLLECTIONS_PATH": str(collection.parents[2]),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        return Result("FAILED", seconds, done.stdout)
    counted = re.search(r"\d+ passed(?:, \d+ skipped)?", done.stdout)
    return Result(f"ok, {counted.group()}" if counted else "ok", seconds)


def _print_table(lines: Sequence[Line]) -> None:
    print(f"\n{'ansible-core':14}{'Python':8}{'ran':22}{'seconds':>7}  result")
    for ansible_core, python, ran, result in lines:
        print(f"{ansible_core:14}{python:8}{ran:22}{result.seconds:7.0f}  {result.word}")


def main(depth: str, versions: Sequence[str]) -> int:
    """Returns the exit status."""
    # Versions that are named are among all of them.
    rows = _rows(tomllib.loads(_VERSIONS.read_text()), "nightly" if versions else depth)
    rows = [row for row in rows if row.is_one_of(versions)]
    if not rows:
        sys.exit(f"tests/matrix/versions.toml has none of {', '.join(versions)}")
    lines: list[Line] = []
    with ThreadPoolExecutor(_ABREAST) as executor:
        for found in executor.map(_run, rows):
            lines += found
            for line in found:
                print(
                    f"{line.ansible_core} on Python {line.python}, {line.ran}: {line.result.word}"
                )
                if line.result.output:
                    print(line.result.output)
            sys.stdout.flush()
    _print_table(lines)
    missing = [line for line in lines if line.result.word == _MISSING]
    failed = [line for line in lines if not line.result.is_passed and line not in missing]
    must_be_whole = bool(versions) or "CI" in os.environ
    return bool(failed or (must_be_whole and missing))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", choices=("test", "nightly"), default="nightly")
    parser.add_argument("versions", nargs="*", metavar="VERSION")
    asked = parser.parse_args()
    sys.exit(main(asked.depth, asked.versions))
