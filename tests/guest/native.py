# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs of the guest's release of Debian, built for this machine.

They do what would take minutes under emulation. They bring their own C library, so that they run
on any release.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .packages import download, host_architecture, of_this_machine
from .userlands import DEFAULT_USERLAND, USERLANDS, Userland

_SYSUSERS = "systemd-standalone-sysusers"
_PACKAGES = (
    "libc6",
    # sysusers, which makes the users of the root file system
    _SYSUSERS,
    "libcap2",
    "libcrypt1",
    "libpcre2-8-0",
    "libselinux1",
    # a Python of the guest's version, which compiles the guest's library
    r"?name(^python3\.[0-9]+-minimal$)",
    "libexpat1",
    "zlib1g",
)


def _names(userland: Userland) -> list[str]:
    """Return the packages: sysusers of the default makes the users of all of them."""
    return [name for name in _PACKAGES if userland.is_default or name != _SYSUSERS]


def _make(userland: Userland, folder: Path) -> None:
    log = folder / "build.log"
    wanted = [of_this_machine(name) for name in _names(userland)]
    for package in download(wanted, folder, userland.suite):
        commands.call(["dpkg-deb", "-x", package, folder / "tree"], log=log)
        package.unlink()
    if not userland.is_merged:
        commands.call(["cp", "-aT", folder / "tree/lib", folder / "tree/usr/lib"], log=log)


def native_programs(userland: Userland = DEFAULT_USERLAND) -> Artefact:
    """tree: the programs and what they need."""
    return Artefact(
        name=userland.named("native"),
        purpose="downloading programs of Debian %s for this machine (3 MB)" % userland.suite,
        recipe=[userland.suite, host_architecture(), *_names(userland)],
        make=partial(_make, userland),
    )


def through_loader(program: Path, libraries: Path) -> list[str]:
    """Return the words that run ``program`` with the C library below ``libraries``."""
    (loader,) = (path for path in libraries.glob("*/ld-linux-*.so.*"))
    return [str(loader), "--library-path", str(loader.parent), str(program)]


def native(program: str) -> list[str]:
    """Return the words that run a program, such as usr/bin/python3.13, on this machine.

    A version of Python comes from the userland that has it.
    """
    pythons = {"usr/bin/python" + userland.python: userland for userland in USERLANDS.values()}
    tree = native_programs(pythons.get(program, DEFAULT_USERLAND)).ensure() / "tree"
    return through_loader(tree / program, tree / "usr/lib")
