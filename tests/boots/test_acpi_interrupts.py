# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""With ACPI, what containers of VFIO refuse (EPERM) is announced, and user space sees both.

On a machine with a GICv2m nothing is isolated. On one with an ITS all is that the table IORT leads
to it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.boots.early_tables import behind_smmu, put_before
from tests.guest import write_inventory
from tests.harness.calls import apply_role, call
from tests.harness.playbook import play

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

PROGRAM = "/root/read_registers.py"
EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"
TYPE1 = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
ANNOUNCED = "is refused (EPERM of vfio_iommu_type1)"

EDU, SLOT, SLOT_PATH, STREAM = "0000:00:03.0", "LNRO0005:02", "\\_SB_.VR02", 0xFF00
FUNCTION = {"pci_address": EDU, "policy": "vfio", "tag": "tried"}
DEVICE = {"acpi_path": SLOT_PATH, "policy": "vfio", "tag": "tried"}
# Of edu its identification, of a slot of virtio-mmio its magic value.
REGISTERS = {EDU: "0x000 0x010000ed\n", SLOT: "0x000 0x74726976\n"}


@pytest.fixture(scope="module", params=["acpi-gicv2", "acpi-gicv3"])
def guest(start: Callable[..., Guest], kernel: str, request: pytest.FixtureRequest) -> Guest:
    board: str = request.param
    guest = start(f"boots-{board}-{kernel.replace('.', '-')}", board, kernel)
    # QEMU restores no state of edu (hw/misc/edu.c), so its BAR is lost in a saved guest.
    guest.start_again()
    return guest


@pytest.fixture(scope="module")
def inventory(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    write_inventory(path, [guest])
    return path


def is_announced(inventory: Path, entry: dict[str, str], **settings: bool) -> bool:
    """Apply a list with one device, and return whether it warns of what containers refuse."""
    variables: dict[str, Any] = {"passthrough_devices": [entry], **settings}
    run = apply_role(inventory, {"passthrough_reset_required": False, **variables})
    return ANNOUNCED in " ".join(run.output.split())


def assert_opened_as_announced(
    guest: Guest, inventory: Path, entry: dict[str, str], device: str
) -> None:
    """Open the device by its group without the setting, and where that is refused with it."""
    guest.put(EXAMPLE, PROGRAM)
    is_refused = guest.board.name == "acpi-gicv2"
    read = f"udevadm settle; python3 {PROGRAM} /dev/vfio/by-tag/tried"
    try:
        assert is_announced(inventory, entry) is is_refused
        opened = guest.run(read, check=False)
        assert guest.run(["cat", TYPE1]).stdout == "N\n"
        report = call(inventory, "device_info", nulls=True).of("armfleet.vfio.device_info")
        (isolated,) = [
            shown["isolated_interrupts"] for shown in report["devices"] if shown["name"] == device
        ]
        assert isolated is (False if is_refused else None)
        if is_refused:
            assert opened.stdout == ""
            assert "VFIO_SET_IOMMU: Operation not permitted" in opened.stderr
            assert not is_announced(inventory, entry, passthrough_unsafe_interrupts=True)
            opened = guest.run(read)
        assert opened.stdout == REGISTERS[device]
    finally:
        assert play(inventory, "armfleet.vfio.release").code == 0


def test_a_function_is_opened_as_announced(guest: Guest, inventory: Path) -> None:
    assert_opened_as_announced(guest, inventory, FUNCTION, EDU)


def test_a_platform_device_is_opened_as_announced(
    guest: Guest, inventory: Path, kernel: str, tmp_path: Path
) -> None:
    """A slot that a table puts behind the SMMU, whose mappings lead to the ITS, if there is one."""
    initramfs = guest.prepare()[0].initramfs
    if initramfs is None:
        pytest.skip(f"{kernel} boots without an initramfs, so that no table can be added")
    shown = guest.run("base64 /sys/firmware/acpi/tables/IORT").stdout
    table = behind_smmu(base64.b64decode(shown), SLOT_PATH, STREAM)
    guest.start_again(initramfs=put_before(initramfs.read_bytes(), table, tmp_path))
    current = base64.b64decode(guest.run("base64 /sys/firmware/acpi/tables/IORT").stdout)
    assert current == table
    assert_opened_as_announced(guest, inventory, DEVICE, SLOT)
