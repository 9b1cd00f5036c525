# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a guest what Ansible sends to its Python, in forks of a process that has loaded Ansible.

Emulated, to start Python and import what each module needs takes longer than most modules do. What
is loaded is the module_utils of the first module that comes; a module with another Ansible, or with
none, loads its own. The collection's modules are never kept loaded.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import io
import marshal
import os
import re
import selectors
import signal
import socket
import sys
import types
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

from loaded_python import SOCKET

# What the collection's modules and Ansible's wrapper import of the standard library.
_LIBRARY = [
    "array",
    "ast",
    "bisect",
    "calendar",
    "collections.abc",
    "copy",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "difflib",
    "errno",
    "fcntl",
    "fnmatch",
    "functools",
    "grp",
    "hashlib",
    "heapq",
    "inspect",
    "ipaddress",
    "itertools",
    "json",
    "linecache",
    "locale",
    "logging",
    "mmap",
    "pathlib",
    "pkgutil",
    "platform",
    "pwd",
    "queue",
    "random",
    "resource",
    "runpy",
    "secrets",
    "select",
    "shlex",
    "shutil",
    "stat",
    "string",
    "struct",
    "subprocess",
    "syslog",
    "tempfile",
    "termios",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "typing",
    "unicodedata",
    "urllib.parse",
    "uuid",
    "warnings",
]
_LOADER = "ansible.module_utils._internal._ansiballz._loader"
_REQUEST_AT_MOST = 1 << 17


class Request(NamedTuple):
    """A Python program to be run, which stands at its standard input."""

    directory: bytes
    environment: dict[bytes, bytes]
    descriptors: list[int]

    @classmethod
    def receive(cls, connection: socket.socket) -> Request:
        content, descriptors, _flags, _address = socket.recv_fds(connection, _REQUEST_AT_MOST, 3)
        return cls(*marshal.loads(content), descriptors)


class _Path:
    """The path of a loaded package: where the archive of the module that runs has it."""

    def __init__(self, package: str) -> None:
        self._directory = package.replace(".", "/")

    def __iter__(self) -> Iterator[str]:
        return iter([f"{path}/{self._directory}" for path in sys.path if path.endswith(".zip")])


class LoadedAnsible:
    """The modules of Ansible that are loaded, by the checksums of their files."""

    def __init__(self) -> None:
        self._checksums: dict[str, int] = {}

    def load(self, source: bytes) -> None:
        """Load what a module that was sent brings with it, if nothing is loaded yet."""
        archive = None if self._checksums else _archive(source)
        if archive is None:
            return
        path = f"{SOCKET}.{os.getpid()}.zip"
        with open(path, "wb") as file:
            file.write(archive)
        sys.path.insert(0, path)
        with contextlib.suppress(ImportError):
            importlib.import_module("ansible.module_utils.basic")
            importlib.import_module(_LOADER)
        sys.path.remove(path)
        os.remove(path)
        for name, module in _modules().items():
            if hasattr(module, "__path__"):
                module.__path__ = _Path(name)
        present = _checksums(archive)
        files = [getattr(module, "__file__", "") for module in _modules().values()]
        names = [file.partition(".zip/")[2] for file in files]
        self._checksums = {name: present[name] for name in names if name}
        gc.freeze()

    def forget_unless_of(self, source: bytes) -> None:
        """Forget what is loaded unless a module brings the same."""
        archive = _archive(source)
        brought = {} if archive is None else _checksums(archive)
        if any(brought.get(name) != checksum for name, checksum in self._checksums.items()):
            for name in _modules():
                del sys.modules[name]


def _modules() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "ansible"}


def _checksums(archive: bytes) -> dict[str, int]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {info.filename: info.CRC for info in opened.infolist()}


def _archive(source: bytes) -> bytes | None:
    """Return the archive that Ansible sends in a module's source."""
    texts = re.findall(rb"[A-Za-z0-9+/=]{4096,}", source)
    return base64.b64decode(max(texts, key=len)) if texts else None


def serve() -> bytes:
    """Fork for each request, and return in the fork the program that it has to run."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(SOCKET)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(SOCKET)
    os.chmod(SOCKET, 0o600)
    listening.listen()
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(ended, selectors.EVENT_READ)
    ansible = LoadedAnsible()
    clients: dict[int, socket.socket] = {}
    while True:
        for key, _events in selector.select():
            if key.fileobj is listening:
                connection, _address = listening.accept()
                request = Request.receive(connection)
                source = _read(request.descriptors[0])
                ansible.load(source)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    for opened in (listening, connection, *clients.values()):
                        opened.close()
                    _become(request)
                    ansible.forget_unless_of(source)
                    return source
                for descriptor in request.descriptors:
                    os.close(descriptor)
                clients[pid] = connection
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.fileobj == ended:
                os.read(ended, 4096)
                _answer(clients, selector)
            elif key.data in clients:
                # A client sends nothing more: it has ended, and its module ends with it.
                os.kill(key.data, signal.SIGKILL)
                selector.unregister(key.fileobj)


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as stream:
        return stream.read()


def _become(request: Request) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(request.descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request.directory)
    os.environb.clear()
    os.environb.update(request.environment)


def _answer(clients: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Send the exit statuses of the forks that ended."""
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        connection = clients.pop(pid)
        with contextlib.suppress(KeyError):
            selector.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        connection.close()


if __name__ == "__main__":
    for _name in _LIBRARY:
        importlib.import_module(_name)
    _program = serve()
    sys.argv = [""]
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(_program, "<stdin>", "exec"), vars(sys.modules["__main__"]))
