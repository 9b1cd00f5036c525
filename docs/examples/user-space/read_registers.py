# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print registers of a VFIO device, opened by the link that its tag gives to its node.

python3 read_registers.py /dev/vfio/by-tag/clock
python3 read_registers.py /dev/vfio/devices/by-tag/clock --offset 0xfe0 --count 8
"""

import argparse
import enum
import fcntl
import mmap
import os
import re
import struct
import sys
from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, EPERM


class Request(enum.IntEnum):
    """Of linux/vfio.h, where each request is _IO(';', 100 + n)."""

    SET_IOMMU = 0x3B66
    GROUP_GET_STATUS = 0x3B67
    GROUP_SET_CONTAINER = 0x3B68
    GROUP_GET_DEVICE_FD = 0x3B6A
    DEVICE_GET_INFO = 0x3B6B
    DEVICE_GET_REGION_INFO = 0x3B6C
    DEVICE_BIND_IOMMUFD = 0x3B76


TYPE1V2_IOMMU, NOIOMMU_IOMMU = 3, 8
GROUP_IS_VIABLE, REGION_CAN_BE_MAPPED = 1, 4

UNSAFE = (
    "The IOMMU does not isolate the interrupts of this device. To accept that, write 1 to "
    "/sys/module/%s/parameters/allow_unsafe_interrupts."
)
NATIVE = "another device of its IOMMU group is bound to a native driver. Bind that to VFIO or none."
OPENED = "Stop the program that has the device open."
SEE_LOG = "Look for the reason in the kernel's log: dmesg."
REMEDIES = {
    (open, ENOENT): "Load the module that makes this node: vfio or iommufd.",
    (open, EACCES): "Run this as root, or give your group access to the node.",
    (open, EPERM): "A device without an IOMMU requires CAP_SYS_RAWIO. Run this as root.",
    (open, EBUSY): OPENED,
    (Request.SET_IOMMU, EPERM): UNSAFE % "vfio_iommu_type1",
    (Request.SET_IOMMU, ENODEV): "Load the module vfio_iommu_type1.",
    (Request.DEVICE_BIND_IOMMUFD, EPERM): UNSAFE % "iommufd" + " If it is set, " + NATIVE,
    (Request.DEVICE_BIND_IOMMUFD, EBUSY): OPENED,
    (Request.DEVICE_BIND_IOMMUFD, EINVAL): OPENED,
}


def open_node(path):
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}. {REMEDIES.get((open, error.errno), SEE_LOG)}")


def ioctl(descriptor, request, argument):
    """Return what ioctl(2) returns or, if `argument` is bytes, what the kernel wrote to them."""
    try:
        return fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        remedy = REMEDIES.get((request, error.errno), SEE_LOG)
        sys.exit(f"VFIO_{request.name}: {error.strerror}. {remedy}")


def open_by_group(node, device):
    """Open the device through the node of its IOMMU group and a container."""
    noiommu, number = re.fullmatch(r"/dev/vfio/(noiommu-)?(\d+)", node).groups()
    devices = os.listdir(f"/sys/kernel/iommu_groups/{number}/devices")
    if device is None and len(devices) == 1:
        device = devices[0]
    if device not in devices:
        sys.exit(f"{node} is the node of {', '.join(sorted(devices))}. Choose one with --device.")
    group, container = open_node(node), open_node("/dev/vfio/vfio")
    status = ioctl(group, Request.GROUP_GET_STATUS, struct.pack("2I", 8, 0))
    if not struct.unpack("2I", status)[1] & GROUP_IS_VIABLE:
        sys.exit(f"{device} cannot be opened: {NATIVE}")
    ioctl(group, Request.GROUP_SET_CONTAINER, struct.pack("i", container))
    ioctl(container, Request.SET_IOMMU, NOIOMMU_IOMMU if noiommu else TYPE1V2_IOMMU)
    # With bytes instead of a bytearray, Python returns these and loses the descriptor.
    return ioctl(group, Request.GROUP_GET_DEVICE_FD, bytearray(device.encode() + b"\0"))


def open_by_iommufd(node):
    """Open the device's own node, which allows nothing until it is bound to an iommufd."""
    iommufd, device = open_node("/dev/iommu"), open_node(node)
    ioctl(device, Request.DEVICE_BIND_IOMMUFD, struct.pack("2IiI", 16, 0, iommufd, 0))
    return device


def read_registers(device, offset, count):
    """Return words of region 0, each read with a single access of 32 bits."""
    info = ioctl(device, Request.DEVICE_GET_INFO, struct.pack("4I", 16, 0, 0, 0))
    if struct.unpack("4I", info)[2] == 0:
        sys.exit("The device has no region. Its node in the device tree has no `reg`.")
    info = ioctl(device, Request.DEVICE_GET_REGION_INFO, struct.pack("4I2Q", 32, 0, 0, 0, 0, 0))
    _argsz, flags, _index, _cap_offset, size, start = struct.unpack("4I2Q", info)
    if offset % 4 or not 0 <= offset < offset + 4 * count <= size:
        sys.exit(f"Region 0 has {size:#x} bytes. Choose words of 4 bytes within it.")
    if flags & REGION_CAN_BE_MAPPED:
        region = mmap.mmap(device, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=start)
        return memoryview(region).cast("I")[offset // 4 : offset // 4 + count].tolist()
    # The kernel maps whole pages only. Of less than a page it reads each word itself.
    positions = range(start + offset, start + offset + 4 * count, 4)
    return [struct.unpack("I", os.pread(device, 4, position))[0] for position in positions]


def main():
    parser = argparse.ArgumentParser(description="Print registers of a VFIO device.")
    parser.add_argument("link", help="in /dev/vfio/by-tag or /dev/vfio/devices/by-tag")
    parser.add_argument("--offset", type=lambda text: int(text, 0), default=0, help="in bytes")
    parser.add_argument("--count", type=int, default=1, help="of words of 32 bits")
    parser.add_argument("--device", metavar="NAME", help="if its group has several")
    options = parser.parse_args()
    node = os.path.realpath(options.link)
    if not os.path.exists(node):
        sys.exit(f"{options.link} does not exist. Give a device `policy: vfio` and this `tag`.")
    if re.fullmatch(r"/dev/vfio/(noiommu-)?\d+", node):
        device = open_by_group(node, options.device)
    elif node.startswith("/dev/vfio/devices/"):
        device = open_by_iommufd(node)
    else:
        sys.exit(f"{options.link} is no node of a VFIO device. Use a link in /dev/vfio/by-tag.")
    for index, word in enumerate(read_registers(device, options.offset, options.count)):
        print(f"{options.offset + 4 * index:#05x} {word:#010x}")


if __name__ == "__main__":
    main()
