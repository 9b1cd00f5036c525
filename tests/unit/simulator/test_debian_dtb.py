# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Device trees from Debian's kernel, which programs that stand in for apt download."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.simulator import debian_dtb
from extensions.simulator.errors import SimulatorError

TREES = "usr/lib/linux-image-6.12.1-arm64"
BOARDS = ("amd/amd-overdrive-rev-b0", "amd/amd-overdrive-rev-b1", "qcom/sc8280xp", "acme/sc8280xp")

if any(shutil.which(program) is None for program in ("dpkg-deb", "tar")):
    pytest.skip("needs dpkg-deb and tar", allow_module_level=True)


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that installs a program as mmdebstrap and apt-get."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ARMFLEET_DEBIAN_MIRROR", raising=False)
    (tmp_path / "bin").mkdir()

    def install(script: str) -> None:
        for name, text in (("mmdebstrap", script), ("apt-get", "")):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return install


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with boards, and with a file that is none."""
    tree = tmp_path / "package"
    for board in BOARDS:
        path = tree / TREES / f"{board}.dtb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(board.encode())
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").write_text("a kernel")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-6.12.1-arm64\nVersion: 6.12.1-1\nArchitecture: arm64\n"
        "Maintainer: nobody <nobody@example.com>\nDescription: a kernel\n"
    )
    archive = tmp_path / "linux-image-6.12.1-arm64_6.12.1-1_arm64.deb"
    subprocess.run(["dpkg-deb", "--build", tree, archive], check=True, stdout=subprocess.DEVNULL)
    return archive


def test_a_board_is_downloaded_once_and_found_by_name(
    mmdebstrap: Callable[[str], None], package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mmdebstrap(
        'echo "$*" >>"$XDG_CACHE_HOME/calls"\n'
        f"echo 'Get:1 main linux-image-6.12.1-arm64 arm64 6.12.1-1 [93.4 MB]'\n"
        f'cp {package} "$ARMFLEET_DOWNLOADS"'
    )
    for name in ("amd-overdrive-rev-b1", "amd/amd-overdrive-rev-b1", "amd-overdrive-rev-b1.dtb"):
        assert debian_dtb.find(name).read_bytes() == b"amd/amd-overdrive-rev-b1"
    assert debian_dtb.boards() == sorted(BOARDS)
    cache = debian_dtb.cache("trixie")
    (call,) = (cache.parents[1] / "calls").read_text().splitlines()
    assert "--arch=arm64" in call
    assert call.endswith(" trixie /dev/null")
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    assert sorted(path.name for path in cache.iterdir()) == ["acme", "amd", "qcom"]
    assert "Downloading the kernel's package (93.4 MB)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overdrive", "similar: amd/amd-overdrive-rev-b0, amd/amd-overdrive-rev-b1"),
        ("amd-overdriv-rev-b1", "similar: amd/amd-overdrive-rev-b1"),
        ("sc8280xp", "'sc8280xp' is the name of acme/sc8280xp and qcom/sc8280xp"),
        ("../../etc/passwd", "without a name, this command lists all 4"),
        ("\x1b[2J", r"has no device tree '\x1b[2J'"),
    ],
)
def test_a_name_that_no_board_has_is_an_error(
    mmdebstrap: Callable[[str], None], package: Path, name: str, reason: str
) -> None:
    mmdebstrap(f'cp {package} "$ARMFLEET_DOWNLOADS"')
    with pytest.raises(SimulatorError) as error:
        debian_dtb.find(name)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'E: no \x1b[31marchive'; exit 2", r"of Debian trixie: E: no \x1b[31marchive"),
        ("exit 2", "of Debian trixie: mmdebstrap failed"),
        ("", "mmdebstrap downloaded no kernel"),
        (
            'echo no package >"$ARMFLEET_DOWNLOADS/linux-image-1_1_arm64.deb"',
            "Cannot unpack linux-image-1_1_arm64.deb",
        ),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    mmdebstrap: Callable[[str], None], script: str, reason: str
) -> None:
    mmdebstrap(script)
    with pytest.raises(SimulatorError) as error:
        debian_dtb.boards()
    assert reason in str(error.value)
    assert list(debian_dtb.cache("trixie").parent.iterdir()) == []


@pytest.mark.parametrize("suite", ["no;such", "../etc", "-o", ""])
def test_a_suite_is_a_name(mmdebstrap: Callable[[str], None], suite: str) -> None:
    mmdebstrap("exit 1")
    with pytest.raises(SimulatorError, match="is not the name of a Debian suite"):
        debian_dtb.boards(suite)


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(debian_dtb, "_path", lambda: str(tmp_path))
    with pytest.raises(SimulatorError, match="mmdebstrap and apt-get and dpkg-deb and tar"):
        debian_dtb.boards()
