# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An artefact of a guest is built once, is complete or absent, and a failure has a message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest import GuestError, commands
from tests.guest.artefacts import Artefact, cache_folder

# Starts to build the artefact below, and waits in the middle of the build to be killed.
_KILLED_BUILD = """
import signal, sys
from tests.guest.artefacts import Artefact

def make(directory):
    (directory / "half").touch()
    print("begun", flush=True)
    signal.pause()

Artefact("thing", "building a thing", ["recipe"], make).ensure()
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def write_whole(directory: Path) -> None:
    (directory / "whole").touch()


def write_to_a_full_disk(_directory: Path) -> None:
    Path("/dev/full").write_text("more than fits")


def run_a_program_on_a_full_disk(directory: Path) -> None:
    commands.call(["cp", "/etc/passwd", "/dev/full"], log=directory / "build.log")


def test_a_build_is_done_once() -> None:
    first = Artefact("thing", "building a thing", ["recipe"], write_whole).ensure()
    again = Artefact("thing", "building a thing", ["recipe"], write_to_a_full_disk).ensure()
    assert again == first
    assert [path.name for path in first.iterdir()] == ["whole"]


def test_another_recipe_is_another_build() -> None:
    first = Artefact("thing", "building a thing", ["recipe"], write_whole).ensure()
    second = Artefact("thing", "building a thing", ["other"], write_whole).ensure()
    assert first != second


def test_a_build_that_was_killed_is_begun_again_and_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED_BUILD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as building:
        assert building.stdout
        assert building.stdout.readline() == b"begun\n"
        os.kill(building.pid, signal.SIGKILL)
    assert list(cache_folder().rglob("half"))

    built = Artefact("thing", "building a thing", ["recipe"], write_whole).ensure()
    assert [path.name for path in built.iterdir()] == ["whole"]
    assert not list(cache_folder().rglob("half"))


def test_a_build_that_fails_is_no_artefact() -> None:
    def fail(_directory: Path) -> None:
        raise GuestError("a reason")

    with pytest.raises(GuestError, match="a reason"):
        Artefact("thing", "building a thing", ["recipe"], fail).ensure()
    assert [path.name for path in cache_folder().iterdir()] == ["thing.lock"]


@pytest.mark.parametrize("make", [write_to_a_full_disk, run_a_program_on_a_full_disk])
def test_a_full_disk_is_one_sentence_and_says_what_to_do(make: object) -> None:
    assert callable(make)
    with pytest.raises(GuestError) as refused:
        Artefact("thing", "building a thing", ["recipe"], make).ensure()
    sentence = str(refused.value)
    assert sentence.startswith("No space left: ")
    assert "MiB free. Make room there, or set " in sentence
    assert "\n" not in sentence
    assert [path.name for path in cache_folder().iterdir()] == ["thing.lock"]
