# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest's kernel."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .errors import GuestError
from .packages import Series, kernel_source

_HERE = Path(__file__).parent
_CONFIG = _HERE / "kernel.config"
MAKE = (
    "make",
    "ARCH=arm64",
    "CROSS_COMPILE=aarch64-linux-gnu-",
    "-j%d" % (os.cpu_count() or 1),
)
# What an out-of-tree module needs of a built tree.
_FOR_MODULES = (
    "Makefile",
    "Kbuild",
    "Module.symvers",
    ".config",
    "scripts",
    "include",
    "arch/arm64/Makefile",
    "arch/arm64/include",
    "arch/arm64/kernel/vdso",
    "tools/include",
    # What a controller of the CDX bus includes.
    "drivers/cdx/cdx.h",
)


def _options(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line.startswith("CONFIG_"))
    return {name: value for name, _equals, value in pairs}


def _check_config(built: Path) -> None:
    """Kconfig drops in silence what another option forbids."""
    options = _options(built)
    lost = [
        "%s is %s, wanted %s" % (name, options.get(name, "n"), value)
        for name, value in _options(_CONFIG).items()
        if options.get(name, "n") != value
    ]
    if lost:
        raise GuestError("The kernel's configuration does not hold:\n  " + "\n  ".join(lost))


def _build_kernel(series: Series, folder: Path) -> None:
    commands.require("make", "aarch64-linux-gnu-gcc", "gcc", "flex", "bison", "bc", "perl")
    log = folder / "build.log"
    source = folder / "source"
    source.mkdir()
    archive = kernel_source(series).ensure() / "linux.tar.xz"
    commands.call(["tar", "-xJf", archive, "-C", source, "--strip-components=1"], log=log)
    commands.call([*MAKE, "-s", "tinyconfig"], cwd=source, log=log)
    merge = ["scripts/kconfig/merge_config.sh", "-m", ".config", str(_CONFIG)]
    commands.call(["sh", *merge], cwd=source, log=log)
    commands.call([*MAKE, "-s", "olddefconfig"], cwd=source, log=log)
    _check_config(source / ".config")
    commands.call([*MAKE, "-s", "Image", "modules"], cwd=source, log=log)
    install = ["modules_install", "INSTALL_MOD_PATH=%s" % (folder / "tree"), "DEPMOD=true"]
    commands.call([*MAKE, "-s", *install], cwd=source, log=log)
    (source / "arch/arm64/boot/Image").rename(folder / "Image")
    (folder / "config").write_bytes((source / ".config").read_bytes())
    (folder / "headers").mkdir()
    # Only the headers of the architecture that was built are of use.
    keep = [name for name in _FOR_MODULES if (source / name).exists()]
    commands.call(["cp", "-a", "--parents", *keep, folder / "headers"], cwd=source, log=log)
    commands.call(["rm", "-r", source], log=log)
    for link in (folder / "tree").glob("lib/modules/*/build"):
        link.unlink()


def kernel(series: Series) -> Artefact:
    """Image, config, tree (its modules) and headers (to build more)."""
    return Artefact(
        name="kernel",
        purpose="building a small arm64 Linux %s with every VFIO driver (about 8 minutes)"
        % series.name,
        recipe=[*kernel_source(series).recipe, _CONFIG, Path(__file__)],
        make=partial(_build_kernel, series),
    )
