# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boards that a guest can be."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_MEMORY = ("-m", "1024")
_MACHINE = ("-machine", "virt,gic-version=%d,iommu=smmuv3", "-cpu", "cortex-a57", *_MEMORY)
_RING = """\
        ring@b1%(index)02x000 {
            compatible = "acme,ring";
            reg = <0x0 0x0b1%(index)02x000 0x0 0x1000>;
            iommus = <&{/smmuv3@9050000} 0x2%(index)02x>;
        };
"""
_ENGINE = """\
        engine@b2%(index)02x000 {
            compatible = "acme,engine", "arm,primecell";
            reg = <0x0 0x0b2%(index)02x000 0x0 0x1000>;
            arm,primecell-periphid = <0x00099999>;
            clocks = <&{/apb-pclk}>;
            clock-names = "apb_pclk";
            iommus = <&{/smmuv3@9050000} 0x4%(index)02x>;
        };
"""


@dataclass(frozen=True)
class Hardware:
    """What QEMU's machine consists of; ``devices`` are values of its option -device, in order.

    The root disk is the drive ``disk``, the network with ssh the netdev ``net``. Spare disks are
    the drives ``spare0``, ``spare1`` and so on; as many networks of these names lead nowhere.
    ``model`` is QEMU's machine of a real board (real_board.py), of whose spare disks the first ones
    are its SD cards.
    """

    devices: tuple[str, ...]
    spare_disks: int = 0
    spare_networks: int = 0
    # One needs a sixth less of the machine's time than two do, for the same tests.
    processors: int = 1
    # A GICv3 has an ITS, a GICv2 a GICv2m.
    gic: int = 3
    model: str = ""
    sd_cards: int = 0

    @property
    def machine(self) -> tuple[str, ...]:
        """QEMU's options for the machine itself."""
        if self.model:
            # The number and kind of processors are those of the board.
            return ("-machine", self.model, *_MEMORY)
        machine = [word % self.gic if "%d" in word else word for word in _MACHINE]
        return (*machine, "-smp", str(self.processors))

    @property
    def can_be_saved(self) -> bool:
        """Return whether QEMU can save such a machine while it runs."""
        return not (self.model or any(device.startswith("nvme,") for device in self.devices))


# All virtio-mmio slots are free for tests.
_FREE_SLOTS = Hardware(
    devices=(
        "virtio-blk-pci,drive=disk,addr=0x1",
        "virtio-net-pci,netdev=net,addr=0x2,romfile=",
    )
)
# A function that VFIO can have without any other, behind each interrupt controller.
_EDU = replace(_FREE_SLOTS, devices=(*_FREE_SLOTS.devices, "edu,addr=0x3"))
# For what happens at the same time: rules and native drivers, runs, users' machines.
_TWO_PROCESSORS = replace(_FREE_SLOTS, processors=2)
# A processor that waits for the answer of acme-mc does nothing else, and several can wait at once.
_MANY_PROCESSORS = replace(_FREE_SLOTS, processors=4)
# For measuring, beside rings and engines: functions without a driver that QEMU can save, each in a
# slot of its own, so that each has a group of its own.
_MANY_FUNCTIONS = Hardware(
    devices=(
        *_FREE_SLOTS.devices,
        *("pvpanic-pci,addr=0x%x" % slot for slot in range(0x3, 0x3 + 24)),
    ),
    processors=2,
)
# The root disk is the first, so that it is vda. The NVMe disk is on PCI, where its host bridge is
# the platform device.
_FULL_SLOTS = Hardware(
    devices=(
        "virtio-blk-device,drive=disk,bus=virtio-mmio-bus.1",
        *(
            "virtio-blk-device,drive=spare%d,bus=virtio-mmio-bus.%d" % (number, 2 + number)
            for number in range(5)
        ),
        "nvme,serial=spare,drive=spare5",
        "virtio-net-device,netdev=net,bus=virtio-mmio-bus.10",
        "virtio-net-device,netdev=spare0,bus=virtio-mmio-bus.11",
    ),
    spare_disks=6,
    spare_networks=1,
)


# Of an NVMe with four virtual functions.
_SHARED_QUEUES = (
    "sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=14,msix_qsize=9"
)


def _functions(behind_ports: tuple[str, str], edu: str) -> Hardware:
    """Return PCI functions of all kinds, a function behind each of the first two ports.

    In slot 3 is an NVMe with virtual functions, which have groups of their own only directly on the
    root bus; slot 4 has two functions without ACS; ports have it; ssh comes in through a switch.
    """
    return Hardware(
        devices=(
            "virtio-blk-pci,drive=disk,addr=0x1",
            "ati-vga,addr=0x2,romfile=",
            "nvme-subsys,id=subsystem",
            "nvme,serial=shared,subsys=subsystem,addr=0x3," + _SHARED_QUEUES,
            "nvme-ns,drive=spare0",
            "nvme,serial=first,addr=0x4.0x0,multifunction=on",
            "nvme,serial=second,addr=0x4.0x1",
            *(
                "pcie-root-port,id=port%d,addr=0x%d,chassis=%d" % (number, number, number)
                for number in (5, 6, 7)
            ),
            *(
                "%s,bus=port%d" % (device, number)
                for number, device in enumerate(behind_ports, start=5)
            ),
            "x3130-upstream,id=upstream,bus=port7",
            "xio3130-downstream,id=downstream,bus=upstream,chassis=8",
            "virtio-net-pci,netdev=net,bus=downstream,romfile=",
            "edu,addr=" + edu,
        ),
        spare_disks=2,
        spare_networks=1,
        processors=2,
    )


