# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated board whose Python interpreter answers a module with whatever its owner likes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.simulated.fleet import Fleet, root

_PLACE = "/usr/local/bin/hostile"
_ORDERS = "/hostile.json"
# It runs the module, so that a lie may differ from the truth in one field alone.
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


def take_over(boards: Fleet, name: str) -> None:
    """Give a board of ``boards`` that interpreter; it is honest until it is told to `answer`."""
    place = root(boards.boards[name]) / _PLACE[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(_INTERPRETER)
    place.chmod(0o755)
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
) -> None:
    """Let a board answer each module with ``fields`` over its honest ones, or with ``text``."""
    orders = {"answer": fields or {}, "text": text, "stderr": stderr, "code": code}
    path: Path = root(boards.boards[name]) / _ORDERS[1:]
    path.write_text(json.dumps(orders))
