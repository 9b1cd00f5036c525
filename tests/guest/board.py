# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boards that a guest can be."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .errors import GuestError

_SOURCES = Path(__file__).with_name("boards")
_FIRMWARE = (
    Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
    Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
)
QEMU = "qemu-system-aarch64"
# Disk and network are on PCI where the board does not say otherwise, so that all virtio-mmio slots
# are free for tests.
MACHINE = (
    *("-machine", "virt,gic-version=3,iommu=smmuv3"),
    *("-cpu", "cortex-a57"),
    *("-smp", "2"),
    *("-m", "1024"),
)
_RING = """\
        ring@b1%(index)02x000 {
            compatible = "acme,ring";
            reg = <0x0 0x0b1%(index)02x000 0x0 0x1000>;
            iommus = <&{/smmuv3@9050000} 0x2%(index)02x>;
        };
"""


@dataclass(frozen=True)
class Board:
    """How the firmware describes the machine: a device tree, or ACPI when there is none.

    One that ``stands_on_platform`` has its disks and its network in virtio-mmio slots, and an NVMe
    disk, whose state QEMU cannot save. ``source`` is the board that it has its other devices from.
    """

    name: str
    rings: int = 0
    device_tree: bool = True
    stands_on_platform: bool = False
    source: str = ""

    @property
    def can_be_saved(self) -> bool:
        """Whether QEMU can save such a machine while it runs."""
        return not self.stands_on_platform


BOARDS = {
    board.name: board
    for board in (
        Board("a", rings=16),
        Board("b", rings=4),
        Board("c"),
        Board("d", rings=4, stands_on_platform=True),
        Board("e", rings=200),
        Board("f", rings=4),
        Board("g", rings=1),
        Board("h", rings=2),
        Board("acpi", device_tree=False),
        Board("bench", rings=64, source="a"),
        Board("demo", rings=2, source="a"),
    )
}


def board_named(name: str) -> Board:
    """Return one of BOARDS."""
    try:
        return BOARDS[name]
    except KeyError:
        raise GuestError("There is no board %r; there are %s" % (name, ", ".join(BOARDS))) from None


def source_text(board: Board) -> str:
    """Return what is added to QEMU's own device tree."""
    rings = "".join(_RING % {"index": index} for index in range(board.rings))
    written = (_SOURCES / ((board.source or board.name) + ".dts")).read_text()
    return "%s\n&{/soc} {\n%s};\n" % (written, rings)


def _make(folder: Path) -> None:
    commands.require(QEMU, "dtc")
    log = folder / "build.log"
    dump = [QEMU, "-machine", MACHINE[1] + ",dumpdtb=%s" % (folder / "virt.dtb"), *MACHINE[2:]]
    # No network card: it is not in the device tree, and its boot ROM is a package of its own.
    commands.call([*dump, "-display", "none", "-nic", "none"], log=log)
    commands.call(
        ["dtc", "-q", "-O", "dts", "-o", folder / "virt.dts", folder / "virt.dtb"], log=log
    )
    for board in BOARDS.values():
        if board.device_tree:
            source = folder / (board.name + ".dts")
            source.write_text((folder / "virt.dts").read_text() + source_text(board))
            compiled = folder / (board.name + ".dtb")
            commands.call(["dtc", "-q", "-O", "dtb", "-o", compiled, source], log=log)


def qemu_version() -> str:
    """Return what QEMU says of its version."""
    commands.require(QEMU)
    told = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return told.stdout


def device_trees() -> Artefact:
    """NAME.dtb for every board that has a device tree."""
    texts = [source_text(board) for board in BOARDS.values() if board.device_tree]
    return Artefact(
        name="boards",
        purpose="making the boards' device trees (a second)",
        recipe=[qemu_version(), " ".join(MACHINE), *texts],
        make=_make,
    )


def firmware() -> Path:
    """UEFI for the boards without a device tree."""
    for path in _FIRMWARE:
        if path.exists():
            return path
    raise GuestError(
        "No UEFI firmware for arm64 on this machine; install the Debian package qemu-efi-aarch64"
    )
