# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every gate on the staged collection, two at a time.

It prints each command when it starts and each gate when it ends, and what is running where nothing
was printed for a while.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ABREAST = 2
_SILENT_SECONDS = 30
# Of the last run that passed here.
_SECONDS = Path.cwd().parents[2] / "check-seconds"


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
    pull = ["tests/pull/test_values.py", "tests/pull/test_take_commit.py"]
    docs = ["antsibull-docs", "lint-collection-docs", "--plugin-docs"]
    references = ["--validate-collection-refs", "all", "--disallow-unknown-collection-refs"]
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    workflows = [str(path) for path in sorted(Path(".github/workflows").glob("*.yml"))]
    scripts = [
        "tools/setup",
        "extensions/simulator/ssh",
        "tests/bench/slow_ssh",
        "extensions/molecule/image",
        ".ci/run",
    ]
    return [
        Gate("ansible-test sanity", [[*sanity, *on_one], [*sanity, *on_each]]),
        Gate("ansible-lint", [["ansible-lint", "--nocolor"]]),
        Gate("unit tests", [["pytest", "tests/unit"]]),
        Gate("simulated machines", [["pytest", "tests/simulated"]]),
        Gate("control nodes", [["pytest", "tests/environment", *pull]]),
        Gate("antsibull-docs", [[*docs, *references, "."]]),
        Gate("workflows", [[*schema, *workflows]]),
        Gate("mypy", [["mypy"], ["mypy", "roles/pull/files/take_commit.py"]]),
        Gate("ansible-doc", [["python", "tools/ansible_doc.py"]]),
        Gate("antsibull-changelog", [["antsibull-changelog", "lint"]]),
        Gate("yamllint", [["yamllint", "--strict", "."]]),
        Gate("shellcheck", [["shellcheck", *scripts]]),
        Gate("role defaults", [["python", "tools/role_defaults.py"]]),
        Gate("ruff", [["ruff", "check"], ["ruff", "format", "--check"]]),
    ]


class _Progress:
    """Prints what starts and ends, each line with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._running: list[str] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def start(self, gate: Gate, command: Sequence[str]) -> None:
        with self._lock:
            if gate.name not in self._running:
                self._running.append(gate.name)
            self._print(gate.name, shlex.join(command))

    def end(self, verdict: Verdict) -> None:
        with self._lock:
            self._running.remove(verdict.gate.name)
            word = "ok" if verdict.is_passed else "FAILED"
            self._print(verdict.gate.name, f"{word}, {verdict.seconds:.1f} s")
            if not verdict.is_passed:
                print(verdict.output, flush=True)

    def show_running(self) -> None:
        with self._lock:
            self._print("still running", ", ".join(self._running))

    def _print(self, name: str, words: str) -> None:
        print(f"{self.seconds:5.0f} s  {name:20} {words}", flush=True)


def _run(gate: Gate, progress: _Progress) -> Verdict:
    began = time.monotonic()
    output = ""
    is_passed = True
    for command in gate.commands:
        progress.start(gate, command)
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
    verdict = Verdict(gate, time.monotonic() - began, is_passed, output)
    progress.end(verdict)
    return verdict


def _run_all(gates: Sequence[Gate], progress: _Progress) -> dict[str, Verdict]:
    with ThreadPoolExecutor(_ABREAST) as executor:
        gates_run = [executor.submit(_run, gate, progress) for gate in gates]
        pending: set[Future[Verdict]] = set(gates_run)
        while pending:
            ended, pending = wait(pending, _SILENT_SECONDS, FIRST_COMPLETED)
            if not ended:
                progress.show_running()
    verdicts = [gate_run.result() for gate_run in gates_run]
    return {verdict.gate.name: verdict for verdict in verdicts}


def _expected() -> str:
    if not _SECONDS.exists():
        return "about 2 minutes on two cores that do nothing else"
    return f"the last run that passed here took {float(_SECONDS.read_text()):.0f} s"


def main() -> int:
    """Returns the exit status."""
    gates = _gates()
    print(f"{len(gates)} steps, {_ABREAST} at a time; {_expected()}", flush=True)
    progress = _Progress()
    verdicts = _run_all(gates, progress)
    failed = [name for name, verdict in verdicts.items() if not verdict.is_passed]
    for name in ("unit tests", "simulated machines"):
        print(f"{name}: {verdicts[name].output.rstrip().rpartition(chr(10))[2].strip('= ')}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    else:
        _SECONDS.write_text(f"{progress.seconds:.1f}\n")
        print(f"all passed, in {progress.seconds:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
