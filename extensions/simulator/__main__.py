# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python3 -m extensions.simulator: simulated hosts from boards' .dtb files."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import debian_dtb, network
from .control import ask
from .errors import SimulatorError
from .host import Host, Plan, running, start
from .inventory import inventory, inventory_of_containers
from .lines import printable

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, print an error as one line, and return the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        asked.act(asked)
    except SimulatorError as error:
        print(f"simulator: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m extensions.simulator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    host_options = argparse.ArgumentParser(add_help=False)
    host_options.add_argument("name", help="name of the host")
    host_options.add_argument(
        "--dtb", type=Path, help="device tree of the board; without it the board boots with ACPI"
    )
    host_options.add_argument("--acpi", type=Path, help="list of the ACPI devices of the board")
    host_options.add_argument(
        "--carries",
        action="append",
        default=[],
        metavar="LINE",
        help="disk, interface or console of a device, such as '/soc/mmc@1c0f000 mmcblk0 /'; repeat "
        "the option for each",
    )
    host_options.add_argument(
        "--drivers", type=Path, help="description of drivers and modules (YAML)"
    )
    begin = commands.add_parser("start", parents=[host_options], help="start a host")
    begin.set_defaults(act=_start, is_only_served=False)
    serve = commands.add_parser(
        "serve", parents=[host_options], help="serve a /sys for a container"
    )
    serve.set_defaults(act=_start, is_only_served=True)
    fleet = commands.add_parser("fleet", help="start a host for each of many boards")
    fleet.add_argument(
        "boards", nargs="+", type=Path, help="device trees; the hosts are named after them"
    )
    fleet.add_argument("--drivers", type=Path, help="description of drivers for all of them")
    fleet.set_defaults(act=_fleet)
    _add_commands_of_containers(commands)
    trees = commands.add_parser("debian-dtb", help="get the device tree of a board from Debian")
    trees.add_argument("board", nargs="?", help="name of the board; all are listed if omitted")
    trees.add_argument("--output", type=Path, help="file to write; BOARD.dtb if omitted")
    trees.add_argument("--suite", default=debian_dtb.SUITE, help="Debian suite (%(default)s)")
    trees.set_defaults(act=_get_device_tree)
    stop = commands.add_parser("stop", help="stop hosts")
    stop.add_argument("names", nargs="+", help="names of the hosts")
    stop.set_defaults(act=_stop)
    shown = commands.add_parser("inventory", help="print an inventory of the running hosts")
    shown.add_argument("names", nargs="*", help="names of the hosts; all if omitted")
    shown.add_argument(
        "--containers",
        action="store_true",
        help="list served hosts, with containers of the same names",
    )
    shown.set_defaults(act=_inventory)
    commands.add_parser("status", help="list the running hosts").set_defaults(act=_status)
    return parser


def _add_commands_of_containers(commands: _Commands) -> None:
    mounts = commands.add_parser("mounts", help="print where disks of a served host are mounted")
    mounts.add_argument("name", help="name of the host")
    mounts.set_defaults(act=_mounts)
    network = commands.add_parser(
        "network", help="create the interfaces of a served host in a container"
    )
    network.add_argument("name", help="name of the host")
    network.add_argument("pid", type=int, help="ID of a process of the container")
    network.set_defaults(act=_network)


def _start(asked: argparse.Namespace) -> None:
    plan = Plan(
        name=asked.name,
        device_tree=asked.dtb,
        drivers=asked.drivers,
        is_only_served=asked.is_only_served,
        uses=asked.carries,
        acpi=asked.acpi,
    )
    start([plan])
    host = Host(asked.name)
    _note_unused(plan, plan.name)
    print(host.mount if asked.is_only_served else host.directory)


def _fleet(asked: argparse.Namespace) -> None:
    names = [re.sub(r"[^A-Za-z0-9_.-]", "-", board.stem) for board in asked.boards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SimulatorError(f"Two boards would be called {', '.join(twice)}")
    plans = [
        Plan(name, board, asked.drivers) for name, board in zip(names, asked.boards, strict=True)
    ]
    start(plans)
    _note_unused(plans[0], "these hosts")
    sys.stdout.write(inventory([Host(name) for name in names]))


def _note_unused(plan: Plan, hosts: str) -> None:
    """Report that nothing is in use on hosts, if no disk or interface is described."""
    if not any(use.kind in ("block", "net") for use in plan.description().carries):
        print(
            f"simulator: No disk or network interface of {hosts} is in use, because none is "
            "described. Describe those of the real board with --carries, in molecule with "
            "`simulator_carries`: extensions/simulator/README.md.",
            file=sys.stderr,
        )


def _mounts(asked: argparse.Namespace) -> None:
    (host,) = _chosen([asked.name])
    for mount_point in ask(host.control, do="mount_points"):
        print(mount_point)


def _network(asked: argparse.Namespace) -> None:
    (host,) = _chosen([asked.name])
    interfaces = [network.Interface(*values) for values in ask(host.control, do="interfaces")]
    if interfaces:
        network.create_in(asked.pid, interfaces)


def _get_device_tree(asked: argparse.Namespace) -> None:
    if asked.board is None:
        print(*debian_dtb.boards(asked.suite), sep="\n")
        return
    source = debian_dtb.find(asked.board, asked.suite)
    output = asked.output or Path(source.name)
    try:
        shutil.copyfile(source, output)
    except OSError as error:
        raise SimulatorError(f"Cannot write {output}: {error.strerror}") from None
    print(output)


def _stop(asked: argparse.Namespace) -> None:
    for host in _chosen(asked.names):
        host.stop()


def _inventory(asked: argparse.Namespace) -> None:
    listing = inventory_of_containers() if asked.containers else inventory(_chosen(asked.names))
    sys.stdout.write(listing)


def _status(_asked: argparse.Namespace) -> None:
    for host in running():
        print(f"{host.name}  process {host.pid}  {host.directory}")


def _chosen(names: Sequence[str]) -> list[Host]:
    hosts = running()
    unknown = [name for name in names if name not in {host.name for host in hosts}]
    if unknown:
        raise SimulatorError(f"No host named {', '.join(unknown)} runs")
    return [host for host in hosts if not names or host.name in names]


if __name__ == "__main__":
    sys.exit(main())
