# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes from Debian: packages of the root file system, of kernels and of this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from extensions.simulator.debian_dtb import mirror

from . import commands
from .artefacts import Artefact
from .errors import GuestError
from .userlands import DEFAULT_SUITE, DEFAULT_USERLAND, Userland

SUITE = DEFAULT_SUITE
_HERE = Path(__file__).parent
ROOT_LIST = _HERE / "root-packages.txt"
# Nobody reads these in the guest, and a smaller disk is made sooner.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# As the installer of a release does whose packages have files outside /usr.
_MERGE = 'for name in bin lib sbin; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done'


@dataclass(frozen=True)
class Series:
    """A series of Linux, and the package of a Debian suite that has its source.

    ``package`` is a name, or a pattern as apt has them: newer suites move on. The kernel is
    compiled with our own small configuration, or it is the binary of the distribution (``stock``).
    """

    name: str
    suite: str
    package: str
    stock: bool = False


DEFAULT_SERIES = "6.12"
STOCK_SERIES = "debian"
SERIES = {
    series.name: series
    for series in (
        Series(DEFAULT_SERIES, SUITE, "linux-source-6.12"),
        Series("7", "forky", r"^linux-source-7\.[0-9]+$"),
        Series(STOCK_SERIES, SUITE, "linux-source-6.12", stock=True),
    )
}


def names(path: Path) -> list[str]:
    """Return the packages of a list, one a line; '#' starts a comment."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _mmdebstrap(target: Path, options: list[str], log: Path, suite: str = SUITE) -> None:
    commands.require("mmdebstrap", "apt-get", "gpg")
    # Nothing of the guest is executed here, so neither binfmt nor a working emulator is needed.
    # A mirror that lags behind a moving suite is good enough; signatures are checked all the same.
    dated = '--aptopt=Acquire::Check-Valid-Until "false"'
    argv = ["mmdebstrap", "--skip=check/qemu", dated, *options, suite, str(target), *mirror()]
    if os.geteuid():
        argv = [*commands.pretending_root(), argv[0], "--mode=chrootless", *argv[1:]]
    try:
        commands.call(argv, log=log)
    except GuestError as error:
        raise GuestError(
            "Cannot fetch Debian %s; is the archive of this machine's apt sources reachable? "
            "(ARMFLEET_DEBIAN_MIRROR names another one.)\n%s" % (suite, error)
        ) from None


def host_architecture() -> str:
    """This machine's architecture by Debian's name for it."""
    commands.require("dpkg")
    words = ["dpkg", "--print-architecture"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def of_this_machine(package: str) -> str:
    """Return what names a package, given as a name or pattern, for this machine and not arm64."""
    pattern = package if package.startswith("?") else "?exact-name(%s)" % package
    return "?and(?architecture(%s), %s)" % (host_architecture(), pattern)


def download(packages: Sequence[str], folder: Path, suite: str = SUITE) -> list[Path]:
    """Fetch the .deb files of packages into ``directory``.

    Packages are names or patterns as apt has them.
    """
    fetch = 'cd %s && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get %s download %s' % (
        shlex.quote(str(folder)),
        "-o APT::Sandbox::User=root",
        shlex.join(packages),
    )
    # An empty system, made only for the apt that mmdebstrap sets up for another release.
    nothing = folder / "nothing.tar"
    architectures = ",".join(dict.fromkeys(["arm64", host_architecture()]))
    options = ["--variant=custom", "--arch=" + architectures, "--customize-hook=" + fetch]
    _mmdebstrap(nothing, options, folder / "build.log", suite)
    nothing.unlink()
    return sorted(folder.glob("*.deb"))


def unpack(packages: list[str], architecture: str, folder: Path) -> None:
    """Lay out packages and what they need in ``directory``/tree; nothing of them is set up."""
    options = ["--variant=extract", "--include=" + ",".join(packages), "--arch=" + architecture]
    _mmdebstrap(folder / "tree", options, folder / "build.log")


def _download_source(series: Series, folder: Path) -> None:
    log = folder / "build.log"
    (package,) = download([series.package], folder, series.suite)
    commands.call(["dpkg-deb", "-x", package, folder / "package"], log=log)
    (archive,) = (folder / "package/usr/src").glob("*.tar.xz")
    archive.rename(folder / "linux.tar.xz")
    (folder / "version").write_text(package.name.split("_")[1] + "\n")
    commands.call(["rm", "-r", package, folder / "package"], log=log)


def _root_names(userland: Userland) -> list[str]:
    return [name for name in names(ROOT_LIST) if name not in userland.lacks]


def _unpack_root(userland: Userland, folder: Path) -> None:
    log = folder / "build.log"
    archive = folder / "root.tar"
    packages = ",".join(_root_names(userland))
    options = ["--variant=extract", "--arch=arm64", "--include=" + packages]
    options += ["--dpkgopt=path-exclude=" + pattern for pattern in LEFT_OUT]
    if not userland.is_merged:
        options.append("--setup-hook=" + _MERGE)
    _mmdebstrap(archive, options, log, userland.suite)


def kernel_source(series: Series) -> Artefact:
    """linux.tar.xz and its Debian version."""
    return Artefact(
        name="linux-source",
        purpose="downloading the source of Linux %s from Debian %s (about 10 s)"
        % (series.name, series.suite),
        recipe=[series.suite, series.package],
        make=partial(_download_source, series),
    )


def root_packages(userland: Userland = DEFAULT_USERLAND) -> Artefact:
    """root.tar: the packages unpacked, not configured."""
    return Artefact(
        name=userland.named("root"),
        purpose="unpacking Debian %s for arm64 (about 15 s)" % userland.suite,
        recipe=[
            *(userland.suite, " ".join(_root_names(userland)), " ".join(LEFT_OUT)),
            *([] if userland.is_merged else [_MERGE]),
        ],
        make=partial(_unpack_root, userland),
    )
