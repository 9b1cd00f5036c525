"""The collection as users get it: built from the working tree's copy, and installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parents[2]


def build(folder: Path) -> Path:
    """Build the archive in ``directory``; where it is."""
    words = ["ansible-galaxy", "collection", "build", str(_SOURCE), "--output-path", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    (archive,) = folder.glob("armfleet-vfio-*.tar.gz")
    return archive


def install(folder: Path) -> Path:
    """Build it and install it below ``directory``; where it is then."""
    words = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(folder)]
    # Ansible looks for collections in PYTHONPATH too, would find the one under test and do nothing.
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder))
    environment.pop("PYTHONPATH", None)
    subprocess.run([*words, str(build(folder))], check=True, capture_output=True, env=environment)
    return folder / "ansible_collections/armfleet/vfio"
