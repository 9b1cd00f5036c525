"""Builds the collection from the copy of the working tree, and installs it, as users do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parents[2]


def build(directory: Path) -> Path:
    """Build the archive in ``directory``; return its path."""
    words = ["ansible-galaxy", "collection", "build", str(_SOURCE), "--output-path", str(directory)]
    subprocess.run(words, check=True, capture_output=True)
    (archive,) = directory.glob("armfleet-vfio-*.tar.gz")
    return archive


def install(directory: Path) -> Path:
    """Build the collection and install it below ``directory``; return its directory."""
    words = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(directory)]
    # Ansible also searches PYTHONPATH: it would find the collection under test and do nothing.
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(directory))
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [*words, str(build(directory))], check=True, capture_output=True, env=environment
    )
    return directory / "ansible_collections/armfleet/vfio"
