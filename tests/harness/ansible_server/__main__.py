# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loads ansible-playbook once, and runs it in a fork of itself for each request.

The argument is the number of a listening socket. A request is a line of JSON with argv,
environment, current directory and the path of a file for the output; the answer is the exit status.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

from ansible.cli import playbook
from ansible.executor.process import worker
from ansible.plugins.strategy import linear

# Modules that the first task of each play would load.
LOADED = (worker, linear)


def _serve(listening: socket.socket) -> None:
    # The forks are not waited for: each sends its exit status itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _address = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    with connection.makefile() as stream:
        request = json.loads(stream.readline())
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = request["argv"]
    status = 1
    try:
        playbook.main(sys.argv)
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(b"%d" % status)
        os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
