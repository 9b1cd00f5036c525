# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start simulated boards in one inventory, choose their lists, and read their /sys."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from extensions.simulator.dtb import read_file
from extensions.simulator.host import Host, Plan, start
from extensions.simulator.inventory import inventory
from extensions.simulator.machine import build

_LONGEST_LIST = 5


class Fleet(NamedTuple):
    """Running boards by name, and an inventory of these and other hosts."""

    boards: Mapping[str, Host]
    inventory: Path

    def on_vfio(self) -> dict[str, int]:
        """Return how many devices of each board are bound to VFIO, read from its /sys."""
        return {name: len(on_vfio(board)) for name, board in self.boards.items()}


@contextmanager
def fleet(
    directory: Path,
    plans: Sequence[Plan],
    variables: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Fleet]:
    """Run boards; ``variables`` are those of all hosts, ``others`` are further hosts by group."""
    hosts = start(plans)
    try:
        content = yaml.safe_load(inventory(hosts))
        for group, more in (others or {}).items():
            content.setdefault(group, {}).setdefault("hosts", {}).update(more)
        content["all"] = {"vars": dict(variables)}
        path = directory / "hosts.yml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        yield Fleet({host.name: host for host in hosts}, path)
    finally:
        for host in hosts:
            host.stop()


def root(board: Host) -> Path:
    """Return the root directory of the board, as a path of this machine."""
    return Path(f"/proc/{board.pid}/root")


def passthrough_list(plan: Plan) -> list[dict[str, Any]]:
    """Return entries that bind to VFIO some devices that are not in use."""
    assert plan.device_tree
    devices = build(read_file(plan.device_tree)).kernel.devices.values()
    parents = {str(parent) for device in devices for parent in PurePosixPath(device.home).parents}
    free = [
        str(device.of_path)
        for device in devices
        if device.driver
        and not device.carries
        and device.home not in parents
        and not any(link.status == "active" for link in device.consumers)
    ]
    chosen = random.Random(plan.name).sample(free, min(_LONGEST_LIST, len(free)))
    return [{"dt_path": path, "policy": "vfio"} for path in chosen]


def on_vfio(board: Host) -> set[Path]:
    """Return the directories in the board's /sys of the devices that are bound to VFIO."""
    return {
        device
        for driver in ("platform/drivers/vfio-platform", "amba/drivers/vfio-amba")
        for device in (root(board) / "sys/bus" / driver).glob("*")
        if device.joinpath("driver_override").exists()
    }


def dt_path(device: Path) -> str:
    """Return the device tree path of a device's node."""
    return str(device.joinpath("of_node").readlink()).partition("/devicetree/base")[2]


def run_on(board: Host, *command: str) -> str:
    """Return the output of a command on the board, which must succeed."""
    entered = ["nsenter", "--target", str(board.pid), "--mount", "--uts", "--pid", "--", *command]
    return subprocess.run(entered, stdout=subprocess.PIPE, text=True, check=True).stdout


def put_file_for_directory(board: Host, directory: str) -> None:
    """Replace the directory of the board by a file."""
    path = root(board) / directory[1:]
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def fill(board: Host, directory: str) -> None:
    """Mount a full file system on that directory of the board."""
    (root(board) / directory[1:]).mkdir(parents=True, exist_ok=True)
    run_on(board, "mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", directory)
    (root(board) / directory[1:] / "everything").write_bytes(bytes(4096))
