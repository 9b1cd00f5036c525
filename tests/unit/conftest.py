"""Machines to test on, each of its own for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from board import Board, acme_board
from hypothesis import settings

# The same examples in every run and on every machine, and no folder of them in the checkout.
settings.register_profile("suite", database=None, deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake needs no privileges, so that the tests run for anybody."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests need not outlive a power cut; waiting for the disk is most of their time."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board as Linux before 7 boots it; see acme_board."""
    return acme_board(tmp_path)


@pytest.fixture
def grouped_board(tmp_path: Path) -> Board:
    """A board whose IOMMU groups are there from boot, so that a run leaves no trace in them."""
    return acme_board(tmp_path, groups_at_boot=True)
