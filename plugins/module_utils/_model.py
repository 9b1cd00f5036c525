# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words that all rooms share: devices, policies, steps. Pure data."""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils import _text

VFIO_DRIVERS = {"platform": "vfio-platform", "amba": "vfio-amba"}

VFIO, NO_AUTOBIND, DRIVER, DEFAULT = "vfio", "no_autobind", "driver", "default"

# Whether a list is to hold in the initramfs too: where the host can build one, surely, not.
AUTO, ALWAYS, NEVER = "auto", "always", "never"

# The documented opt-out of Documentation/ABI/testing/sysfs-bus-platform: no driver is called so.
NO_DRIVER = "none"

# Kinds of steps of one device.
OVERRIDE, LOAD, UNBIND, BIND, PROBE = "override", "load", "unbind", "bind", "probe"
NODES, LINKS = "nodes", "links"
NODE_STEP, LINK_STEP = "give its nodes in /dev/vfio ", "link its nodes in /dev/vfio as "

# Kinds of steps of the host: of the vfio modules, and of links that no device of the list has.
LOAD_VFIO, RELOAD_VFIO, SET_NOIOMMU, UNLINK = "load", "reload", "noiommu", "unlink"
# Done when all devices are where they shall be.
RESTORE_NOIOMMU = "restore_noiommu"
UNLINK_STEP = "remove the link "


class Board(NamedTuple):
    """What firmware calls this machine: the device tree's root or, with ACPI, the DMI table."""

    compatible: tuple[str, ...] = ()
    product_name: str | None = None
    board_name: str | None = None

    @property
    def names(self) -> list[str]:
        return [*self.compatible, *filter(None, (self.product_name, self.board_name))]


class Identity(NamedTuple):
    """What a device is called by firmware and kernel; unset is None or empty."""

    bus: str
    name: str
    dt_path: str | None = None
    compatible: tuple[str, ...] = ()
    acpi_path: str | None = None
    acpi_hid: str | None = None

    @property
    def stable_name(self) -> str:
        """What the device is called at every boot, as far as firmware gives it such a name."""
        return self.dt_path or self.acpi_path or self.name_on_bus

    @property
    def name_on_bus(self) -> str:
        """What the device is called at this boot."""
        return "%s/%s" % (self.bus, self.name)

    @property
    def label(self) -> str:
        """How messages call the device: by what stays the same from boot to boot."""
        stable = self.dt_path or self.acpi_path
        own = "%s device %s" % (self.bus, self.name)
        return _text.printable("%s (%s)" % (stable, own) if stable else own, 0)


class Problem(NamedTuple):
    """A reason not to begin.

    It concerns ``device``, or the entry at ``position`` of the user's list, or else the host.
    """

    sentence: str
    device: Identity | None = None
    position: int | None = None


class State(NamedTuple):
    """What drives a device at one moment; unset is None."""

    driver: str | None = None
    driver_override: str | None = None
    iommu_group: str | None = None
    vfio_nodes: tuple[str, ...] = ()

    @property
    def binding(self) -> str:
        """Driver and override in words."""
        return "on driver %s with driver_override %s" % (
            self.driver or "none",
            self.driver_override or "unset",
        )

    def is_bound_as(self, other: State) -> bool:
        """Whether driver and override are the same."""
        return (self.driver, self.driver_override) == (other.driver, other.driver_override)


class Policy(NamedTuple):
    """What shall drive a device.

    ``driver`` belongs to DRIVER. Without ``rebind`` the override alone is changed and the device
    stays where it is. ``taken_by`` limits DEFAULT to devices that are as that policy leaves them,
    so that what somebody else set up is not given back in passing.
    """

    kind: str
    driver: str | None = None
    rebind: bool = True
    taken_by: Policy | None = None

    @property
    def label(self) -> str:
        return "driver %s" % self.driver if self.kind == DRIVER else self.kind


class Claim(NamedTuple):
    """A device and the policy that the list has for it.

    ``is_new`` is true where the list last applied did not say the same of the device. ``tag`` is
    what its user calls it.
    """

    device: Identity
    policy: Policy
    is_new: bool = True
    tag: str | None = None


class Native(NamedTuple):
    """The driver that takes a device without an override, as far as it can be known.

    ``driver`` is None where no driver claims the device. ``module`` has to be loaded first for it,
    or is None. It ``was_bound`` when the device was taken from it; otherwise it is what the
    device's modalias promises, and its probe may still decline.
    """

    driver: str | None = None
    module: str | None = None
    was_bound: bool = False


class Step(NamedTuple):
    """One change of one device; ``value`` is the override, the driver or the module."""

    kind: str
    value: str | None
    sentence: str


class DevicePlan(NamedTuple):
    """What is to be done with one device, and how it will be after that.

    ``links`` are the names of links to its nodes.
    """

    device: Identity
    policy: Policy
    before: State
    steps: tuple[Step, ...]
    driver: str | None
    driver_override: str | None
    native: Native = Native()
    links: tuple[str, ...] = ()

    @property
    def loses_driver(self) -> bool:
        return any(step.kind == UNBIND for step in self.steps)

    @property
    def is_for_vfio(self) -> bool:
        return self.policy.rebind and self.driver_override == VFIO_DRIVERS[self.device.bus]

    @property
    def binds_to_vfio(self) -> bool:
        return self.is_for_vfio and any(step.kind == BIND for step in self.steps)

    @property
    def is_bound_already(self) -> bool:
        return bool(self.before.vfio_nodes) and not self.loses_driver and not self.binds_to_vfio


class VfioSettings(NamedTuple):
    """Parameters of the vfio modules; None leaves, or means, what is not known or not asked."""

    reset_required: bool | None = None
    unsafe_noiommu: bool | None = None


# The field of VfioSettings for each parameter, by "module.parameter".
VFIO_PARAMETERS = {
    "vfio_platform.reset_required": "reset_required",
    "vfio.enable_unsafe_noiommu_mode": "unsafe_noiommu",
}

# The whole name of a rollout.
ROLLOUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")


class NodeAccess(NamedTuple):
    """Who may open the nodes in /dev/vfio; None leaves what the kernel gives (root, 0600)."""

    group: str | None
    mode: str | None

    @property
    def is_for_all(self) -> bool:
        """Whether users who are not in the group may open a node."""
        return self.mode is not None and self.mode[-1] != "0"

    @property
    def label(self) -> str:
        parts = [("group", self.group), ("mode", self.mode)]
        return ", ".join("%s %s" % part for part in parts if part[1] is not None)


class Options(NamedTuple):
    """What a list is applied with, beside its entries."""

    settings: VfioSettings = VfioSettings()
    access: NodeAccess | None = None
    initramfs: str = AUTO


class HostStep(NamedTuple):
    """One change that concerns all devices, or none of those of the list."""

    kind: str
    value: str
    parameters: dict[str, str]
    sentence: str
