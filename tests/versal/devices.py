"""The devices of board versal by their paths in the device tree, and what the machine uses."""

from __future__ import annotations

DMA_COMPATIBLE = "xlnx,zynqmp-dma-1.0"
DMA = [f"/dma@ffa{digit}0000" for digit in "89abcdef"]
CARD, SPARE_CARD = "/sdhci@f1040000", "/sdhci@f1050000"
NETWORK, SPARE_NETWORK = "/ethernet@ff0c0000", "/ethernet@ff0d0000"
CONSOLE, SPARE_UART = "/uart@ff000000", "/uart@ff010000"
ROOT, SWAP = "/virtio_mmio@a0000e00", "/virtio_mmio@a0000c00"
CLOCK, TIMER = "/rtc@f12a0000", "/timer"

# The native driver of each device that has one.
DRIVERS = {
    **dict.fromkeys(DMA, "xilinx-zynqmp-dma"),
    **dict.fromkeys((CARD, SPARE_CARD), "sdhci-arasan"),
    **dict.fromkeys((NETWORK, SPARE_NETWORK), "macb"),
    **dict.fromkeys((CONSOLE, SPARE_UART), "uart-pl011"),
    **dict.fromkeys((ROOT, SWAP), "virtio-mmio"),
    CLOCK: "rtc_zynqmp",
}

FURNISH = """
set -eu
mke2fs -q /dev/mmcblk0
mkswap --quiet /dev/vdb
mkdir -p /mnt/card
echo '/dev/mmcblk0 /mnt/card ext4 nofail 0 0' >> /etc/fstab
echo '/dev/vdb none swap nofail 0 0' >> /etc/fstab
systemctl daemon-reload
mount /mnt/card
swapon /dev/vdb
"""
