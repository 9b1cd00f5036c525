"""A guest that pulls, and the repository that it pulls from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.collection import build
from tests.harness.guests import inventory, start
from tests.pull.repository import Keys, Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.guest import Guest

__all__ = ["inventory", "start"]


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    return start("test-pull", "b")


@pytest.fixture(scope="module")
def repository(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Empty but for the list of collections, which names our archive on the guest."""
    folder = tmp_path_factory.mktemp("repository")
    guest.put(build(folder), "/srv/armfleet-vfio.tar.gz")
    return Repository(guest, folder / "working-copy")


@pytest.fixture(scope="module")
def keys(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    made = Keys(guest, tmp_path_factory.mktemp("keys"))
    yield made
    made.forget()
