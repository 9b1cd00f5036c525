# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run over eight devices is killed before and after every change that it makes, and run again.

The run after it undoes what it did, says so, and does its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.simulated import crashing
from tests.simulated.boards import flattened
from tests.simulated.counts import Counts
from tests.simulated.eight import LIST, NAMES, SETTINGS, TREE, YAML
from tests.simulator.control import ask
from tests.simulator.host import Host, Plan, start

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)


class Point(NamedTuple):
    """Where a run is killed: at a write to /sys, or at a change to a file."""

    number: int
    is_file: bool = False
    is_after: bool = False


class Scene(NamedTuple):
    """Applies ``entries`` after ``before`` on hosts of its own."""

    board: Path
    before: Sequence[dict[str, Any]]
    entries: Sequence[dict[str, Any]]

    @contextmanager
    def host(self, name: str) -> Iterator[Host]:
        (host,) = start([Plan(f"crash-{name}", self.board, self.board.with_suffix(".yml"))])
        try:
            if self.before:
                finish(begin(host, self.before))
            ask(host.control, do="writes")
            yield host
        finally:
            host.stop()


class Ends(NamedTuple):
    """The host when the list was applied, and when all was given back after that."""

    applied: dict[str, str]
    released: dict[str, str]


class Child(NamedTuple):
    """A run that waits for its go; ``pid`` is its number on the host."""

    process: subprocess.Popen[str]
    pid: int


def begin(
    host: Host, entries: Sequence[dict[str, Any]], *, times: int = 1, kill_at: int = 0
) -> Child:
    path = ":".join(one for one in sys.path if one)
    process = subprocess.Popen(
        [
            *("nsenter", "--target", str(host.pid), "--mount", "--uts", "--pid", "--"),
            *("env", f"PYTHONPATH={path}", sys.executable, str(crashing.__file__)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    asked = {"entries": list(entries), "times": times, "kill_at": kill_at, **SETTINGS}
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return Child(process, int(process.stdout.readline()))


def finish(child: Child) -> list[list[int]]:
    """What it printed until it ended."""
    output, _errors = child.process.communicate("go\n", timeout=120)
    return [json.loads(line) for line in output.splitlines()]


def seen(host: Host) -> dict[str, str]:
    """Drivers, overrides, modules, files and links of the host, through its own root."""
    root = Path(f"/proc/{host.pid}/root")
    found = {}
    for name in NAMES:
        (device,) = root.glob(f"sys/bus/*/devices/{name}")
        driver = device / "driver"
        found[f"{name} driver"] = driver.readlink().name if driver.is_symlink() else "none"
        found[f"{name} override"] = (device / "driver_override").read_text()
    found["modules"] = " ".join(sorted(one.name for one in root.glob("sys/module/*")))
    for folder in ("udev/rules.d", "modprobe.d", "modules-load.d"):
        for file in root.glob(f"etc/{folder}/*armfleet*"):
            found[file.name] = file.read_text()
    for kept in root.glob("var/lib/armfleet-vfio/*"):
        found[kept.name] = kept.read_text()
    for link in root.glob("dev/vfio/**/by-*/*"):
        found[str(link.relative_to(root))] = str(link.readlink())
    found["run"] = " ".join(sorted(one.name for one in root.glob("run/armfleet-vfio/*")))
    return found


def different(now: dict[str, str], expected: dict[str, str]) -> list[object]:
    return [
        (key, now.get(key), expected.get(key))
        for key in sorted(now.keys() | expected.keys())
        if now.get(key) != expected.get(key)
    ]


def crash(scene: Scene, ends: Ends, point: Point) -> list[object]:
    """Kill a run at the point, then run it twice: what is not as without the kill."""
    name = f"{'file' if point.is_file else 'write'}-{point.number}-{int(point.is_after)}"
    with scene.host(name) as host:
        child = begin(host, scene.entries, kill_at=point.number if point.is_file else 0)
        if not point.is_file:
            kill = {"number": point.number, "kill": [child.pid], "is_after": point.is_after}
            ask(host.control, do="fault", **kill)
        assert finish(child) == []
        again = finish(begin(host, scene.entries, times=2))
        now = seen(host)
        finish(begin(host, []))
        released = seen(host)
    told = [(bool(changed), bool(interrupted)) for changed, _files, interrupted in again]
    wrong: list[object] = [] if told == [(True, True), (False, False)] else [again]
    wrong += different(now, ends.applied)
    wrong += different(released, ends.released)
    return [point, *wrong] if wrong else []


@pytest.mark.parametrize("is_release", [False, True], ids=["claim", "release"])
def test_wherever_a_run_is_killed_the_next_one_converges(
    tmp_path: Path, depth: str, counts: Counts, *, is_release: bool
) -> None:
    (tmp_path / "board.dtb").write_bytes(flattened(TREE))
    (tmp_path / "board.yml").write_text(YAML)
    before, entries = (LIST, []) if is_release else ([], LIST)
    scene = Scene(tmp_path / "board.dtb", before, entries)
    with scene.host("rehearsal") as host:
        ((is_changed, files, _interrupted),) = finish(begin(host, entries))
        assert is_changed
        writes = len(ask(host.control, do="writes"))
        applied = seen(host)
        finish(begin(host, []))
        ends = Ends(applied, seen(host))
    points = [
        *(Point(number) for number in range(1, writes + 1)),
        *(Point(number, is_after=True) for number in range(1, writes + 1)),
        *(Point(number, is_file=True) for number in range(1, files + 1)),
    ]
    chosen = points[:: 12 if depth == "check" else 1]
    # A host is begun by a fork, which a process with threads must not do.
    processes = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), processes) as workers:
        wrong = list(workers.map(partial(crash, scene, ends), chosen))
    counts["points where it was killed"] = len(chosen)
    counts["writes to /sys"] = writes
    counts["changes to files"] = files
    assert writes >= 2 * len(NAMES)
    assert files >= 3
    assert not list(filter(None, wrong))
