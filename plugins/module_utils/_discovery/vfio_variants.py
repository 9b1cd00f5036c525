# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VFIO drivers that the kernel has for some devices alone, as mlx5_vfio_pci. Reads only.

Such a driver has an alias for each device that it knows (PCI_DRIVER_OVERRIDE_DEVICE_VFIO in
include/linux/pci.h), which is the device's modalias with another prefix. Only with it can a virtual
machine be migrated, or use all of the memory of a GPU.
"""

from __future__ import annotations

from typing import Iterable

from .. import _text
from .._model.buses import BUSES
from .._model.device import Identity
from .._system.kmod import Kmod, canonical_name
from .._system.sysfs import Sysfs
from .vfio import modalias


def find_variants(sysfs: Sysfs, kmod: Kmod, devices: Iterable[Identity]) -> dict[str, str]:
    """Return the driver for each id that the kernel has one for; ids have those of the subsystem.

    The driver of a module that is not loaded is taken to be called as the module is, which is what
    KBUILD_MODNAME makes of nearly all of them.
    """
    asked = {
        device.pci_id[-1]: device
        for device in devices
        if device.pci_id and BUSES[device.bus].vfio_variants
    }
    aliases = {
        pci_id: "vfio_" + (modalias(sysfs, device) or _future_modalias(pci_id))
        for pci_id, device in asked.items()
    }
    kmod.resolve_at_once(list(aliases.values()))
    variants = {}
    for pci_id, alias in aliases.items():
        bus = BUSES[asked[pci_id].bus]
        modules = [
            module for module in kmod.resolve(alias) if canonical_name(module) != bus.vfio_module
        ]
        if modules:
            module = max(modules, key=lambda module: _specificity(kmod, module, alias))
            variants[pci_id] = _driver_of(sysfs, bus.name, canonical_name(module))
    return variants


def _future_modalias(pci_id: str) -> str:
    """Return the modalias of a virtual function that is not there yet, but for its class.

    No VFIO driver asks for a class.
    """
    parts = [*pci_id.upper().split(":"), "", ""][:4]
    named = "pci:v0000%sd0000%s" % tuple(parts[:2])
    return named + "sv%08Xsd%08Xbc00sc00i00" % tuple(int(part or "0", 16) for part in parts[2:])


def _specificity(kmod: Kmod, module: str, alias: str) -> int:
    """Return how much of the alias the module's best pattern spells out."""
    patterns = [pattern for pattern in kmod.aliases(module) or () if _text.is_like(alias, pattern)]
    return max((len(pattern) - pattern.count("*") for pattern in patterns), default=0)


def _driver_of(sysfs: Sysfs, bus: str, module: str) -> str:
    links = (name.partition(":") for name in sysfs.names("module/%s/drivers" % module))
    return next((driver for on, _colon, driver in links if on == bus), module)
