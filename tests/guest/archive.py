# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Debian archive for a guest, which has no network: two states of it, before and after a kernel.

The first has the second newest kernel of the suite and what DKMS needs to build modules for it;
the second has the newest kernel, as the real archive does after an update.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from extensions.simulator.debian_dtb import mirror

from . import commands
from .artefacts import Artefact
from .errors import GuestError
from .packages import ROOT_LIST, SUITE, names

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What the system of the guest has beside root-packages.txt, so that its packages are managed.
_MANAGED = (
    *("apt", "dpkg", "python3-apt", "debconf", "perl-base", "xz-utils", "busybox-static"),
    # Most of a minute under emulation.
    *("gcc-14", "make", "dpkg-dev", "libssl3t64", "libelf1t64"),
)
_META = "linux-image-arm64"
_SERIES = re.compile(r"6\.12\.[0-9]+-[0-9]+")
_BUILDING = ("dkms", "openssl")


class NoUpgradeError(GuestError):
    """Says that the archive has a single version of the kernel, as after a point release."""


@dataclass(frozen=True)
class KernelPackages:
    """The packages of a kernel at one version; ``release`` is what uname -r prints."""

    version: str
    release: str

    @property
    def installed(self) -> list[str]:
        """Return what a host has that runs this kernel."""
        return ["%s=%s" % (_META, self.version)]

    @property
    def for_modules(self) -> list[str]:
        """Return what it needs to build modules."""
        source = "linux-source-%s" % ".".join(self.version.split(".")[:2])
        return ["%s=%s" % (name, self.version) for name in ("linux-headers-arm64", source)]


class _Apt:
    """An apt for arm64 with directories of its own, which installs nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder / "apt", folder / "build.log"
        for name in ("etc/apt.conf.d", "etc/preferences.d", "lists/partial", "cache"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "status").touch()
        (self._folder / "sources.list").write_text(_sources())
        settings = {
            "Dir::Etc": "etc",
            "Dir::Etc::sourcelist": "sources.list",
            "Dir::State::lists": "lists",
            "Dir::State::status": "status",
            "Dir::Cache": "cache",
        }
        lines = ['%s "%s";' % (name, self._folder / path) for name, path in settings.items()]
        lines += [
            'APT::Architecture "arm64";',
            'APT::Architectures { "arm64"; };',
            'APT::Install-Recommends "false";',
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            # A mirror that lags behind is good enough; signatures are checked all the same.
            'Acquire::Check-Valid-Until "false";',
        ]
        (self._folder / "apt.conf").write_text("".join("%s\n" % line for line in lines))
        self._environment = {"APT_CONFIG": str(self._folder / "apt.conf")}
        commands.call(["apt-get", "update"], log=self._log, env=self._environment)

    def versions(self, package: str) -> list[str]:
        """Return the versions of a package, the newest first."""
        listed = subprocess.run(
            ["apt-cache", "madison", package],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        columns = (line.split("|") for line in listed.splitlines())
        return list(dict.fromkeys(column[1].strip() for column in columns if len(column) > 1))

    def depends(self, package: str) -> str:
        """Return what a package at a version depends on."""
        return subprocess.run(
            ["apt-cache", "show", package],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def fetch(self, packages: Sequence[str], target: Path) -> None:
        """Download packages and all that they depend on."""
        (target / "partial").mkdir(parents=True, exist_ok=True)
        words = ["apt-get", "--yes", "--download-only", "-o", "Dir::Cache::archives=%s" % target]
        words += ["-o", "Debug::NoLocking=true", "install", *packages]
        commands.call(words, log=self._log, env=self._environment)


def _sources() -> str:
    try:
        (main,) = mirror()
    except ValueError:
        raise GuestError(
            "apt of this machine has no Debian archive; ARMFLEET_DEBIAN_MIRROR names another one"
        ) from None
    main = main.rstrip("/")
    line = "deb [signed-by=%s] %s %s main\n"
    return line % (_KEYRING, main, SUITE) + line % (
        _KEYRING,
        main + "-security",
        SUITE + "-security",
    )


def _kernels(apt: _Apt) -> tuple[KernelPackages, KernelPackages]:
    """Return the second newest kernel and the newest one."""
    versions = [version for version in apt.versions(_META) if _SERIES.fullmatch(version)]
    kernels = []
    for version in versions[:2]:
        match = re.search(
            r"\blinux-image-(6\.12\.\S+-arm64) \(", apt.depends("%s=%s" % (_META, version))
        )
        if match:
            kernels.append(KernelPackages(version, match.group(1)))
    if len(kernels) != 2:
        raise NoUpgradeError(
            "Debian's archive has only one version of %s at the moment, so no kernel can be "
            "upgraded: %s" % (_META, ", ".join(versions))
        )
    return kernels[1], kernels[0]


def _index(packages: Sequence[Path], folder: Path) -> None:
    """Write the Packages of an archive, as dpkg-scanpackages does."""
    stanzas = []
    for package in packages:
        control = subprocess.run(
            ["dpkg-deb", "--field", package], capture_output=True, text=True, check=True
        ).stdout
        digest = sha256(package.read_bytes()).hexdigest()
        stanzas.append(
            "%sFilename: debs/%s\nSize: %d\nSHA256: %s\n\n"
            % (control, package.name, package.stat().st_size, digest)
        )
    folder.mkdir()
    (folder / "Packages").write_text("".join(stanzas))


def _make(folder: Path) -> None:
    commands.require("apt-get", "apt-cache", "dpkg-deb")
    apt = _Apt(folder)
    before, after = _kernels(apt)
    system = [*names(ROOT_LIST), *_MANAGED, *before.installed]
    apt.fetch(system, folder / "system")
    apt.fetch([*system, *_BUILDING, *before.for_modules], folder / "first-debs")
    apt.fetch([*names(ROOT_LIST), *_MANAGED, *after.installed, *after.for_modules], folder / "new")
    debs = folder / "debs"
    debs.mkdir()
    installed = {path.name for path in (folder / "system").glob("*.deb")}
    states = []
    for state in ("first-debs", "new"):
        fetched = sorted((folder / state).glob("*.deb"))
        chosen = [path for path in fetched if path.name not in installed]
        for path in chosen:
            path.replace(debs / path.name)
        states.append([debs / path.name for path in chosen])
    first, new = states
    _index(first, folder / "before")
    # The archive no longer has the packages of the older kernel.
    kept = [path for path in first if "_%s_" % before.version not in path.name]
    _index(sorted({*kept, *new}), folder / "after")
    (folder / "kernels").write_text(
        "".join("%s %s\n" % (kernel.version, kernel.release) for kernel in (before, after))
    )
    commands.call(
        ["rm", "-r", folder / "apt", folder / "first-debs", folder / "new"],
        log=folder / "build.log",
    )


def archive() -> Artefact:
    """system/*.deb, which a guest has installed; debs with before/Packages and after/Packages."""
    return Artefact(
        name="archive",
        purpose="downloading two kernels of Debian %s with what builds modules (900 MB)" % SUITE,
        recipe=[SUITE, ROOT_LIST, *_MANAGED, *_BUILDING, Path(__file__)],
        make=_make,
    )


def kernels() -> tuple[KernelPackages, KernelPackages]:
    """Return the kernels of the archive before and after the upgrade."""
    lines = (archive().ensure() / "kernels").read_text().splitlines()
    before, after = (KernelPackages(*line.split()) for line in lines)
    return before, after
