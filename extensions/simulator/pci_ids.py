# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses and identifiers of PCI functions, and the aliases by which drivers match them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

ANY = "*:*"
_NUMBER = r"(?:\*|[0-9a-f]{4})"
_IDENTIFIER = re.compile(rf"{_NUMBER}:{_NUMBER}(?::{_NUMBER}:{_NUMBER})?|[0-9a-f]{{6}}")
# PCI_CLASS_BRIDGE_PCI and PCI_CLASS_DISPLAY_VGA in include/linux/pci_ids.h
_BRIDGE = 0x0604
_VGA = 0x0300


class PciAddress(NamedTuple):
    """The address of a function; ``devfn`` is its slot, shifted by three bits, and its number."""

    domain: int
    bus: int
    devfn: int

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.devfn >> 3:02x}.{self.devfn & 7}"

    @property
    def slot(self) -> tuple[int, int, int]:
        return self.domain, self.bus, self.devfn >> 3

    @property
    def bus_key(self) -> tuple[int, int]:
        """Return domain and bus, which identify the bus on a machine."""
        return self.domain, self.bus

    def moved(self, distance: int) -> PciAddress:
        """Return the address so many functions further, as pci_iov_virtfn_bus does."""
        number = (self.bus << 8 | self.devfn) + distance
        return PciAddress(self.domain, number >> 8, number & 0xFF)


@dataclass(frozen=True)
class PciIdentity:
    """The numbers by which a driver matches a function; ``class_code`` has 24 bits."""

    vendor: int
    device: int
    class_code: int
    subsystem_vendor: int = 0
    subsystem_device: int = 0
    revision: int = 0

    @property
    def modalias(self) -> str:
        """Return modalias_show in drivers/pci/pci-sysfs.c, without the newline."""
        code = self.class_code
        return (
            f"pci:v{self.vendor:08X}d{self.device:08X}"
            f"sv{self.subsystem_vendor:08X}sd{self.subsystem_device:08X}"
            f"bc{code >> 16:02X}sc{code >> 8 & 0xFF:02X}i{code & 0xFF:02X}"
        )

    @property
    def is_bridge(self) -> bool:
        return self.class_code >> 8 == _BRIDGE

    @property
    def is_vga(self) -> bool:
        return self.class_code >> 8 == _VGA


def is_identifier(text: str) -> bool:
    """Return whether a text is an entry of a driver's table as ``alias`` takes it."""
    return _IDENTIFIER.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def alias(identifier: str, prefix: str = "pci") -> str:
    """Return the alias of an entry of a driver's table, as scripts/mod/file2alias.c makes it.

    The entry is an id such as "8086:10d3" or "15b3:1019:15b3:0008", of which each number may be
    "*", or a class such as "010802". The prefix of VFIO's drivers is "vfio_pci".
    """
    if ":" not in identifier:
        code = identifier.upper()
        return f"{prefix}:v*d*sv*sd*bc{code[:2]}sc{code[2:4]}i{code[4:]}"
    numbers = [
        number if number == "*" else f"0000{number.upper()}" for number in identifier.split(":")
    ]
    vendor, device, subvendor, subdevice = [*numbers, "*", "*"][:4]
    return f"{prefix}:v{vendor}d{device}sv{subvendor}sd{subdevice}bc*sc*i*"
