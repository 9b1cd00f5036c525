"""Builds the collection from the copy of the working tree, and installs it, as users do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parents[2]


def build(folder: Path) -> Path:
    """Build the archive in ``folder``; return its path."""
    words = ["ansible-galaxy", "collection", "build", str(_SOURCE), "--output-path", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    (archive,) = folder.glob("armfleet-vfio-*.tar.gz")
    return archive


def install(folder: Path) -> Path:
    """Build the collection and install it below ``folder``; return its directory."""
    words = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(folder)]
    # Ansible also searches PYTHONPATH: it would find the collection under test and do nothing.
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder))
    environment.pop("PYTHONPATH", None)
    subprocess.run([*words, str(build(folder))], check=True, capture_output=True, env=environment)
    return folder / "ansible_collections/armfleet/vfio"
