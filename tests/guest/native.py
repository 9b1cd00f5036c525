# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs of the guest's release of Debian, built for this machine.

They do what would take minutes under emulation. They bring their own C library, so that they run
on any release.
"""

from __future__ import annotations

from pathlib import Path

from . import commands
from .artefacts import Artefact
from .packages import SUITE, download, host_architecture, of_this_machine

_PACKAGES = (
    "libc6",
    # sysusers, which makes the users of the root file system
    "systemd-standalone-sysusers",
    "libcap2",
    "libcrypt1",
    "libpcre2-8-0",
    "libselinux1",
    # a Python of the guest's version, which compiles the guest's library
    r"?name(^python3\.[0-9]+-minimal$)",
    "libexpat1",
    "zlib1g",
)


def _make(folder: Path) -> None:
    log = folder / "build.log"
    for package in download([of_this_machine(name) for name in _PACKAGES], folder):
        commands.call(["dpkg-deb", "-x", package, folder / "tree"], log=log)
        package.unlink()


def native_programs() -> Artefact:
    """tree: the programs and what they need."""
    return Artefact(
        name="native",
        purpose="downloading programs of Debian %s for this machine (3 MB)" % SUITE,
        recipe=[SUITE, host_architecture(), *_PACKAGES],
        make=_make,
    )


def through_loader(program: Path, libraries: Path) -> list[str]:
    """Return the words that run ``program`` with the C library below ``libraries``."""
    (loader,) = (path for path in libraries.glob("*/ld-linux-*.so.*"))
    return [str(loader), "--library-path", str(loader.parent), str(program)]


def native(program: str) -> list[str]:
    """Return the words that run a program, such as usr/bin/python3, on this machine."""
    tree = native_programs().ensure() / "tree"
    return through_loader(tree / program, tree / "usr/lib")
