# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU's models of real boards, with Debian's own kernel and the drivers of their hardware.

The kernel lacks some of these drivers. They are built out of its tree from its own source, and
added to a copy of the disk that all guests have.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .board import QEMU, Board, qemu_version, source_text
from .build import Parts, build
from .disk import disk
from .errors import GuestError
from .kernel import kernel
from .machine import Machine
from .modules import STOCK_OPTIONS, modules
from .packages import Series, kernel_source
from .small_kernel import MAKE
from .userlands import Userland

# Of the kernel's source, with what they include.
_SOURCES = (
    "drivers/dma/xilinx/zynqmp_dma.c",
    "drivers/dma/dmaengine.h",
    "drivers/rtc/rtc-zynqmp.c",
)
_KBUILD = "obj-m := drivers/dma/xilinx/zynqmp_dma.o drivers/rtc/rtc-zynqmp.o\n"
# Of a directory of modules, what depmod writes and the disk of all guests has already.
_INDEX = "modules.*"


class ModelMachine(Machine):
    """A guest that is a model of a real board."""

    def _hardware(self, board: Board) -> list[str]:
        # The network card is on the board: it takes the first one that QEMU is to have.
        argv = ["-net", "nic,netdev=net"]
        for number, spare in enumerate(self._spare_disks(board)):
            is_card = number < board.hardware.sd_cards
            slot = "if=sd,index=%d" % number if is_card else "if=none,id=%s" % spare.stem
            argv += ["-drive", "%s,format=raw,cache=unsafe,file=%s" % (slot, spare)]
        for device in board.hardware.devices:
            argv += ["-device", device]
        return argv


def build_for_model(board: Board, series: Series, userland: Userland) -> Parts:
    """Build what is missing of what a guest with such a board is made of."""
    if not userland.is_default:
        raise GuestError("Board %s has the default userland only. Omit --userland" % board.name)
    if not series.stock:
        raise GuestError(
            "Board %s has drivers for Debian's own kernel only. Add --kernel debian" % board.name
        )
    parts = build(series)
    return replace(
        parts,
        device_trees=_device_tree(board, parts.image).ensure(),
        disk=_disk(series).ensure() / "disk.raw",
    )


def _device_tree(board: Board, image: Path) -> Artefact:
    return Artefact(
        name="board-" + board.name,
        purpose="making the device tree of board %s (a second)" % board.name,
        recipe=[qemu_version(), " ".join(board.hardware.machine), source_text(board)],
        make=partial(_describe, board, image),
    )


def _describe(board: Board, image: Path, folder: Path) -> None:
    commands.require(QEMU, "dtc")
    log, compiled = folder / "build.log", folder / (board.name + ".dtb")
    source = compiled.with_suffix(".dts")
    option, model, *others = board.hardware.machine
    dump = [option, "%s,dumpdtb=%s" % (model, compiled), *others]
    # Only with a kernel does it describe how further processors are started.
    commands.call([QEMU, *dump, "-kernel", image, "-display", "none", "-nic", "none"], log=log)
    commands.call(["dtc", "-q", "-O", "dts", "-o", source, compiled], log=log)
    source.write_text(source.read_text() + source_text(board))
    commands.call(["dtc", "-q", "-O", "dtb", "-o", compiled, source], log=log)


def _disk(series: Series) -> Artefact:
    return Artefact(
        name="disk-with-drivers",
        purpose="building drivers of real boards into a disk (about 25 s)",
        recipe=[disk(series).ensure().name, kernel_source(series).folder.name, Path(__file__)],
        make=partial(_make_disk, series),
    )


def _make_disk(series: Series, folder: Path) -> None:
    commands.require("debugfs", "depmod")
    log = folder / "build.log"
    work = folder / "work"
    drivers = _build_drivers(series, work, log)
    tree = folder / "tree"
    commands.call(["cp", "-r", modules(series).ensure() / "tree", tree], log=log)
    (version,) = (tree / "lib/modules").iterdir()
    added = [Path(shutil.copy(driver, version / "updates")) for driver in drivers]
    commands.call(["depmod", "-b", tree, version.name], log=log)
    shutil.copyfile(disk(series).ensure() / "disk.raw", folder / "disk.raw")
    _write(folder / "disk.raw", version, [*added, *sorted(version.glob(_INDEX))], log)
    commands.call(["rm", "-r", work, tree], log=log)


def _build_drivers(series: Series, work: Path, log: Path) -> list[Path]:
    """Return the modules, built in the directory ``work``."""
    commands.require("make", "aarch64-linux-gnu-gcc", "tar")
    source, built = kernel_source(series).ensure(), kernel(series).ensure()
    version = (source / "version").read_text().strip()
    _name, of_the_kernel = (built / "package").read_text().split()
    if version != of_the_kernel:
        raise GuestError(
            "The source of Linux %s is not that of the kernel %s. Delete %s and %s"
            % (version, of_the_kernel, source, built)
        )
    work.mkdir()
    wanted = ["*/" + path for path in _SOURCES]
    unpacking = ["tar", "-xJf", source / "linux.tar.xz", "-C", work, "--strip-components=1"]
    commands.call([*unpacking, "--wildcards", *wanted], log=log)
    (work / "Kbuild").write_text(_KBUILD)
    make = [*MAKE, "-s", "-C", built / "headers", "M=%s" % work, *STOCK_OPTIONS, "modules"]
    commands.call(make, log=log)
    return sorted(work.rglob("*.ko"))


def _write(image: Path, version: Path, paths: Sequence[Path], log: Path) -> None:
    """Write files of a directory of modules to a file system that has this directory, too."""
    script = image.with_name("script")
    target = "/usr/lib/modules/" + version.name
    lines = []
    for path in paths:
        name = "%s/%s" % (target, path.relative_to(version))
        # It is an error if there is none yet.
        lines += ["rm %s" % name, "write %s %s" % (path, name)]
    script.write_text("".join("%s\n" % line for line in lines))
    commands.call(["debugfs", "-w", "-f", script, image], log=log)
    commands.call(["e2fsck", "-f", "-n", image], log=log)
    script.unlink()
