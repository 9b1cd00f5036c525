"""Each userland of guests is described, documented and tested each night."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.guest.errors import GuestError
from tests.guest.packages import ROOT_LIST, names, root_packages
from tests.guest.userlands import (
    DEFAULT_SUITE,
    DEFAULT_USERLAND,
    OLDEST_SUITE,
    USERLANDS,
    userland_named,
)
from tests.harness.program_versions import program_versions

ROOT = Path(__file__).parents[3]
# What is tried on each userland; all of tests/boots and tests/integration is, on the default.
FILES = {
    "tests/boots/test_device_tree.py",
    "tests/boots/test_initramfs.py",
    "tests/integration/test_driverctl.py",
    "tests/integration/test_main_job.py",
    "tests/integration/test_udev_rules_of_others.py",
    "tests/integration/test_why.py",
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("parts")
    del sys.modules["parts"]


def test_a_userland_is_known_by_its_suite() -> None:
    for suite, userland in USERLANDS.items():
        assert userland_named(suite) is userland
        assert userland.suite == suite


def test_an_unknown_userland_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(GuestError, match="no userland 'sid'; there are bullseye, bookworm, trixie"):
        userland_named("sid")


def test_one_userland_is_the_default_and_keeps_the_plain_names() -> None:
    assert [userland for userland in USERLANDS.values() if userland.is_default] == [
        DEFAULT_USERLAND
    ]
    assert DEFAULT_USERLAND.named("disk") == "disk"
    assert USERLANDS["forky"].named("disk") == "forky-disk"


def test_what_is_made_of_userlands_does_not_share_a_name_or_a_recipe() -> None:
    made = [root_packages(userland) for userland in USERLANDS.values()]
    assert len({artefact.name for artefact in made}) == len(USERLANDS)
    assert len({tuple(artefact.recipe) for artefact in made}) == len(USERLANDS)


def test_a_userland_lacks_only_what_the_others_have() -> None:
    packages = set(names(ROOT_LIST))
    options = (ROOT / "tests/guest/rootfs/etc/ssh/sshd_config").read_text()
    for userland in USERLANDS.values():
        assert packages >= set(userland.lacks)
        assert all(f"\n{option} " in options for option in userland.unknown)


def test_the_page_about_hosts_has_each_userland_with_its_python() -> None:
    programs = program_versions()
    assert list(programs) == list(USERLANDS)
    assert {suite: versions[-1] for suite, versions in programs.items()} == {
        suite: userland.python for suite, userland in USERLANDS.items()
    }


def test_each_userland_but_the_default_has_parts_the_oldest_first(parts: ModuleType) -> None:
    assert {*parts.USERLANDS, DEFAULT_SUITE} == set(USERLANDS)
    assert parts.USERLANDS[0] == next(iter(USERLANDS)) == OLDEST_SUITE


@pytest.mark.parametrize("suite", [suite for suite in USERLANDS if suite != DEFAULT_SUITE])
def test_all_files_are_tried_on_each_userland_each_night(parts: ModuleType, suite: str) -> None:
    commands = [part.command for part in parts.parts("nightly") if suite in part.command]
    tried = {word for command in commands for word in command if word.endswith(".py")}
    assert tried == FILES
    for command in commands:
        assert command[command.index("--userland") + 1] == suite
        assert command[command.index("--depth") + 1] == "nightly"
    assert all((ROOT / file).is_file() for file in FILES)


def test_the_main_job_is_done_on_the_oldest_userland_in_every_run(parts: ModuleType) -> None:
    (command,) = [part.command for part in parts.parts("test") if OLDEST_SUITE in part.command]
    assert "tests/integration/test_main_job.py" in command
