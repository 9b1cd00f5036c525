# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""take_source.py with real tar and dpkg-deb, and a package database that the test writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FILES = Path(__file__).parents[2] / "roles/vfio_modules/files"
RELEASE, VERSION = "6.12.117+deb13-arm64", "6.12.117-1"
NEWER = "6.12.118-1"
HEADERS, PACKAGE = f"linux-headers-{RELEASE}", "linux-source-6.12"
# Answers as dpkg-query, dpkg and apt-get do, from a database in JSON.
_PROGRAM = """\
#!{python}
import fnmatch, json, shutil, sys
from pathlib import Path
database = json.loads(Path({database!r}).read_text())
name, words = Path(sys.argv[0]).name, sys.argv[1:]
if name == "dpkg-query":
    listed = {{package: state for package, state in database["packages"].items()
              if fnmatch.fnmatch(package, words[-1])}}
    for state in listed.values():
        status, version = state
        print(version if "Status" not in words[1] else status + " " + version)
    sys.exit(0 if listed else 1)
if name == "dpkg":
    sys.stdout.write(database["verify"])
    sys.exit(0)
if name == "apt-get":
    path = database["downloads"].get(words[-1])
    if path is None:
        sys.exit("E: Version was not found")
    shutil.copy(path, ".")
"""


class Host:
    """A Debian host as the program sees it."""

    def __init__(self, directory: Path, program: ModuleType) -> None:
        self.archives, self.build, self.cache = (
            directory / name for name in ("src", "build", "cache/armfleet")
        )
        self.bin = directory / "bin"
        for path in (self.archives, self.build, self.bin):
            path.mkdir()
        self._program, self._database = program, directory / "database.json"
        self.packages: dict[str, tuple[str, str]] = {HEADERS: ("installed", VERSION)}
        self.downloads: dict[str, str] = {}
        self.verify = ""
        text = _PROGRAM.format(python=sys.executable, database=str(self._database))
        for name in ("dpkg-query", "dpkg", "apt-get"):
            path = self.bin / name
            path.write_text(text)
            path.chmod(0o755)

    def put_source(self, version: str, directory: Path | None = None) -> Path:
        """Write the archive of a version, whose only difference is a line."""
        tree = self.build.parent / ("tree-" + version) / PACKAGE
        for name in ("drivers/vfio/platform/vfio_platform.c", "drivers/usb/usb.c"):
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"/* {version} */\n")
        archive = (directory or self.archives) / f"{PACKAGE}.tar.xz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz") as stream:
            stream.add(tree, PACKAGE)
        return archive

    def put_download(self, version: str) -> None:
        """Let apt find the package of a version."""
        tree = self.build.parent / ("package-" + version)
        self.put_source(version, tree / "usr/src")
        (tree / "DEBIAN").mkdir()
        fields = {"Package": PACKAGE, "Version": version, "Architecture": "all"}
        fields |= {"Maintainer": "Nobody <nobody@debian.example>", "Description": "source"}
        lines = (f"{name}: {value}\n" for name, value in fields.items())
        (tree / "DEBIAN/control").write_text("".join(lines))
        deb = tree.with_suffix(".deb")
        subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, stdout=subprocess.DEVNULL)
        self.downloads[f"{PACKAGE}={version}"] = str(deb)

    def take(self, release: str = RELEASE) -> int:
        database = {
            "packages": self.packages,
            "downloads": self.downloads,
            "verify": self.verify,
        }
        self._database.write_text(json.dumps(database))
        code: int = self._program.main([release])
        return code

    def taken(self) -> str:
        """Return the content of the driver's file, and assert that nothing else was unpacked."""
        assert [path.name for path in self.build.iterdir()] == ["vfio"]
        return (self.build / "vfio/platform/vfio_platform.c").read_text()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    specification = spec_from_file_location("take_source", FILES / "take_source.py")
    assert specification
    assert specification.loader
    program = module_from_spec(specification)
    specification.loader.exec_module(program)
    host = Host(tmp_path, program)
    monkeypatch.setattr(program, "_ARCHIVES", host.archives)
    monkeypatch.setattr(program, "_CACHE", host.cache)
    monkeypatch.setenv("PATH", f"{host.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.chdir(host.build)
    return host


# While a package is being upgraded, its files are in place before it is configured.
@pytest.mark.parametrize("state", ["installed", "unpacked"])
def test_the_installed_source_of_the_same_version_is_taken(host: Host, state: str) -> None:
    host.packages = {HEADERS: (state, VERSION), PACKAGE: (state, VERSION)}
    host.put_source(VERSION)
    assert host.take() == 0
    assert host.taken() == f"/* {VERSION} */\n"


def test_the_source_of_another_version_is_downloaded(host: Host) -> None:
    host.packages[PACKAGE] = ("installed", NEWER)
    host.put_source(NEWER)
    host.put_download(VERSION)
    assert host.take() == 0
    assert host.taken() == f"/* {VERSION} */\n"
    assert [path.name for path in host.cache.iterdir()] == [f"{VERSION}.tar"]


def test_what_was_taken_is_kept_while_its_headers_are_installed(host: Host) -> None:
    host.put_download(VERSION)
    assert host.take() == 0
    host.downloads = {}
    assert host.take() == 0
    assert host.taken() == f"/* {VERSION} */\n"

    newer = "6.12.118+deb13-arm64"
    host.packages = {f"linux-headers-{newer}": ("installed", NEWER)}
    host.put_download(NEWER)
    assert host.take(newer) == 0
    assert host.taken() == f"/* {NEWER} */\n"
    assert [path.name for path in host.cache.iterdir()] == [f"{NEWER}.tar"]


@pytest.mark.parametrize("state", ["not-installed", "config-files", "half-installed"])
def test_without_the_source_it_is_named(
    host: Host, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.packages[PACKAGE] = (state, VERSION)
    host.put_source(VERSION)
    assert host.take() == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "take_source.py: linux-source-6.12 6.12.117-1, the source of this kernel, is neither "
        "installed nor can apt download it. Install it, or upgrade the kernel and reboot."
    )


def test_a_kernel_of_no_package_has_no_source(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.take("6.12.117-mine") == 1
    assert "not those of a Debian package" in capsys.readouterr().err


def test_a_replaced_archive_is_refused(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.packages[PACKAGE] = ("installed", VERSION)
    archive = host.put_source(VERSION)
    host.verify = f"??5?????? {archive}\n"
    assert host.take() == 1
    assert "is not as the package linux-source-6.12 6.12.117-1" in capsys.readouterr().err
    assert list(host.build.iterdir()) == []


@pytest.mark.parametrize(
    "release", ["../../../etc", "6.12/../..", "--root=/tmp", "6.12 x", "6.12\n", "6.*", ""]
)
def test_a_name_that_is_no_release_reaches_no_program(host: Host, release: str) -> None:
    host.packages = {"*": ("installed", VERSION)}
    assert host.take(release) == 1
    assert list(host.build.iterdir()) == []


@pytest.mark.parametrize("version", ["../6.12-1", "6.12/../..", "1:6.12-1", "6"])
def test_a_version_that_is_none_names_no_package(host: Host, version: str) -> None:
    host.packages = {HEADERS: ("installed", version)}
    assert host.take() == 1
    assert list(host.build.iterdir()) == []
