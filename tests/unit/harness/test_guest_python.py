"""A guest's Python runs what it is given as if it had started itself."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.harness
from tests.harness.guest_python.loaded_python import BY_ITSELF

PROGRAMS = Path(tests.harness.__file__).parent / "guest_python"
SERVER = """
import runpy, sys
import loaded_python
loaded_python.SOCKET = sys.argv[1]
runpy.run_module("serve_python", run_name="__main__", alter_sys=True)
"""
CLIENT = """
import sys
import loaded_python
loaded_python.SOCKET = sys.argv[1]
loaded_python._hand_over()
print("nobody took it over")
"""

# Python has the attribute since version 3.10, and some guests have an older one.
ASKED = f"""
import os, sys
vars(sys).pop("orig_argv", None)
os.geteuid = lambda: 0
by_itself = os.environ["{BY_ITSELF}"]
import loaded_python
if by_itself == "no":
    del os.environ["{BY_ITSELF}"]
print(loaded_python._is_for_ansible())
"""


class Python:
    """A client of a server that this test started."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.directory = socket.parent

    def start(self, program: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(self._socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(PROGRAMS), **environment},
        )
        assert process.stdin
        process.stdin.write(program)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, program: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(program, **environment)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Python]:
    socket = tmp_path_factory.mktemp("python") / "socket"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(socket)],
        env={**os.environ, "PYTHONPATH": str(PROGRAMS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        client = Python(socket)
        while client.run("")[1]:
            assert server.poll() is None
        yield client
        server.kill()


def test_a_program_has_the_surroundings_of_whoever_starts_it(python: Python) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['WHOSE'], sys.argv, __name__)"
    shown = f"{python.directory} mine [''] __main__\n"
    assert python.run(program, WHOSE="mine") == (0, shown, "")


@pytest.mark.parametrize(
    ("program", "code", "errors"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_it_ends_as_the_program_ends(python: Python, program: str, code: int, errors: str) -> None:
    assert python.run(program) == (code, "", errors)


def test_an_error_is_shown(python: Python) -> None:
    code, _output, errors = python.run("print(1 / 0)")
    assert code == 1
    assert "ZeroDivisionError" in errors


def test_a_program_ends_with_whoever_started_it(python: Python, tmp_path: Path) -> None:
    path = tmp_path / "alive"
    os.mkfifo(path)
    process = python.start(f"""
import signal
with open({str(path)!r}, "w") as alive:
    alive.write("yes")
    alive.flush()
    signal.pause()
""")
    with path.open() as alive:
        assert alive.read(3) == "yes"
        process.kill()
        process.wait()
        # The end of the file: nobody has it open any more.
        assert alive.read() == ""


@pytest.mark.parametrize(
    ("words", "by_itself", "expected"),
    [
        (["/usr/bin/python3"], "no", "True\n"),
        (["/usr/bin/python3"], "yes", "False\n"),
        (["/usr/bin/python3", "-"], "no", "False\n"),
        (["/usr/bin/python3", "-s"], "no", "False\n"),
        (["/usr/bin/python3.13"], "no", "False\n"),
        (["python3"], "no", "False\n"),
        (["/usr/bin/python3 "], "no", "False\n"),
    ],
)
def test_only_what_ansible_sends_is_handed_over(
    words: list[str], by_itself: str, expected: str
) -> None:
    """Ansible starts a Python without arguments, as root; the tests start some by themselves."""
    done = subprocess.run(
        words,
        executable=sys.executable,
        input=ASKED,
        capture_output=True,
        text=True,
        check=True,
        # Python looks for its library where its name says that it is.
        env={
            **os.environ,
            "PYTHONPATH": str(PROGRAMS),
            "PYTHONHOME": sys.base_prefix,
            BY_ITSELF: by_itself,
        },
    )
    assert done.stdout == expected


def of_ansible(version: str, padding: bytes) -> str:
    """Return a program that brings its module_utils as Ansible's modules do."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("ansible/__init__.py", "")
        files.writestr("ansible/module_utils/__init__.py", "")
        files.writestr(
            "ansible/module_utils/basic.py", f"import os\nWHO = {version!r}, os.getpid()"
        )
        files.writestr("ansible/module_utils/more.py", f"WHO = {version!r}")
        files.writestr("padding", padding)
    text = base64.b64encode(archive.getvalue()).decode()
    return f"""
import base64, os, sys
ZIP = {text!r}
with open("payload.zip", "wb") as file:
    file.write(base64.b64decode(ZIP))
sys.path.insert(0, os.path.abspath("payload.zip"))
from ansible.module_utils import basic, more
print(basic.WHO[0], more.WHO, basic.WHO[1] == os.getpid())
"""


def test_only_the_ansible_that_a_module_brings_is_loaded_already(python: Python) -> None:
    padding = os.urandom(4096)
    first, other = (of_ansible(version, padding) for version in ("first", "other"))
    for _again in range(2):
        assert python.run(first)[1:] == ("first first False\n", "")
        assert python.run(other)[1:] == ("other other True\n", "")
