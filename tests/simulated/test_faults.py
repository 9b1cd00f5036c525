# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every write of a transaction over eight devices fails once with each possible errno."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system import file_writes
from extensions.simulator.machine import build
from extensions.simulator.watch import Fault, Write
from tests.simulated.counts import Counts
from tests.simulated.eight import DESCRIPTION, LIST, NAMES, SETTINGS, TREE
from tests.simulated.lab import Lab
from tests.simulated.traces import differences

# Errnos by the written file; see KERNEL.md, sections 1 to 3, and drivers/base/{bus,dd}.c.
ERRNOS = {
    "driver_override": ("EINVAL", "ENODEV", "ENOMEM", "EACCES", "EPERM", "EROFS"),
    "unbind": ("ENODEV", "ENOENT", "EACCES", "EPERM", "EROFS"),
    "bind": ("ENODEV", "ENOENT", "EBUSY", "EAGAIN", "EINVAL", "EIO", "ENOMEM", "EPERM", "EROFS"),
    "drivers_probe": ("ENODEV", "ENOMEM", "EACCES", "EPERM", "EROFS"),
    "enable_unsafe_noiommu_mode": ("EINVAL", "ENOENT", "EACCES", "EPERM", "EROFS"),
    "allow_unsafe_interrupts": ("EINVAL", "ENOENT", "EACCES", "EPERM", "EROFS"),
}
FILE_ERRNOS = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES")


class Run(NamedTuple):
    """A list to apply on a host where another one was applied before."""

    before: Sequence[dict[str, Any]]
    wanted: Sequence[dict[str, Any]]

    def prepare(self, directory: Path) -> Lab:
        lab = Lab(lambda: build(TREE, DESCRIPTION), directory)
        if self.before:
            lab.apply(self.before, **SETTINGS)
        lab.machine.watch.take()
        return lab


CLAIM, RELEASE = Run([], LIST), Run(LIST, [])


@pytest.fixture(autouse=True)
def _in_no_hurry_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def undisturbed(run: Run, directory: Path) -> list[Write]:
    lab = run.prepare(directory)
    lab.apply(run.wanted, **SETTINGS)
    return lab.machine.watch.take()


def assert_put_back(lab: Lab, run: Run, what: str) -> str:
    before = lab.everything()
    with pytest.raises(PolicyError) as caught:
        lab.apply(run.wanted, **SETTINGS)
    assert "Nothing was changed: all changes of this run were rolled back" in str(caught.value), (
        what
    )
    assert not differences(before, lab.everything()), what
    return str(caught.value)


@pytest.mark.parametrize("run", [CLAIM, RELEASE], ids=["claim", "release"])
def test_whichever_write_fails_all_is_put_back_and_the_message_says_which_and_why(
    tmp_path: Path, run: Run, depth: str, counts: Counts
) -> None:
    writes = undisturbed(run, tmp_path / "rehearsal")
    lab = run.prepare(tmp_path / "lab")
    chosen = range(1, len(writes) + 1, 5 if depth == "check" else 1)
    for number, write in enumerate(writes, start=1):
        if number not in chosen:
            continue
        counts.add("writes")
        for name in ERRNOS[write.path.rpartition("/")[2]]:
            counts.add("failures of a write")
            lab.machine.watch.arm(Fault(number, code=getattr(errno, name)))
            what = f"write {number} of {len(writes)}, {write.data!r} to {write.path}: {name}"
            message = assert_put_back(lab, run, what)
            assert_says_all(message, write, name)
    lab.apply(run.wanted, **SETTINGS)
    assert len({write.path for write in writes}) > len(NAMES)


def assert_says_all(message: str, write: Write, name: str) -> None:
    """Assert that the message has device, file, errno and remedy."""
    problem = message.splitlines()[0]
    directory, _slash, file = write.path.rpartition("/")
    reason = f"failed with {name} ({os.strerror(getattr(errno, name))})"
    assert f"/{file} {reason}" in problem
    assert "/sys/" in problem
    if "module/" not in write.path:
        is_override = file == "driver_override"
        device = directory.rpartition("/")[2] if is_override else write.data.decode().strip()
        assert f"device {device})" in problem
    assert len(problem.partition(reason)[2].strip(" .")) > 10, problem


@pytest.mark.parametrize("run", [CLAIM, RELEASE], ids=["claim", "release"])
@pytest.mark.parametrize("call", ["mkstemp", "fchmod", "fsync", "rename", "unlink"])
def test_whichever_file_cannot_be_written_all_is_put_back(
    tmp_path: Path, run: Run, call: str, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = file_writes.tempfile if call == "mkstemp" else os
    real = getattr(module, call)
    calls = left = 0
    code = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls, left
        calls += 1
        left -= 1
        if left == 0:
            raise OSError(code, os.strerror(code), "/etc")
        return real(*arguments, **options)

    monkeypatch.setattr(module, call, failing)
    lab = run.prepare(tmp_path / "rehearsal")
    calls = 0
    lab.apply(run.wanted, **SETTINGS)
    total = calls
    lab = run.prepare(tmp_path / "lab")
    for number in range(1, total + 1):
        for name in FILE_ERRNOS:
            counts.add("failures of a file")
            code, left = getattr(errno, name), number
            message = assert_put_back(lab, run, f"{call} {number}: {name}")
            assert any(path in message for path in (*last_applied.PATHS, "run/journal")), message
            reason = f"{os.strerror(code)} ({name}, /etc); "
            assert reason in message
            assert len(message.splitlines()[0].partition(reason)[2]) > 10
    left = 0
    assert not list((tmp_path / "lab").rglob(".armfleet-vfio-*"))
