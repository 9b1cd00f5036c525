# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python3 -m extensions.simulator: simulated hosts from boards' .dtb files."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import SimulatorError
from .host import Host, Plan, running, start
from .inventory import inventory, inventory_of_containers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, print an error as one line, and return the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        asked.act(asked)
    except SimulatorError as error:
        print(f"simulator: {error}", file=sys.stderr)
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
    stop = commands.add_parser("stop", help="stop hosts")
    stop.add_argument("names", nargs="+", help="names of the hosts")
    stop.set_defaults(act=_stop)
    told = commands.add_parser("inventory", help="print an inventory of the running hosts")
    told.add_argument("names", nargs="*", help="names of the hosts; all if omitted")
    told.add_argument(
        "--containers",
        action="store_true",
        help="list served hosts, with containers of the same names",
    )
    told.set_defaults(act=_inventory)
    commands.add_parser("status", help="list the running hosts").set_defaults(act=_status)
    return parser


def _start(asked: argparse.Namespace) -> None:
    start([Plan(asked.name, asked.dtb, asked.drivers, asked.is_only_served)])
    host = Host(asked.name)
    print(host.mount if asked.is_only_served else host.folder)


def _fleet(asked: argparse.Namespace) -> None:
    names = [re.sub(r"[^A-Za-z0-9_.-]", "-", board.stem) for board in asked.boards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SimulatorError(f"Two boards would be called {', '.join(twice)}")
    start(
        [Plan(name, board, asked.drivers) for name, board in zip(names, asked.boards, strict=True)]
    )
    sys.stdout.write(inventory([Host(name) for name in names]))


def _stop(asked: argparse.Namespace) -> None:
    for host in _chosen(asked.names):
        host.stop()


def _inventory(asked: argparse.Namespace) -> None:
    listing = inventory_of_containers() if asked.containers else inventory(_chosen(asked.names))
    sys.stdout.write(listing)


def _status(_asked: argparse.Namespace) -> None:
    for host in running():
        print(f"{host.name}  process {host.pid}  {host.folder}")


def _chosen(names: Sequence[str]) -> list[Host]:
    hosts = running()
    unknown = [name for name in names if name not in {host.name for host in hosts}]
    if unknown:
        raise SimulatorError(f"No host named {', '.join(unknown)} runs")
    return [host for host in hosts if not names or host.name in names]


if __name__ == "__main__":
    sys.exit(main())
