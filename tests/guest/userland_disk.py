# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk of a guest with another userland than the default: the same with what differs.

A program of its own, which runs under fakeroot as a whole, like furnish.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import commands
from .furnish import furnish
from .kernel import kernel
from .modules import modules
from .packages import SERIES, Series, root_packages
from .userlands import Userland, userland_named

# Packages of older releases make these users and links when they are configured; lines for a user
# that a package of the release declares as well have no effect.
_USERS = """\
u sshd - "sshd privilege separation" /run/sshd
u messagebus - "System message bus"
"""
_LINKS = {"usr/bin/sh": "dash"}
# furnish() links the former to the latter, as newer releases do.
_MOVED = {"usr/bin/which": "usr/bin/which.debianutils"}


def _prepare(tree: Path) -> None:
    """Make of a tree what furnish() expects."""
    (tree / "usr/lib/sysusers.d/zz-guest.conf").write_text(_USERS)
    for name, target in _LINKS.items():
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(target)
    for old, new in _MOVED.items():
        if not (tree / new).exists():
            (tree / old).rename(tree / new)


def _omit_unknown(userland: Userland, tree: Path) -> None:
    """Omit the options of sshd that it would refuse to start with."""
    path = tree / "etc/ssh/sshd_config"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(userland.unknown)))


def _add_kernel(series: Series, tree: Path, log: Path) -> None:
    loadable = modules(series).ensure() / "tree/lib/modules"
    commands.call(["cp", "-r", loadable, tree / "usr/lib/"], log=log)
    (version,) = loadable.iterdir()
    (tree / "boot").mkdir(exist_ok=True)
    config = tree / "boot" / ("config-" + version.name)
    config.write_bytes((kernel(series).ensure() / "config").read_bytes())


def fill(userland: Userland, series: Series, folder: Path) -> None:
    """Make directory/disk.raw."""
    log = folder / "build.log"
    tree = folder / "tree"
    tree.mkdir()
    archive = root_packages(userland).ensure() / "root.tar"
    commands.call(["tar", "-xpf", archive, "-C", tree, "--exclude=./dev/*"], log=log)
    _prepare(tree)
    furnish(tree, log)
    _omit_unknown(userland, tree)
    _add_kernel(series, tree, log)
    file_system = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree)]
    commands.call([*file_system, folder / "disk.raw", "1G"], log=log)
    commands.call(["rm", "-r", tree], log=log)


if __name__ == "__main__":
    fill(userland_named(sys.argv[1]), SERIES[sys.argv[2]], Path(sys.argv[3]))
