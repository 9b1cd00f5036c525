"""The PCI functions of the boards pci and pci-acpi (tests/guest/README.md)."""

from __future__ import annotations

HOST_BRIDGE = "0000:00:00.0"
ROOT_DISK = "0000:00:01.0"
SCREEN = "0000:00:02.0"
# An NVMe that can have virtual functions.
PHYSICAL = "0000:00:03.0"
VIRTUAL = [f"0000:00:03.{number}" for number in (1, 2, 3, 4)]
# Two NVMe in one slot and one IOMMU group.
FIRST, SECOND = "0000:00:04.0", "0000:00:04.1"
# Root ports, and an e1000e and an NVMe behind the first two of them.
PORT, OTHER_PORT, PORT_OF_SWITCH = "0000:00:05.0", "0000:00:06.0", "0000:00:07.0"
ETHERNET, DISK = "0000:01:00.0", "0000:02:00.0"
SWITCH = ("0000:03:00.0", "0000:04:00.0")
NETWORK = "0000:05:00.0"
# Without a native driver, and without a reset.
EDU = "0000:00:08.0"

NVME_ID, ETHERNET_ID, EDU_ID = "1b36:0010", "8086:10d3", "1234:11e8"
NVME_WHOLE_ID, ETHERNET_WHOLE_ID = f"{NVME_ID}:1af4:1100", f"{ETHERNET_ID}:8086:0000"

# Driver and override of a function on VFIO, and of edu, for which a module has a driver of its own.
VFIO = ("vfio-pci", "vfio-pci")
VARIANT = ("acme_vfio_pci", "acme_vfio_pci")

# Path of the port's node and of that of the function behind it.
PORT_NODE = "/pcie@10000000/pcie@5,0"
ETHERNET_NODE = f"{PORT_NODE}/ethernet@0,0"
