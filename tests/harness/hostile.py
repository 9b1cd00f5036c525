# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated board whose Python interpreter returns any module result that a test sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.simulated.fleet import Fleet, root

_PLACE = "/usr/local/bin/hostile"
_ORDERS = "/hostile.json"
# Runs the module, so that a forged result can differ from the real one in a single field.
_INTERPRETER = f"""\
#!/usr/bin/python3
import json, subprocess, sys

with open({_ORDERS!r}) as stream:
    orders = json.load(stream)
code = sys.stdin.buffer.read()
done = subprocess.run(["/usr/bin/python3"], input=code, stdout=subprocess.PIPE)
sys.stderr.write(orders["stderr"])
if orders["text"] is None:
    orders["text"] = json.dumps({{**json.loads(done.stdout), **orders["answer"]}})
sys.stdout.write(orders["text"])
sys.exit(orders["code"])
"""


_SHELL = f"""\
#!/usr/bin/python3
import json, os, re, sys

with open({_ORDERS!r}) as stream:
    orders = json.load(stream)
command = sys.argv[-1]
for marks, reported in orders["commands"]:
    if all(mark in command for mark in marks):
        sys.stdout.buffer.write(reported["stdout"].encode("utf-8", "surrogatepass"))
        sys.stderr.write(reported["stderr"])
        sys.exit(reported["code"])
# An interpreter that only this host knows is Python all the same.
command = re.sub(r"/[^ ']*hostile-python[^ ']*", "/usr/bin/python3", command)
os.execv("/usr/bin/dash", ["sh", *sys.argv[1:-1], command])
"""


def take_over_shell(boards: Fleet, name: str) -> None:
    """Replace the shell of a board by one that answers commands as `answer` sets it."""
    shell = root(boards.boards[name]) / "usr/bin/sh"
    shell.unlink()
    shell.write_text(_SHELL)
    shell.chmod(0o755)


def leave_shell(boards: Fleet, name: str) -> None:
    """Restore the shell of a board."""
    shell = root(boards.boards[name]) / "usr/bin/sh"
    shell.unlink()
    shell.symlink_to("dash")


def take_over(boards: Fleet, name: str) -> None:
    """Give a board the hostile interpreter; its results are real until `answer` changes them."""
    interpreter = root(boards.boards[name]) / _PLACE[1:]
    interpreter.parent.mkdir(parents=True, exist_ok=True)
    interpreter.write_text(_INTERPRETER)
    interpreter.chmod(0o755)
    variables = boards.inventory.parent / f"host_vars/{name}.yml"
    variables.parent.mkdir(exist_ok=True)
    variables.write_text(yaml.safe_dump({"ansible_python_interpreter": _PLACE}))
    answer(boards, name)


def answer(
    boards: Fleet,
    name: str,
    fields: Mapping[str, Any] | None = None,
    *,
    text: str | None = None,
    stderr: str = "",
    code: int = 0,
    commands: Sequence[tuple[Sequence[str], Mapping[str, Any]]] = (),
) -> None:
    """Let a board answer each module with its real result and ``fields``, or with ``text``.

    ``commands`` are for a replaced shell: pairs of texts and an answer (``stdout``, ``stderr``
    and ``code``). A command gets the answer of the first pair whose texts it all contains.
    """
    reported = [
        (marks, {"stdout": "", "stderr": "", "code": 0, **what}) for marks, what in commands
    ]
    orders = {
        "answer": fields or {},
        "text": text,
        "stderr": stderr,
        "code": code,
        "commands": reported,
    }
    path: Path = root(boards.boards[name]) / _ORDERS[1:]
    path.write_text(json.dumps(orders))
