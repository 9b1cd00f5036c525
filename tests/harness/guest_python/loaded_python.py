# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hands what Ansible sends to a guest's Python over to one that has loaded Ansible.

Python imports this before anything else. If no server answers, Python goes on by itself.
"""

from __future__ import annotations

# Neither socket nor signal, whose import costs a tenth of what is saved.
import _socket
import marshal
import os
import sys
from typing import NoReturn

SOCKET = "/run/armfleet-test-python"
# Set to anything, Python runs what it is given by itself.
BY_ITSELF = "ARMFLEET_TEST_PYTHON_BY_ITSELF"


def _hand_over() -> None:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.connect(SOCKET)
    except OSError:
        return
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    request = marshal.dumps((os.getcwdb(), dict(os.environb)))
    connection.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    _end(int(connection.recv(16) or b"1"))


def _end(status: int) -> NoReturn:
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def _command_line() -> bytes:
    """Return the words that this process was started with, each with a NUL after it.

    Python itself tells them only since version 3.10, as sys.orig_argv.
    """
    try:
        descriptor = os.open("/proc/self/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _is_for_ansible() -> bool:
    """Return whether it is a Python without arguments, which gets a module on standard input."""
    return (
        _command_line() == b"/usr/bin/python3\0"
        and os.geteuid() == 0
        and BY_ITSELF not in os.environ
    )


if _is_for_ansible():
    _hand_over()
