"""Which modules of module_utils an import loads, in a Python of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ansible_collections.armfleet.vfio.plugins.module_utils import _text

PACKAGE = _text.__name__.rpartition(".")[0]
_PROGRAM = """\
import importlib, sys
importlib.import_module(sys.argv[1])
print(*(name for name in sys.modules if name.startswith(sys.argv[2])))
"""


def loaded_by(module: str) -> set[str]:
    """Return the modules by their names in module_utils, such as "_boot.boot_files"."""
    path = Path(_text.__file__)
    root = next(parent for parent in path.parents if parent.name == "ansible_collections").parent
    output = subprocess.run(
        [sys.executable, "-c", _PROGRAM, f"{PACKAGE}.{module}", f"{PACKAGE}."],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(root)},
        text=True,
        check=True,
    ).stdout
    return {name[len(PACKAGE) + 1 :] for name in output.split()}
