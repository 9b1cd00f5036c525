# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single writes that change a device's driver, or reload a module of VFIO."""

from __future__ import annotations

import errno
from typing import Mapping

from .._discovery.devices import sysfs_dir
from .._discovery.vfio import INTERRUPTS, NOIOMMU, present_settings
from .._discovery.virtual_functions import AUTOPROBE, NUMVFS, autoprobes, numvfs
from .._model.device import Identity
from .._model.policy import VfioSettings
from .._system.kmod import Kmod, canonical_name
from .._system.sysfs import KernelRefusedError, Sysfs


def driver_of(sysfs: Sysfs, device: Identity) -> str | None:
    """Return the driver that the device is bound to, or None."""
    return sysfs.link_name(sysfs_dir(device) + "/driver")


def override(sysfs: Sysfs, device: Identity, driver: str | None) -> None:
    """Set driver_override, or clear it with None."""
    # A write of zero bytes does not clear it.
    sysfs.write(sysfs_dir(device) + "/driver_override", (driver or "") + "\n")


def unbind(sysfs: Sysfs, device: Identity, driver: str) -> None:
    """Unbind the device from ``driver``, if it is bound to it."""
    if driver_of(sysfs, device) == driver:
        sysfs.write("bus/%s/drivers/%s/unbind" % (device.bus, driver), device.name)


def bind(sysfs: Sysfs, device: Identity, driver: str) -> None:
    """Bind the device to ``driver``, unless it is bound to it."""
    # A driver that was registered after the override was set has bound the device already. "bind"
    # tells the probe's own errno, which drivers_probe hides.
    if driver_of(sysfs, device) == driver:
        return
    try:
        sysfs.write("bus/%s/drivers/%s/bind" % (device.bus, driver), device.name)
    except KernelRefusedError:
        if driver_of(sysfs, device) != driver:
            raise


def probe(sysfs: Sysfs, device: Identity) -> None:
    """Let the kernel choose a driver for the device; reading back tells which."""
    try:
        sysfs.write("bus/%s/drivers_probe" % device.bus, device.name)
    except KernelRefusedError as error:
        # The native driver failed or waits for a supplier.
        if error.code != errno.EINVAL:
            raise


def set_numvfs(sysfs: Sysfs, device: Identity, number: int) -> None:
    """Set the number of virtual functions, without a driver for them."""
    path = sysfs_dir(device)
    now = numvfs(sysfs, device)
    if now == number:
        return
    # sriov_numvfs_store in drivers/pci/iov.c changes it only from and to 0.
    if now:
        sysfs.write("%s/%s" % (path, NUMVFS), "0")
    if number:
        is_on = autoprobes(sysfs, device)
        # Otherwise a native driver would have them before their overrides are set.
        if is_on:
            set_autoprobes(sysfs, device, is_on=False)
        try:
            sysfs.write("%s/%s" % (path, NUMVFS), str(number))
        finally:
            if is_on:
                set_autoprobes(sysfs, device, is_on=True)


def set_autoprobes(sysfs: Sysfs, device: Identity, *, is_on: bool) -> None:
    """Set whether native drivers probe new virtual functions by themselves."""
    sysfs.write("%s/%s" % (sysfs_dir(device), AUTOPROBE), "1" if is_on else "0")


def is_loaded(sysfs: Sysfs, module: str) -> bool:
    """Return whether a module is loaded; one that is built in may look as if it were not."""
    return sysfs.exists("module/" + canonical_name(module))


def reload(
    sysfs: Sysfs, kmod: Kmod, module: str, parameters: Mapping[str, str], kept: VfioSettings
) -> None:
    """Load ``module`` with other parameters; ``kept`` has settings of other modules that stay."""
    if is_loaded(sysfs, module):
        kmod.unload(module)
    kmod.load(module, parameters)
    # vfio itself can go with the module that used it last, and is then loaded as configured.
    present = present_settings(sysfs)
    for path, value, now in (
        (NOIOMMU, kept.unsafe_noiommu, present.unsafe_noiommu),
        (INTERRUPTS, kept.unsafe_interrupts, present.unsafe_interrupts),
    ):
        if value is not None and now is not None and now != value:
            sysfs.write(path, "Y" if value else "N")
