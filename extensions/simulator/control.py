# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to a machine through a socket: a line of JSON, and one as the answer."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

from .errors import SimulatorError
from .machine import Machine
from .watch import Fault


def listen(machine: Machine, socket_path: Path) -> None:
    """Answer requests at ``socket_path`` in a thread."""
    server = _Server(str(socket_path), _Handler)
    server.machine = machine
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(socket_path: Path, **request: Any) -> Any:
    """Return the answer of the machine at ``socket_path``; raise SimulatorError if none comes."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                return json.loads(stream.readline())
    except OSError as error:
        raise SimulatorError(f"No simulated machine answers at {socket_path}: {error}") from None


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    machine: Machine


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        answer = _answer(self.server.machine, request.pop("do"), request)
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _answer(machine: Machine, verb: str, request: dict[str, Any]) -> Any:
    if verb == "writes":
        return [
            (write.path, write.data.decode("latin-1"), write.code) for write in machine.watch.take()
        ]
    if verb == "fault":
        return machine.watch.arm(Fault(**request))
    if verb == "interfaces":
        return machine.interfaces()
    if verb == "mount_points":
        return machine.mount_points()
    return None
