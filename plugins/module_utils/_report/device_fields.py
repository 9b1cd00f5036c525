# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every result returns of a device. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._model.device import Identity, State

if TYPE_CHECKING:
    from .._discovery.builtin_drivers import BuiltinBinding


def identity(device: Identity) -> dict[str, Any]:
    """Return the names of a device; unset is null."""
    return {
        "name": device.name,
        "bus": device.bus,
        "dt_path": device.dt_path,
        "compatible": list(device.compatible),
        "acpi_path": device.acpi_path,
        "acpi_hid": device.acpi_hid,
        "acpi_uid": device.acpi_uid,
        "pci_id": device.pci_id[-1] if device.pci_id else None,
    }


def running(state: State) -> dict[str, Any]:
    """Return what drives a device; unset is null."""
    return {
        "driver": state.driver,
        "driver_override": state.driver_override,
        "iommu_group": state.iommu_group,
        "vfio_nodes": list(state.vfio_nodes),
    }


def kernel_parameter(binding: BuiltinBinding) -> dict[str, str | None]:
    """Return what only the kernel's command line can prevent."""
    return {
        "name": binding.device.name,
        "driver": binding.driver,
        "parameter": binding.parameter,
        "message": binding.sentence,
    }
