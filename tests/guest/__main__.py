# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python3 -m tests.guest COMMAND"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from .artefacts import say
from .board import BOARDS
from .build import build
from .errors import GuestError
from .guest import Guest
from .inventory import inventory_text
from .machine import Machine, started_names
from .packages import DEFAULT_SERIES, SERIES
from .userlands import DEFAULT_SUITE, USERLANDS


def _build(arguments: argparse.Namespace) -> None:
    if arguments.board:
        Guest("unused", arguments.board, arguments.kernel, arguments.userland).prepare()
    else:
        build(SERIES[arguments.kernel], USERLANDS[arguments.userland])


def _start(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    guest = Guest(arguments.name, arguments.board, arguments.kernel, arguments.userland)
    guest.start(fresh=arguments.fresh)
    say("guest: %s is up on port %d (%d s)" % (guest.name, guest.port, time.monotonic() - began))


def _stop(arguments: argparse.Namespace) -> None:
    Guest(arguments.name).stop()


def _reboot(arguments: argparse.Namespace) -> None:
    Guest.running(arguments.name).reboot()


def _ssh(arguments: argparse.Namespace) -> None:
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    argv = Guest.running(arguments.name).ssh_argv(" ".join(words))
    os.execvp(argv[0], argv)


def _status(_arguments: argparse.Namespace) -> None:
    for name in started_names():
        machine = Machine(name)
        running = machine.running()
        if running:
            told = "runs, board %s, Linux %s, port %d, pid %s" % (
                *(running.board, running.kernel),
                *(running.port, machine.pid()),
            )
        else:
            told = "stopped"
        print("%s: %s" % (name, told))


def _inventory(arguments: argparse.Namespace) -> None:
    print(inventory_text([Guest.running(name) for name in arguments.names]), end="")


def _console(arguments: argparse.Namespace) -> None:
    print(Guest(arguments.name).console(), end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.guest", description=__doc__)
    commands = parser.add_subparsers(dest="chosen", required=True, metavar="COMMAND")
    for action, purpose in (
        (_build, "make everything that a guest needs"),
        (_start, "start a guest as it is right after its first boot, unless it runs"),
        (_stop, "end a guest"),
        (_reboot, "reboot a guest from the inside and wait for it"),
        (_ssh, "log in, or run a command"),
        (_status, "list the guests"),
        (_inventory, "print an Ansible inventory of running guests"),
        (_console, "print what a guest wrote to its serial line"),
    ):
        command = commands.add_parser(action.__name__[1:], help=purpose)
        command.set_defaults(action=action)
        if action is _inventory:
            command.add_argument("names", metavar="NAME", nargs="+")
        elif action not in (_build, _status):
            command.add_argument("name", metavar="NAME")
        if action is _start:
            command.add_argument("--board", choices=sorted(BOARDS), default="a")
            command.add_argument("--fresh", action="store_true", help="start over if it runs")
        if action is _build:
            command.add_argument(
                "--board", choices=sorted(BOARDS), help="boot this board once, too, and save it"
            )
        if action in (_build, _start):
            command.add_argument(
                "--kernel", choices=sorted(SERIES), default=DEFAULT_SERIES, help="series of Linux"
            )
            command.add_argument(
                "--userland", choices=list(USERLANDS), default=DEFAULT_SUITE, help="Debian suite"
            )
        if action is _ssh:
            command.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def main() -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args()
    # As Ctrl-C does, so that what was begun is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.action(arguments)
    except GuestError as error:
        print("guest: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
