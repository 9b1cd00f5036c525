# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes from Debian: the root file system's packages and the kernel's source."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .errors import GuestError

SUITE = "trixie"
_HERE = Path(__file__).parent
_LIST = _HERE / "root-packages.txt"
# Nobody reads these in the guest, and a smaller disk is made sooner.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Compiling what neither Ansible nor its modules import costs a minute under emulation.
_NOT_COMPILED = (
    r"/(test|_pyrepl|pydoc_data|idlelib|turtledemo|lib2to3)/|/(turtle|pydoc)\.py"
    r"|/ansible/modules/|/ansible_test/"
)


@dataclass(frozen=True)
class Series:
    """A series of Linux, and the package of a Debian suite that has its source.

    ``package`` is a name, or a pattern as apt has them: newer suites move on.
    """

    name: str
    suite: str
    package: str


DEFAULT_SERIES = "6.12"
SERIES = {
    series.name: series
    for series in (
        Series(DEFAULT_SERIES, SUITE, "linux-source-6.12"),
        Series("7", "forky", r"^linux-source-7\.[0-9]+$"),
    )
}


def names(path: Path) -> list[str]:
    """The packages of a list, one a line; '#' starts a comment."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _mirror() -> list[str]:
    """The Debian archive that this machine uses; empty lets mmdebstrap take its own default."""
    chosen = os.environ.get("ARMFLEET_DEBIAN_MIRROR")
    if chosen:
        return [chosen]
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    labelled = (line.partition(" ") for line in targets.splitlines())
    return [site for label, _space, site in labelled if label == "Debian"][:1]


def _mmdebstrap(target: Path, options: list[str], log: Path, suite: str = SUITE) -> None:
    commands.require("mmdebstrap", "apt-get", "gpg")
    # Nothing of the guest is executed here, so neither binfmt nor a working emulator is needed.
    # A mirror that lags behind a moving suite is good enough; signatures are checked all the same.
    dated = '--aptopt=Acquire::Check-Valid-Until "false"'
    argv = ["mmdebstrap", "--skip=check/qemu", dated, *options, suite, str(target), *_mirror()]
    if os.geteuid():
        argv = [*commands.pretending_root(), argv[0], "--mode=chrootless", *argv[1:]]
    try:
        commands.call(argv, log=log)
    except GuestError as error:
        raise GuestError(
            "Cannot fetch Debian %s; is the archive of this machine's apt sources reachable? "
            "(ARMFLEET_DEBIAN_MIRROR names another one.)\n%s" % (suite, error)
        ) from None


def download(package: str, architecture: str, folder: Path, suite: str = SUITE) -> Path:
    """Fetch the .deb of one package, told by its name or by a pattern as apt has them."""
    log = folder / "build.log"
    fetch = 'cd %s && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get %s download %s' % (
        shlex.quote(str(folder)),
        "-o APT::Sandbox::User=root",
        shlex.quote(package),
    )
    # An empty system, made only for the apt that mmdebstrap sets up for another release.
    nothing = folder / "nothing.tar"
    options = ["--variant=custom", "--arch=" + architecture, "--customize-hook=" + fetch]
    _mmdebstrap(nothing, options, log, suite)
    nothing.unlink()
    (fetched,) = folder.glob("*.deb")
    return fetched


def unpack(packages: list[str], architecture: str, folder: Path) -> None:
    """Lay out packages and what they need in ``folder``/tree; nothing of them is set up."""
    options = ["--variant=extract", "--include=" + ",".join(packages), "--arch=" + architecture]
    _mmdebstrap(folder / "tree", options, folder / "build.log")


def _download_source(series: Series, folder: Path) -> None:
    log = folder / "build.log"
    package = download(series.package, "amd64", folder, series.suite)
    commands.call(["dpkg-deb", "-x", package, folder / "package"], log=log)
    (archive,) = (folder / "package/usr/src").glob("*.tar.xz")
    archive.rename(folder / "linux.tar.xz")
    (folder / "version").write_text(package.name.split("_")[1] + "\n")
    commands.call(["rm", "-r", package, folder / "package"], log=log)


def _unpack_root(folder: Path) -> None:
    log = folder / "build.log"
    archive = folder / "root.tar"
    options = ["--variant=extract", "--arch=arm64", "--include=" + ",".join(names(_LIST))]
    options += ["--dpkgopt=path-exclude=" + pattern for pattern in _LEFT_OUT]
    _mmdebstrap(archive, options, log)
    _compile_python(archive, folder / "tree", log)


def _compile_python(archive: Path, tree: Path, log: Path) -> None:
    """Add the bytecode that packages of Python and its libraries make when configured."""
    tree.mkdir()
    commands.call(["tar", "-xf", archive, "-C", tree, "--exclude=./dev/*"], log=log)
    (library,) = (path for path in (tree / "usr/lib").glob("python3.*") if path.is_dir())
    libraries = [library, tree / "usr/lib/python3/dist-packages"]
    interpreter = commands.emulated(tree, "usr/bin/" + library.name)
    compiling = ["-S", "-m", "compileall", "-q", "-s", str(tree), "-x", _NOT_COMPILED]
    # Whoever keeps the bytecode of this machine's Python elsewhere does not mean the guest's.
    beside = {"PYTHONPYCACHEPREFIX": ""}
    commands.call([*interpreter, *compiling, *libraries], log=log, env=beside)
    compiled = sorted(path.relative_to(tree) for one in libraries for path in one.rglob("*.pyc"))
    listing = archive.with_name("bytecode.txt")
    listing.write_text("".join("./%s\n" % path for path in compiled))
    commands.call(
        ["tar", "-rf", archive, "-C", tree, "--owner=root:0", "--group=root:0", "-T", listing],
        log=log,
    )
    commands.call(["rm", "-r", tree], log=log)


def kernel_source(series: Series) -> Artefact:
    """linux.tar.xz and its Debian version."""
    return Artefact(
        name="linux-source",
        purpose="downloading the source of Linux %s from Debian %s (about 10 s)"
        % (series.name, series.suite),
        recipe=[series.suite, series.package],
        make=partial(_download_source, series),
    )


def root_packages() -> Artefact:
    """root.tar: the packages unpacked, not configured."""
    return Artefact(
        name="root",
        purpose="unpacking Debian %s for arm64 and compiling its Python (about 2 minutes)" % SUITE,
        recipe=[SUITE, " ".join(names(_LIST)), Path(__file__)],
        make=_unpack_root,
    )
