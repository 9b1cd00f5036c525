# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel modules of our own, for devices that have no hardware behind them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .kernel import MAKE, kernel
from .packages import Series

_SOURCES = Path(__file__).with_name("modules")


def _make(series: Series, folder: Path) -> None:
    commands.require("make", "aarch64-linux-gnu-gcc")
    log = folder / "build.log"
    work = folder / "work"
    commands.call(["cp", "-a", _SOURCES, work], log=log)
    headers = kernel(series).ensure() / "headers"
    commands.call([*MAKE, "-s", "-C", headers, "M=%s" % work, "modules"], log=log)
    for module in sorted(work.glob("*.ko")):
        module.rename(folder / module.name)
    commands.call(["rm", "-r", work], log=log)


def modules(series: Series) -> Artefact:
    """The .ko files of modules/."""
    sources = sorted(path for path in _SOURCES.iterdir() if path.is_file())
    return Artefact(
        name="modules",
        purpose="building the test modules (a few seconds)",
        # The configuration names the kernel's exact version, which its recipe does not.
        recipe=[kernel(series).ensure() / "config", *sources, Path(__file__)],
        make=partial(_make, series),
    )
