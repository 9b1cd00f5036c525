# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run over devices of a kind is killed before and after each of its changes, and repeated.

The next run rolls back the killed one, reports that, and applies its list.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from extensions.simulator.control import ask
from extensions.simulator.host import Host, Plan, start
from tests.simulated import crashing, eight, functions
from tests.simulated.boards import flattened
from tests.simulated.counts import Counts
from tests.simulated.crashing import Child, Wish

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)


class Point(NamedTuple):
    """The write to /sys or the change to a file at which a run is killed."""

    number: int
    is_file: bool = False
    is_after: bool = False


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    """Yield processes without threads, which can fork hosts and runs; no test has run in them."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawned) as pool:
        yield pool


class Scene(NamedTuple):
    """A board, the list that was applied before, and the list that a run applies.

    ``tree`` is the device tree, None with ACPI; ``names`` are the devices whose states count.
    """

    tree: Path | None
    description: Path
    names: Sequence[str]
    settings: Mapping[str, Any]
    before: Sequence[dict[str, Any]]
    entries: Sequence[dict[str, Any]]

    @contextmanager
    def host(self, name: str) -> Iterator[Host]:
        (host,) = start([Plan(f"crash-{name}", self.tree, self.description)])
        try:
            if self.before:
                self.begin(host, self.before).finish()
            ask(host.control, do="writes")
            yield host
        finally:
            host.stop()

    def begin(
        self, host: Host, entries: Sequence[dict[str, Any]], *, times: int = 1, kill_at: int = 0
    ) -> Child:
        assert host.pid
        return crashing.begin(host.pid, Wish(entries, self.settings, times, kill_at))


class Ends(NamedTuple):
    """The state of a host after the list was applied, and after all devices were released."""

    applied: dict[str, str]
    released: dict[str, str]


def seen(host: Host, names: Sequence[str]) -> dict[str, str]:
    """Return drivers, overrides, modules, files and links of the host, read from its root."""
    root = Path(f"/proc/{host.pid}/root")
    state = {}
    for name in names:
        # A virtual function may not be there.
        for device in root.glob(f"sys/bus/*/devices/{name}"):
            driver = device / "driver"
            state[f"{name} driver"] = driver.readlink().name if driver.is_symlink() else "none"
            for attribute in ("driver_override", "sriov_numvfs", "sriov_drivers_autoprobe"):
                if (device / attribute).exists():
                    state[f"{name} {attribute}"] = (device / attribute).read_text()
    state["modules"] = " ".join(sorted(module.name for module in root.glob("sys/module/*")))
    for kind in ("udev/rules.d", "modprobe.d", "modules-load.d"):
        for file in root.glob(f"etc/{kind}/*armfleet*"):
            state[file.name] = file.read_text()
    for kept in root.glob("var/lib/armfleet-vfio/*"):
        # When a rollout changed the list is not what it changed.
        state[kept.name] = re.sub(r'"time": "[^"]*"', "", kept.read_text())
    for link in root.glob("dev/vfio/**/by-*/*"):
        state[str(link.relative_to(root))] = str(link.readlink())
    state["run"] = " ".join(sorted(file.name for file in root.glob("run/armfleet-vfio/*")))
    return state


def different(now: dict[str, str], expected: dict[str, str]) -> list[object]:
    return [
        (key, now.get(key), expected.get(key))
        for key in sorted(now.keys() | expected.keys())
        if now.get(key) != expected.get(key)
    ]


def crash(scene: Scene, ends: Ends, point: Point) -> list[object]:
    """Kill a run at the point, repeat it twice, and return what differs from undisturbed runs."""
    name = f"{'file' if point.is_file else 'write'}-{point.number}-{int(point.is_after)}"
    with scene.host(name) as host:
        child = scene.begin(host, scene.entries, kill_at=point.number if point.is_file else 0)
        if not point.is_file:
            kill = {"number": point.number, "kill": [child.pid], "is_after": point.is_after}
            ask(host.control, do="fault", **kill)
        assert child.finish() == []
        again = scene.begin(host, scene.entries, times=2).finish()
        now = seen(host, scene.names)
        scene.begin(host, []).finish()
        released = seen(host, scene.names)
    reported = [(outcome.is_changed, outcome.is_interruption_reported) for outcome in again]
    wrong: list[object] = [] if reported == [(True, True), (False, False)] else [again]
    wrong += different(now, ends.applied)
    wrong += different(released, ends.released)
    return [point, *wrong] if wrong else []


def rehearse(scene: Scene) -> tuple[int, int, Ends]:
    """Return how many writes and changes to files an undisturbed run makes, and its ends."""
    with scene.host("rehearsal") as host:
        (outcome,) = scene.begin(host, scene.entries).finish()
        assert outcome.is_changed
        writes = len(ask(host.control, do="writes"))
        applied = seen(host, scene.names)
        scene.begin(host, []).finish()
        return writes, outcome.files, Ends(applied, seen(host, scene.names))


def scene_of_devices(directory: Path, before: Any, entries: Any) -> Scene:
    tree, description = directory / "board.dtb", directory / "board.yml"
    tree.write_bytes(flattened(eight.TREE))
    description.write_text(eight.YAML)
    return Scene(tree, description, eight.NAMES, eight.SETTINGS, before, entries)


def scene_of_functions(directory: Path, before: Any, entries: Any) -> Scene:
    description = directory / "board.yml"
    description.write_text(functions.YAML)
    return Scene(None, description, functions.NAMES, functions.SETTINGS, before, entries)


@pytest.mark.parametrize("is_release", [False, True], ids=["claim", "release"])
@pytest.mark.parametrize(
    ("make", "listed"),
    [(scene_of_devices, eight.LIST), (scene_of_functions, functions.LIST)],
    ids=["devices", "functions"],
)
def test_wherever_a_run_is_killed_the_next_one_converges(
    workers: Executor,
    tmp_path: Path,
    depth: str,
    counts: Counts,
    make: Callable[..., Scene],
    listed: list[dict[str, Any]],
    *,
    is_release: bool,
) -> None:
    before, entries = (listed, []) if is_release else ([], listed)
    scene = make(tmp_path, before, entries)
    writes, files, ends = workers.submit(rehearse, scene).result()
    chosen = points_at(depth, points_of(writes, files))
    wrong = list(workers.map(partial(crash, scene, ends), chosen))
    counts["points where it was killed"] = len(chosen)
    counts["writes to /sys"] = writes
    counts["changes to files"] = files
    assert writes > len(listed)
    assert files >= 3
    assert not list(filter(None, wrong))


def points_of(writes: int, files: int) -> list[Point]:
    """Return every point at which a run with this number of changes can be killed."""
    return [
        *(Point(number) for number in range(1, writes + 1)),
        *(Point(number, is_after=True) for number in range(1, writes + 1)),
        *(Point(number, is_file=True) for number in range(1, files + 1)),
    ]


def points_at(depth: str, points: list[Point]) -> list[Point]:
    """Return the points of a depth.

    /sys is the same after a write and before the next one, and the journal differs by at most one
    record: make test has every fourth point before a change, and every eighth after a write.
    """
    return {
        "check": points[::12],
        "test": [point for point in points if point.number % (8 if point.is_after else 4) == 0],
        "nightly": points,
    }[depth]
