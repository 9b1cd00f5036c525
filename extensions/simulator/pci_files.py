# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a PCI function in /sys, as drivers/pci/pci-sysfs.c of Linux 6.12 shows them."""

from __future__ import annotations

import errno
import struct

from .description import Function
from .tree import File, failure

_NO_NUMBER = 0xFFFF
_MULTIFUNCTION = 0x80


def show_identity(function: Function, last_bus: int) -> dict[str, File]:
    """Return the files whose content never changes; ``last_bus`` is the last one of a bridge."""
    identity = function.identity
    contents = {
        "vendor": f"0x{identity.vendor:04x}",
        "device": f"0x{identity.device:04x}",
        "subsystem_vendor": f"0x{identity.subsystem_vendor:04x}",
        "subsystem_device": f"0x{identity.subsystem_device:04x}",
        "class": f"0x{identity.class_code:06x}",
        "revision": f"0x{identity.revision:02x}",
        "numa_node": "-1",
    }
    if function.secondary is not None:
        contents["secondary_bus_number"] = str(function.secondary)
        contents["subordinate_bus_number"] = str(last_bus)
    return {name: File(f"{content}\n".encode()) for name, content in contents.items()}


def show_config(
    function: Function, last_bus: int, *, is_virtual: bool, is_multifunction: bool
) -> File:
    """Return the file of the configuration space, of which only the standard header has content.

    A virtual function has no ids there (include/uapi/linux/pci_regs.h for the offsets).
    """
    identity = function.identity
    is_bridge = function.secondary is not None
    space = bytearray(64)
    ids = (_NO_NUMBER, _NO_NUMBER) if is_virtual else (identity.vendor, identity.device)
    struct.pack_into("<HH", space, 0x00, *ids)
    struct.pack_into("<I", space, 0x08, identity.class_code << 8 | identity.revision)
    space[0x0E] = is_bridge | (_MULTIFUNCTION if is_multifunction else 0)
    if is_bridge:
        space[0x18:0x1B] = bytes((function.address.bus, function.secondary or 0, last_bus))
    else:
        subsystem = (identity.subsystem_vendor, identity.subsystem_device)
        struct.pack_into("<HH", space, 0x2C, *subsystem)
    return File(bytes(space), 0o644)


class ResetMethods:
    """How a function is reset, which root may restrict; reset_method_store in drivers/pci/pci.c."""

    def __init__(self, supported: tuple[str, ...]) -> None:
        self._supported = supported
        self._enabled = supported

    def files(self) -> dict[str, File]:
        """Return the file; a function that cannot be reset has none."""
        if not self._supported:
            return {}
        return {"reset_method": File(self._show, 0o644, self._store)}

    def _show(self) -> bytes:
        return f"{' '.join(self._enabled)}\n".encode() if self._enabled else b""

    def _store(self, data: bytes) -> None:
        names = data.decode(errors="replace").split()
        wanted = self._supported if names == ["default"] else tuple(names)
        if not set(wanted) <= set(self._supported):
            raise failure(errno.EINVAL)
        self._enabled = wanted
