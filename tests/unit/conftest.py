"""Fixtures that give each test its own machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from board import Board, acme_board
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# Every run has the same examples on every machine, and stores none in the checkout.
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
    """Simulate root privileges, which the simulator itself does not need."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture(autouse=True)
def _in_no_hurry_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: files of tests need not survive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board as booted by Linux before 7; see acme_board."""
    return acme_board(tmp_path)


@pytest.fixture
def grouped_board(tmp_path: Path) -> Board:
    """A board with all IOMMU groups from boot on, so that a run creates none."""
    return acme_board(tmp_path, groups_at_boot=True)
