# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device trees of real boards: about 1,000 of Debian's kernel for arm64, and the Jetsons."""

from __future__ import annotations

from pathlib import Path

from tests.guest import commands
from tests.guest.artefacts import Artefact
from tests.guest.debian_kernel import debian_kernel
from tests.guest.packages import DEFAULT_SERIES, SERIES, kernel_source

# Of these, Debian's kernel 6.12 is built without support.
JETSONS = (
    "tegra186-p2771-0000",
    "tegra194-p2972-0000",
    "tegra234-p3737-0000+p3701-0000",
    "tegra234-p3768-0000+p3767-0000",
)
_SOURCES = "arch/arm64/boot/dts"
# dt-bindings has a link to the last of them.
_WANTED = (_SOURCES + "/nvidia", "include/dt-bindings", "include/uapi/linux/input-event-codes.h")


def device_trees() -> list[Path]:
    """Return the .dtb files, in one directory for each maker; at first they are downloaded."""
    return sorted((debian_kernel().ensure() / "boards").rglob("*.dtb"))


def jetson_device_trees() -> list[Path]:
    """Return the .dtb files of NVIDIA's Jetson boards; at first they are compiled."""
    return sorted((_jetsons().ensure() / "nvidia").glob("*.dtb"))


def _jetsons() -> Artefact:
    source = kernel_source(SERIES[DEFAULT_SERIES])
    return Artefact(
        name="jetsons",
        purpose="compiling the device trees of Jetson boards (about 20 s)",
        recipe=[source.folder.name, *JETSONS, *_WANTED],
        make=_compile_jetsons,
    )


def _compile_jetsons(directory: Path) -> None:
    commands.require("cpp", "dtc", "tar")
    log = directory / "build.log"
    archive = kernel_source(SERIES[DEFAULT_SERIES]).ensure() / "linux.tar.xz"
    tree = directory / "source"
    tree.mkdir()
    wanted = ["*/" + path for path in _WANTED]
    unpacking = ["tar", "-xJf", str(archive), "-C", str(tree), "--strip-components=1"]
    commands.call([*unpacking, "--wildcards", *wanted], log=log)
    preprocessing = ["cpp", "-nostdinc", "-I", str(tree / "include"), "-undef", "-D__DTS__"]
    (directory / "nvidia").mkdir()
    text = directory / "preprocessed.dts"
    for name in JETSONS:
        source = tree / _SOURCES / "nvidia" / (name + ".dts")
        commands.call([*preprocessing, "-x", "assembler-with-cpp", source, "-o", text], log=log)
        compiled = directory / "nvidia" / (name + ".dtb")
        commands.call(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", compiled, text], log=log)
    commands.call(["rm", "-r", tree, text], log=log)
