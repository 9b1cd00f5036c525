# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every gate on the staged collection, two at a time, and says how each of them went."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ABREAST = 2


class Gate(NamedTuple):
    """Commands that must succeed, one after the other."""

    name: str
    commands: Sequence[Sequence[str]]


class Verdict(NamedTuple):
    """What came of a gate."""

    gate: Gate
    seconds: float
    is_passed: bool
    output: str


def _gates() -> list[Gate]:
    """The slow ones first, so that none of them is left over at the end.

    Of the sanity tests compile and import run on each Python that is there, the others on ours.
    """
    sanity = ["python", "tools/sanity.py", "--color", "no"]
    on_one = ["--python", _PYTHON, "--skip-test", "compile", "--skip-test", "import"]
    on_each = ["--test", "compile", "--test", "import"]
    docs = ["antsibull-docs", "lint-collection-docs", "--plugin-docs"]
    references = ["--validate-collection-refs", "all", "--disallow-unknown-collection-refs"]
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    workflows = [str(path) for path in sorted(Path(".github/workflows").glob("*.yml"))]
    scripts = [
        "tools/setup",
        "tests/simulator/ssh",
        "tests/bench/slow_ssh",
        "extensions/molecule/image",
        ".ci/run",
    ]
    return [
        Gate("ansible-test sanity", [[*sanity, *on_one], [*sanity, *on_each]]),
        Gate("ansible-lint", [["ansible-lint", "--nocolor"]]),
        Gate("unit tests", [["pytest", "tests/unit"]]),
        Gate("simulated machines", [["pytest", "tests/simulated"]]),
        Gate("control nodes", [["pytest", "tests/environment", "tests/pull/test_values.py"]]),
        Gate("antsibull-docs", [[*docs, *references, "."]]),
        Gate("workflows", [[*schema, *workflows]]),
        Gate("mypy", [["mypy"]]),
        Gate("ansible-doc", [["python", "tools/ansible_doc.py"]]),
        Gate("antsibull-changelog", [["antsibull-changelog", "lint"]]),
        Gate("yamllint", [["yamllint", "--strict", "."]]),
        Gate("shellcheck", [["shellcheck", *scripts]]),
        Gate("role defaults", [["python", "tools/role_defaults.py"]]),
        Gate("ruff", [["ruff", "check"], ["ruff", "format", "--check"]]),
    ]


def _run(gate: Gate) -> Verdict:
    began = time.monotonic()
    output = ""
    is_passed = True
    for command in gate.commands:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        output += done.stdout
        is_passed = is_passed and done.returncode == 0
    return Verdict(gate, time.monotonic() - began, is_passed, output)


def main() -> int:
    """Returns the exit status."""
    verdicts: dict[str, Verdict] = {}
    with ThreadPoolExecutor(_ABREAST) as executor:
        for future in as_completed([executor.submit(_run, gate) for gate in _gates()]):
            verdict = future.result()
            verdicts[verdict.gate.name] = verdict
            word = "ok" if verdict.is_passed else "FAILED"
            print(f"{verdict.gate.name:20}{verdict.seconds:6.1f} s  {word}", flush=True)
            if not verdict.is_passed:
                print(verdict.output, flush=True)
    failed = [name for name, verdict in verdicts.items() if not verdict.is_passed]
    if failed:
        print(f"failed: {', '.join(failed)}")
    for name in ("unit tests", "simulated machines"):
        print(f"{name}: {verdicts[name].output.rstrip().rpartition(chr(10))[2].strip('= ')}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
