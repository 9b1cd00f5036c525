# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tests' gateway to a simulated /sys behaves as the collection's does on a mounted one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import (
    KernelRefusedError,
    Sysfs,
)
from extensions.simulator.description import Description
from extensions.simulator.host import Host, Plan, start
from extensions.simulator.machine import Machine, build
from tests.harness.simulated_gateways import SimulatedSysfs, everything
from tests.simulated.boards import Part, device_tree, flattened

NAME = "test-doors"
PARTS = (
    Part("net", False, True, True, False, None),
    Part("crypto", True, True, False, True, 0),
)
PLATFORM = "bus/platform/devices/1000.net"
AMBA = "bus/amba/devices/2000.crypto"
BIND = "bus/platform/drivers/acme-net-v0/bind"
WRITES = [
    (f"{PLATFORM}/driver_override", "vfio-platform"),
    (f"{PLATFORM}/driver_override", "\n"),
    (f"{PLATFORM}/driver/unbind", "1000.net"),
    (f"{PLATFORM}/driver/unbind", "1000.net"),
    (BIND, "2000.crypto"),
    (BIND, "1000.net"),
    (BIND, "1000.net"),
    (f"{AMBA}/driver_override", "none"),
    (f"{AMBA}/subsystem/drivers_probe", "2000.crypto"),
    (f"{AMBA}/modalias", "x"),
    ("bus/platform/drivers_autoprobe", "0"),
    ("bus/platform/drivers_probe", "nobody"),
]

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)


@pytest.fixture
def machine() -> Machine:
    return build(device_tree(PARTS), Description())


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Mount the same machine, which another process serves."""
    (tmp_path / "board.dtb").write_bytes(flattened(device_tree(PARTS)))
    (host,) = start([Plan(NAME, tmp_path / "board.dtb", is_only_served=True)])
    yield Host(NAME).mount
    host.stop()


def seen(top: Path) -> dict[str, str]:
    """Return what everything() returns for a machine in this process."""
    entries = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(directory, name)
            entries[str(path.relative_to(top))] = shown(path)
    # The simulated modprobe is not part of the machine.
    del entries["modprobe"]
    del entries["dev"], entries["sys"]
    return {path: content for path, content in entries.items() if path != "dev/vfio"}


def shown(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"-> {path.readlink()}"
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    mode = stat.S_IMODE(status.st_mode)
    return f"{mode:04o} {path.read_bytes() if mode & 0o444 else b''!r}"


def outcome(gateway: Sysfs, path: str, text: str) -> int | None:
    """Return the errno of the write, or None if it succeeds."""
    try:
        gateway.write(path, text)
    except KernelRefusedError as error:
        return error.code
    return None


def test_both_doors_give_the_same_answers_and_show_the_same(
    machine: Machine, mounted: Path
) -> None:
    doors = SimulatedSysfs(machine), Sysfs(str(mounted / "sys"))
    assert seen(mounted) == everything(machine)
    answers = [[outcome(gateway, path, text) for path, text in WRITES] for gateway in doors]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) >= 3
    assert seen(mounted) == everything(machine)
