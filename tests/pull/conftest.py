"""A guest that pulls, and the repository that it pulls from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest import Guest, write_inventory
from tests.harness.collection import build
from tests.harness.loaded_python import load_python
from tests.pull.pulling import HOST
from tests.pull.repository import Keys, Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """Start one guest for all files, because to set up a pull and run it first takes minutes."""
    guest = Guest(HOST, "b")
    try:
        guest.start(fresh=True)
        load_python(guest)
        yield guest
    finally:
        guest.stop()


@pytest.fixture(scope="session")
def inventory(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an inventory with only this guest."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    write_inventory(path, [guest])
    return path


@pytest.fixture(scope="session")
def repository(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create an empty repository, and copy the archive of the collection to the guest."""
    directory = tmp_path_factory.mktemp("repository")
    guest.put(build(directory), "/srv/armfleet-vfio.tar.gz")
    return Repository(guest, directory / "working-copy")


@pytest.fixture(scope="session")
def keys(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    made = Keys(guest, tmp_path_factory.mktemp("keys"))
    yield made
    made.forget()
