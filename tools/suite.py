# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python tools/suite.py test | nightly | part NAME [--depth DEPTH] [WORD...]

Runs the parts that tools/parts.py lists, two at a time, and prints a table of them. The output of
a part is in build/suite/NAME.log, and is shown if the part fails.

'test' runs all parts. 'nightly' omits those that have passed on the current tree, in a run of
either, so that an interrupted run can be continued. 'part' runs the command of one part, with
additional arguments if there are any, and does not record that it passed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from parts import SHARED, Part, parts
from stage import BUILD, ROOT, sources

_LANES = 2
_SUITE = BUILD / "suite"
# The time for a part to stop its guests.
_GRACE_SECONDS = 20
# The message of nox about a session whose Python is not on this machine.
_MISSING = re.compile(r"nox > \* (\S+): skipped \((.*?)\)")


class Results(NamedTuple):
    """The results that the tests of a part wrote."""

    tests: int
    # Seconds and name.
    slowest: list[tuple[float, str]]
    not_run: list[str]


class Verdict(NamedTuple):
    """The outcome of a part."""

    name: str
    result: str
    seconds: float
    results: Results

    @property
    def is_passed(self) -> bool:
        return self.result.startswith("ok")


_NOTHING = Results(0, [], [])


def tree() -> str:
    """Return a hash of all that parts can see: of each file name, execute bit and content."""
    digest = hashlib.sha256()
    for name in sorted(sources()):
        path = ROOT / name
        # Editors create and delete temporary files.
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            is_executable = bool(path.stat().st_mode & 0o100)
            digest.update(f"{name}\0{is_executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _stamp(part: Part, of_tree: str) -> Path:
    """Return the path of the verdict of a part that passed on a tree."""
    key = hashlib.sha256(json.dumps([of_tree, part.argv]).encode()).hexdigest()
    return _SUITE / "passed" / f"{part.name}-{key[:16]}.json"


def _recall(part: Part, of_tree: str) -> Verdict | None:
    stamp = _stamp(part, of_tree)
    if not stamp.exists():
        return None
    name, _result, seconds, results = json.loads(stamp.read_text())
    return Verdict(name, "ok, before", seconds, Results(*results))


def _remember(part: Part, of_tree: str, verdict: Verdict) -> None:
    stamp = _stamp(part, of_tree)
    stamp.parent.mkdir(exist_ok=True)
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(json.dumps(verdict))
    unfinished.replace(stamp)


def not_passed() -> list[str]:
    """Return the parts of make test that have not passed on the current tree."""
    now = tree()
    return [part.name for part in parts("test") if not _stamp(part, now).exists()]


def _reason(skipped: ET.Element) -> str:
    """Return the reason; a skipped file has it at the end of (path, line, reason)."""
    if skipped.get("type") == "pytest.skip":
        return skipped.get("message", "")
    return (skipped.text or "").rpartition("Skipped: ")[2].rstrip("')\"")


def _cases(path: Path) -> list[ET.Element]:
    """Return the tests of a JUnit file; a pytest that was killed leaves none."""
    try:
        return list(ET.parse(path).iter("testcase"))
    except ET.ParseError:
        return []


def _read(directory: Path, log: Path) -> Results:
    """Read the JUnit files that each pytest of a part wrote, and the output of the part."""
    timed = []
    skips: Counter[tuple[str, str]] = Counter()
    for path in directory.glob("*.xml"):
        for case in _cases(path):
            module, name = case.get("classname", ""), case.get("name", "")
            timed.append((float(case.get("time", 0)), f"{module}::{name}"))
            skipped = case.find("skipped")
            if skipped is not None and skipped.get("type") != "pytest.xfail":
                skips[module or name, _reason(skipped)] += 1
    missing = _MISSING.findall(log.read_text(errors="replace"))
    not_run = [f"{session}: {reason}" for session, reason in missing]
    for (module, reason), count in sorted(skips.items()):
        not_run.append(f"{module}, {count} skipped: {reason}")
    return Results(len(timed), sorted(timed, reverse=True)[:10], not_run)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a part and all in its process group; a second signal to the suite ends it at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _run(part: Part) -> Verdict:
    log, directory = _SUITE / f"{part.name}.log", _SUITE / f"{part.name}.results"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    tree_before = tree()
    began = time.monotonic()
    print(f"part {part.name}: started", flush=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *part.argv,
            cwd=ROOT,
            # tests/conftest.py has each pytest write its results there.
            env={**os.environ, "ARMFLEET_TEST_RESULTS": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
    seconds = time.monotonic() - began
    is_same_tree = tree() == tree_before
    result = "FAILED" if status else "ok" if is_same_tree else "ok, but the tree has changed"
    verdict = Verdict(part.name, result, seconds, _read(directory, log))
    print(f"part {part.name}: {result}, {seconds:.0f} s", flush=True)
    if status:
        print(log.read_text(errors="replace"), flush=True)
    elif is_same_tree and part not in SHARED:
        _remember(part, tree_before, verdict)
    return verdict


def _next(waiting: list[Part], running: Collection[Part], ended: Collection[str]) -> Part | None:
    """Return the first part that can start now."""
    is_sharing = any(part in SHARED for part in running)
    for part in waiting:
        if not (is_sharing and part in SHARED) and set(part.needs) <= set(ended):
            return part
    return None


async def _run_all(waiting: list[Part], verdicts: dict[str, Verdict]) -> None:
    """Run the parts, and add their verdicts."""
    suite = asyncio.current_task()
    assert suite

    def interrupt() -> None:
        print("suite: stopping the running parts; a second signal kills them", flush=True)
        suite.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    running: dict[asyncio.Task[Verdict], Part] = {}
    try:
        while waiting or running:
            while len(running) < _LANES and (
                part := _next(waiting, running.values(), verdicts.keys())
            ):
                waiting.remove(part)
                failed = [need for need in part.needs if not verdicts[need].is_passed]
                if failed:
                    result = f"not run, {failed[0]} failed"
                    verdicts[part.name] = Verdict(part.name, result, 0, _NOTHING)
                else:
                    running[asyncio.create_task(_run(part))] = part
            if running:
                ended, _others = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    verdicts[running.pop(task).name] = task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _print_table(verdicts: Collection[Verdict], seconds: float) -> None:
    print(f"\n{'part':20}{'seconds':>7}{'tests':>8}  result")
    for name, result, took, (tests, _slowest, _not_run) in verdicts:
        print(f"{name:20}{took:7.0f}{tests or '-':>8}  {result}")
    print(f"{'total':20}{seconds:7.0f}{sum(verdict.results.tests for verdict in verdicts):8}")
    slowest = [(*test, verdict.name) for verdict in verdicts for test in verdict.results.slowest]
    if slowest:
        print("\nThe slowest tests:")
    for took, test, name in sorted(slowest, reverse=True)[:10]:
        print(f"{took:7.1f} s  {name}: {test}")
    not_run = [(verdict.name, what) for verdict in verdicts for what in verdict.results.not_run]
    if not_run:
        print("\nNot run:")
    for name, what in not_run:
        print(f"  {name}: {what}")
    passed = sum(verdict.is_passed for verdict in verdicts)
    print(f"\nparts: {passed} passed, {len(verdicts) - passed} failed", flush=True)


def _tier(depth: str) -> int:
    """Return the exit status."""
    began = time.monotonic()
    _SUITE.mkdir(parents=True, exist_ok=True)
    now = tree()
    chosen = parts(depth)
    recalled = [_recall(part, now) for part in chosen] if depth == "nightly" else []
    verdicts = {verdict.name: verdict for verdict in recalled if verdict}
    for verdict in verdicts.values():
        print(f"part {verdict.name}: already passed on this tree")
    waiting = [part for part in chosen if part.name not in verdicts]
    for part in waiting:
        _stamp(part, now).unlink(missing_ok=True)
    needed = {need for part in waiting for need in part.needs}
    waiting = [part for part in SHARED if part.name in needed] + waiting
    print(f"parts to run: {len(waiting)}; their output is in {_SUITE}", flush=True)
    try:
        asyncio.run(_run_all(waiting, verdicts))
    except asyncio.CancelledError:
        print("suite: interrupted; all running parts have ended")
        return 130
    # Whichever of two parts ended first.
    in_order = [verdicts[part.name] for part in [*SHARED, *chosen] if part.name in verdicts]
    _print_table(in_order, time.monotonic() - began)
    return any(not verdict.is_passed for verdict in verdicts.values())


def _alone(name: str, depth: str, words: Sequence[str]) -> None:
    """Set up what a part needs, then replace this process by its command."""
    offered = [*SHARED, *parts(depth), *parts("nightly")]
    named = {part.name: part for part in reversed(offered)}
    if name not in named:
        sys.exit(f"suite: tools/parts.py has no part {name!r}; it has {', '.join(sorted(named))}")
    os.chdir(ROOT)
    part = named[name]
    for need in part.needs:
        status = subprocess.run(named[need].argv, check=False).returncode
        if status:
            sys.exit(status)
    os.execvp(part.argv[0], [*part.argv, *words])


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/suite.py")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("test", help="run all parts of make test")
    commands.add_parser("nightly", help="run the parts of make nightly that have not passed yet")
    alone = commands.add_parser("part", help="run one part alone")
    alone.add_argument("--depth", choices=("test", "nightly"), default="test")
    alone.add_argument("name", metavar="NAME")
    alone.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.command == "part":
        _alone(arguments.name, arguments.depth, arguments.arguments)
    return _tier(arguments.command)


if __name__ == "__main__":
    sys.exit(main())
