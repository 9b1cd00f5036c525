"""make check shows what it runs while it runs, and fails if one of its steps fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, check
check._gates = lambda: [check.Gate(name, commands) for name, commands in {gates!r}]
check._SILENT_SECONDS = 0.1
sys.exit(check.main())
"""
PASSED = [["echo", "=== 7 passed in 1.00s ==="]]
TESTS: list[tuple[str, Sequence[Sequence[str]]]] = [
    ("unit tests", PASSED),
    ("simulated machines", PASSED),
]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Where it runs, below the directory of what is built."""
    path = tmp_path / "ansible_collections/armfleet/vfio"
    path.mkdir(parents=True)
    return path


def start(
    collection: Path, gates: Sequence[tuple[str, Sequence[Sequence[str]]]]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(gates=[*gates, *TESTS])],
        cwd=collection,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_command_is_shown_when_it_starts_and_while_it_runs(collection: Path) -> None:
    os.mkfifo(collection / "wait")
    waiting = [["cat", "wait"], ["true"]]
    with start(collection, [("slow", waiting)]) as process:
        assert process.stdout
        lines = [process.stdout.readline()]
        while not re.fullmatch(r" +\d+ s  still running +slow\n", lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        (collection / "wait").write_text("go on\n")
        lines += process.stdout
    assert process.returncode == 0
    assert lines[0].startswith("3 steps, 2 at a time; about 2 minutes on two cores")
    shown = [re.sub(r"\d+\.\d s", "x s", line[9:].rstrip()) for line in lines]
    first, second, ended = (
        shown.index(f"{'slow':20} {words}") for words in ("cat wait", "true", "ok, x s")
    )
    assert first < second < ended
    assert f"{'unit tests':20} echo '=== 7 passed in 1.00s ==='" in shown
    assert "unit tests: 7 passed in 1.00s\n" in lines


def test_the_time_of_the_last_run_that_passed_is_what_is_expected(collection: Path) -> None:
    with start(collection, [("quick", [["true"]])]) as process:
        first, _errors = process.communicate()
    assert re.search(r"^all passed, in \d+ s$", first, re.MULTILINE)
    (collection.parents[2] / "check-seconds").write_text("126.4\n")
    with start(collection, [("broken", [["sh", "-c", "echo why it failed; exit 1"]])]) as process:
        second, _errors = process.communicate()
    assert second.startswith("3 steps, 2 at a time; the last run that passed here took 126 s\n")
    assert (collection.parents[2] / "check-seconds").read_text() == "126.4\n"


def test_a_step_that_fails_is_shown_with_its_output(collection: Path) -> None:
    broken = [["sh", "-c", "echo why it failed; exit 1"], ["true"]]
    with start(collection, [("broken", broken)]) as process:
        output, _errors = process.communicate()
    assert process.returncode == 1
    assert re.search(r"broken +FAILED, \d+\.\d s\nwhy it failed\n", output)
    assert output.endswith("failed: broken\n")