_ETHERNET, _DISK = "e1000e,netdev=spare0,romfile=", "nvme,serial=alone,drive=spare1"
_FUNCTIONS = _functions((_ETHERNET, _DISK), edu="0x8")
# Two cards have changed places, and a third has moved.
_MOVED_FUNCTIONS = _functions((_DISK, _ETHERNET), edu="0x9")
# Debian's kernel would load it for the screen, which takes ten seconds and is in vain.
_NO_DRIVER_FOR_THE_SCREEN = ("module_blacklist=amdgpu",)
# As its device tree lists the slots, the last one has the first disk. The first slot has the random
# numbers of each guest.
_VERSAL = Hardware(
    model="xlnx-versal-virt",
    devices=(
        "virtio-blk-device,drive=disk,bus=virtio-mmio-bus.7",
        "virtio-blk-device,drive=spare2,bus=virtio-mmio-bus.6",
    ),
    spare_disks=3,
    sd_cards=2,
)
# zynqmp_dma up to 6.12 disables its clocks twice when it is unbound (zynqmp_dma_remove). The kernel
# warns of that with the lock of all clocks held, which another processor that writes to the console
# waits for in pl011_console_write: neither continues then.
_NO_WARNINGS_ON_THE_CONSOLE = ("loglevel=4",)


@dataclass(frozen=True)
class Board:
    """How the firmware describes the machine: a device tree, or ACPI when there is none.

    ``source`` is the board that it has its platform and AMBA devices from, beside ``rings`` on the
    platform bus and ``engines`` on the AMBA bus; ``parameters`` are added to the kernel's command
    line.
    """

    name: str
    rings: int = 0
    engines: int = 0
    device_tree: bool = True
    hardware: Hardware = _FREE_SLOTS
    source: str = ""
    parameters: tuple[str, ...] = ()


BOARDS = {
    board.name: board
    for board in (
        Board("a", rings=16),
        Board("b", rings=4),
        Board("c"),
        Board("d", rings=4, hardware=_FULL_SLOTS),
        Board("e", rings=200),
        Board("f", rings=4, hardware=_TWO_PROCESSORS),
        Board("g", rings=1),
        Board("h", rings=2),
        Board("races", rings=16, hardware=_TWO_PROCESSORS, source="a"),
        Board("acpi", device_tree=False),
        Board("acpi-gicv2", device_tree=False, hardware=replace(_EDU, gic=2)),
        Board("acpi-gicv3", device_tree=False, hardware=_EDU),
        Board("bench", rings=64, engines=16, hardware=_MANY_FUNCTIONS, source="a"),
        Board("buses", hardware=_MANY_PROCESSORS),
        Board("demo", rings=2, hardware=_TWO_PROCESSORS, source="a"),
        Board("pci", hardware=_FUNCTIONS, parameters=_NO_DRIVER_FOR_THE_SCREEN),
        Board(
            "pci-acpi",
            device_tree=False,
            hardware=_FUNCTIONS,
            parameters=_NO_DRIVER_FOR_THE_SCREEN,
        ),
        Board(
            "pci-moved",
            hardware=_MOVED_FUNCTIONS,
            source="pci",
            parameters=_NO_DRIVER_FOR_THE_SCREEN,
        ),
        Board("versal", hardware=_VERSAL, parameters=_NO_WARNINGS_ON_THE_CONSOLE),
    )
}


def board_named(name: str) -> Board:
    """Return one of BOARDS."""
    try:
        return BOARDS[name]
    except KeyError:
        raise GuestError("There is no board %r; there are %s" % (name, ", ".join(BOARDS))) from None


def _described_boards() -> list[Board]:
    """Return the boards whose device trees are QEMU's for its own machine, and an addition."""
    return [board for board in BOARDS.values() if board.device_tree and not board.hardware.model]


def source_text(board: Board) -> str:
    """Return what is added to QEMU's own device tree."""
    devices = [_RING % {"index": index} for index in range(board.rings)]
    devices += [_ENGINE % {"index": index} for index in range(board.engines)]
    written = (_SOURCES / ((board.source or board.name) + ".dts")).read_text()
    if board.hardware.model:
        return written
    return "%s\n&{/soc} {\n%s};\n" % (written, "".join(devices))


def _dump(machine: Sequence[str], folder: Path) -> str:
    """Return QEMU's own device tree for a machine."""
    log, compiled, text = folder / "build.log", folder / "virt.dtb", folder / "virt.dts"
    dump = [QEMU, "-machine", machine[1] + ",dumpdtb=%s" % compiled, *machine[2:]]
    # No network card: it is not in the device tree, and its boot ROM is a package of its own.
    commands.call([*dump, "-display", "none", "-nic", "none"], log=log)
    commands.call(["dtc", "-q", "-O", "dts", "-o", text, compiled], log=log)
    return text.read_text()


def _make(folder: Path) -> None:
    commands.require(QEMU, "dtc")
    log = folder / "build.log"
    boards = _described_boards()
    machines = {board.hardware.machine for board in boards}
    texts = {machine: _dump(machine, folder) for machine in machines}
    for board in boards:
        source = folder / (board.name + ".dts")
        source.write_text(texts[board.hardware.machine] + source_text(board))
        compiled = folder / (board.name + ".dtb")
        commands.call(["dtc", "-q", "-O", "dtb", "-o", compiled, source], log=log)


def qemu_version() -> str:
    """Return what QEMU says of its version."""
    commands.require(QEMU)
    told = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True)
    return told.stdout


def device_trees() -> Artefact:
    """NAME.dtb for every board that has a device tree, except models of real boards."""
    texts = [" ".join(board.hardware.machine) + source_text(board) for board in _described_boards()]
    return Artefact(
        name="boards",
        purpose="making the boards' device trees (a second)",
        recipe=[qemu_version(), *texts],
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
