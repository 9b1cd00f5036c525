# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The root file system of every guest."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .keys import ssh_keys
from .modules import modules
from .native import native_programs
from .packages import Series, root_packages
from .userlands import DEFAULT_USERLAND, Userland

_HERE = Path(__file__).parent
_ADDED = _HERE / "rootfs"
_FURNISH = _HERE / "furnish.py"
_OF_USERLAND = _HERE / "userland_disk.py"


def _make(series: Series, userland: Userland, folder: Path) -> None:
    commands.require("mke2fs", "tar")
    of_userland = [] if userland.is_default else [userland.suite]
    program = _OF_USERLAND if of_userland else _FURNISH
    module = [sys.executable, "-m", "%s.%s" % (__package__, program.stem)]
    argv = [*commands.pretending_root(), *module, *of_userland, series.name, str(folder)]
    commands.call(argv, cwd=_HERE.parents[1], log=folder / "build.log")


def disk(series: Series, userland: Userland = DEFAULT_USERLAND) -> Artefact:
    """disk.raw, an ext4 file system without a partition table."""
    added = sorted(path for path in _ADDED.rglob("*") if path.is_file())
    names = [str(path.relative_to(_ADDED)) for path in added]
    keys = ssh_keys().ensure()
    parts = [
        root_packages(userland).ensure().name,
        native_programs(userland).ensure().name,
        modules(series).ensure().name,
    ]
    return Artefact(
        name=userland.named("disk"),
        purpose="making the disk of guests with Linux %s (about 10 s)"
        % userland.named(series.name),
        recipe=[
            *(*parts, keys / "login.pub", keys / "host.pub", *names, *added, _FURNISH),
            *([] if userland.is_default else [_OF_USERLAND, repr(userland)]),
        ],
        make=partial(_make, series, userland),
    )
