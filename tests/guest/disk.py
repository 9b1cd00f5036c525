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

_HERE = Path(__file__).parent
_ADDED = _HERE / "rootfs"
_FURNISH = _HERE / "furnish.py"


def _make(series: Series, folder: Path) -> None:
    commands.require("mke2fs", "tar")
    program = [
        sys.executable,
        "-m",
        "%s.%s" % (__package__, _FURNISH.stem),
        series.name,
        str(folder),
    ]
    argv = [*commands.pretending_root(), *program]
    commands.call(argv, cwd=_HERE.parents[1], log=folder / "build.log")


def disk(series: Series) -> Artefact:
    """disk.raw, an ext4 file system without a partition table."""
    added = sorted(path for path in _ADDED.rglob("*") if path.is_file())
    names = [str(path.relative_to(_ADDED)) for path in added]
    keys = ssh_keys().ensure()
    parts = [
        root_packages().ensure().name,
        native_programs().ensure().name,
        modules(series).ensure().name,
    ]
    return Artefact(
        name="disk",
        purpose="making the disk of guests with Linux %s (about 10 s)" % series.name,
        recipe=[*parts, keys / "login.pub", keys / "host.pub", *names, *added, _FURNISH],
        make=partial(_make, series),
    )
