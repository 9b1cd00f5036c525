"""Virtual functions of the board's NVMe, by writes to /sys as a user makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.pci.functions import PHYSICAL

if TYPE_CHECKING:
    from tests.guest import Guest

_DIRECTORY = f"/sys/bus/pci/devices/{PHYSICAL}"
# Virtualization management and the secondary controller list of the NVMe specification, by
# NVME_IOCTL_ADMIN_CMD of linux/nvme_ioctl.h. A controller must be offline to be given queues.
_ASSIGN = r"""
import ctypes, fcntl, os, struct, sys
IDENTIFY, VIRTUALIZATION_MANAGEMENT = 0x06, 0x1C
SECONDARY_CONTROLLERS = 0x15
OFFLINE, ASSIGN, ONLINE = 7, 8, 9
QUEUES, INTERRUPTS = 0, 1
def admin(opcode, dword10, dword11=0, length=0):
    data = ctypes.create_string_buffer(length)
    address = ctypes.addressof(data) if length else 0
    command = struct.pack(
        "<BBHIIIQQIIIIIIIIII",
        *(opcode, 0, 0, 0, 0, 0, 0, address, 0, length, dword10, dword11, 0, 0, 0, 0, 0, 0)
    )
    status = fcntl.ioctl(device, 0xC0484E41, bytearray(command))
    if status:
        sys.exit("NVMe command %#x: status %#x" % (opcode, status))
    return data.raw
function = sys.argv[1]
(controller,) = os.listdir(function + "/nvme")
device = os.open("/dev/" + controller, os.O_RDWR)
listing = admin(IDENTIFY, SECONDARY_CONTROLLERS, length=4096)
for index in range(listing[0]):
    entry = struct.unpack_from("<HHB3xH", listing, 32 + 32 * index)
    number, _primary, _is_online, virtual_function = entry
    if virtual_function and os.path.exists("%s/virtfn%d" % (function, virtual_function - 1)):
        for action, resource, count in (
            (OFFLINE, 0, 0), (ASSIGN, QUEUES, 2), (ASSIGN, INTERRUPTS, 1), (ONLINE, 0, 0)
        ):
            admin(VIRTUALIZATION_MANAGEMENT, action | resource << 8 | number << 16, count)
"""


def create_virtual_functions(guest: Guest, count: int) -> None:
    """Let the physical function have so many virtual ones, none of them bound to a driver."""
    guest.run(f"""
        cd {_DIRECTORY}
        echo 0 > sriov_drivers_autoprobe
        echo {count} > sriov_numvfs
        echo 1 > sriov_drivers_autoprobe
        udevadm settle
    """)


def assign_queues(guest: Guest) -> None:
    """Give queues to each virtual function, without which nvme does not bind to it."""
    guest.run(["python3", "-", _DIRECTORY], input=_ASSIGN)


def probe_virtual_functions(guest: Guest) -> None:
    guest.run(f"""
        for link in {_DIRECTORY}/virtfn*; do
            basename $(readlink $link) > /sys/bus/pci/drivers_probe
        done
        udevadm settle
    """)


def bind_to_vfio(guest: Guest, address: str) -> None:
    guest.run(f"""
        modprobe vfio-pci
        echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override
        echo {address} > /sys/bus/pci/drivers_probe
        udevadm settle
    """)


def remove_virtual_functions(guest: Guest) -> None:
    guest.run(f"echo 0 > {_DIRECTORY}/sriov_numvfs")
