# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ansible-playbook in forks of a process that has loaded it, because loading is slow."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = Path(__file__).with_name("ansible_server")


def run(argv: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
    """Run ansible-playbook with these arguments; return its exit status.

    Its standard output and error go to the file ``output``.
    """
    # Settings that Ansible reads once, when it is loaded.
    settings = {name: value for name, value in environment.items() if name.startswith("ANSIBLE_")}
    program = shutil.which("ansible-playbook", path=environment.get("PATH"))
    assert program, "ansible-playbook is not in PATH"
    socket_path = _server(
        program, json.dumps(settings, sort_keys=True), environment.get("PYTHONPATH")
    )
    request = {
        "argv": [program, *argv],
        "environment": dict(environment),
        "directory": str(Path.cwd()),
        "output": str(output),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(socket_path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().read()
    return int(answer) if answer else -signal.SIGKILL


@functools.cache
def _server(program: str, settings: str, _python_path: str | None) -> str:
    """Start a process that has loaded this Ansible with these settings; return its socket."""
    directory = tempfile.mkdtemp(prefix="armfleet-ansible-")
    path = f"{directory}/socket"
    interpreter = Path(program).read_text().splitlines()[0].removeprefix("#!")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen()
    process = subprocess.Popen(
        [interpreter, str(_SERVER), str(listening.fileno())],
        env={**os.environ, **json.loads(settings)},
        stdin=subprocess.DEVNULL,
        pass_fds=[listening.fileno()],
    )
    listening.close()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(process.wait)
    atexit.register(process.terminate)
    return path
