"""Machines to test on, each of its own for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from board import Board, acme_board
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# The same examples in every run and on every machine, and nothing of them in the checkout.
settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.load_profile("suite")
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "armfleet-vfio-hypothesis")


# The trees are some 70,000 small files; on a disk, making them is most of the suite's time.
MEMORY = Path("/dev/shm")
_made: list[Path] = []


def pytest_configure(config: pytest.Config) -> None:
    if config.option.basetemp is None and os.access(MEMORY, os.W_OK | os.X_OK):
        _made.append(Path(tempfile.mkdtemp(prefix="armfleet-vfio-", dir=MEMORY)))
        config.option.basetemp = _made[0]


def pytest_unconfigure() -> None:
    for directory in _made:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's core needs no privileges, so that the tests run for anybody."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture(autouse=True)
def _in_no_hurry_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests need not outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board as Linux before 7 boots it; see acme_board."""
    return acme_board(tmp_path)


@pytest.fixture
def grouped_board(tmp_path: Path) -> Board:
    """A board whose IOMMU groups are there from boot, so that a run leaves no trace in them."""
    return acme_board(tmp_path, groups_at_boot=True)
