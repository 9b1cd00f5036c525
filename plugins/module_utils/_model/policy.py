# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to drive a device, and with which settings. Pure data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .buses import RESETTING
from .node_access import NodeAccess

if TYPE_CHECKING:
    from .device import Identity

VFIO, NO_AUTOBIND, DRIVER, DEFAULT = "vfio", "no_autobind", "driver", "default"

# Whether a list is to hold in the initramfs too: where the host can build one, surely, not.
AUTO, ALWAYS, NEVER = "auto", "always", "never"

# The documented opt-out of Documentation/ABI/testing/sysfs-bus-platform: no driver is called so.
NO_DRIVER = "none"


class Policy(NamedTuple):
    """What shall drive a device.

    ``driver`` belongs to DRIVER. Without ``rebind`` the override alone is changed and the device
    stays where it is. ``release_of`` limits DEFAULT to devices that are as that policy leaves them,
    so that what somebody else set up is not released in passing. ``vfio_driver`` belongs to VFIO:
    the driver if it is not the one that VFIO has for all devices of the bus. If it ``is_variant``,
    the kernel's modules name that driver for the device; otherwise the user does.
    """

    kind: str
    driver: str | None = None
    rebind: bool = True
    release_of: Policy | None = None
    vfio_driver: str | None = None
    is_variant: bool = False

    @property
    def label(self) -> str:
        return "driver %s" % self.driver if self.kind == DRIVER else self.kind


class Claim(NamedTuple):
    """A device and the policy that the list has for it.

    ``is_new`` is true where the list last applied did not say the same of the device. ``tag`` is
    what its user calls it, ``numvfs`` how many virtual functions it is to have.
    """

    device: Identity
    policy: Policy
    is_new: bool = True
    tag: str | None = None
    numvfs: int | None = None


class VfioSettings(NamedTuple):
    """Parameters of the vfio modules; None leaves, or means, what is not known or not asked."""

    reset_required: bool | None = None
    unsafe_noiommu: bool | None = None
    unsafe_interrupts: bool | None = None


# The field of VfioSettings for each parameter, by "module.parameter".
# What lets a container of VFIO use an IOMMU; vfio loads it after itself (a softdep).
CONTAINER_MODULE = "vfio_iommu_type1"

VFIO_PARAMETERS = {
    "%s.reset_required" % RESETTING.vfio_module: "reset_required",
    "vfio.enable_unsafe_noiommu_mode": "unsafe_noiommu",
    "%s.allow_unsafe_interrupts" % CONTAINER_MODULE: "unsafe_interrupts",
}
# What the kernel takes for a parameter that nothing sets.
VFIO_DEFAULTS = dict(zip(VFIO_PARAMETERS, "YNN"))

# The whole name of a rollout.
ROLLOUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")


class Options(NamedTuple):
    """What a list is applied with, beside its entries."""

    settings: VfioSettings = VfioSettings()
    access: NodeAccess | None = None
    initramfs: str = AUTO
