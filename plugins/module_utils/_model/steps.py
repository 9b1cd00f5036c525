# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done with a device or the host. Pure data."""

from __future__ import annotations

from typing import NamedTuple

from .buses import is_vfio_driver
from .device import Identity, Native, State
from .policy import Policy

# Kinds of steps of one device.
OVERRIDE, LOAD, UNBIND, BIND, PROBE = "override", "load", "unbind", "bind", "probe"

NODES, LINKS = "nodes", "links"

NODE_STEP, LINK_STEP = "give its nodes in /dev/vfio ", "link its nodes in /dev/vfio as "

# Kinds of steps of the host: of the vfio modules, and of links that no device of the list has.
LOAD_VFIO, RELOAD_VFIO, SET_NOIOMMU, UNLINK = "load", "reload", "noiommu", "unlink"

# Done when all devices are where they shall be.
RESTORE_NOIOMMU = "restore_noiommu"

UNLINK_STEP = "remove the link "


class Problem(NamedTuple):
    """A reason not to begin.

    It concerns ``device``, or the entry at ``position`` of the user's list, or else the host.
    """

    sentence: str
    device: Identity | None = None
    position: int | None = None


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
        return self.policy.rebind and is_vfio_driver(self.driver_override, self.device.bus)

    @property
    def binds_to_vfio(self) -> bool:
        return self.is_for_vfio and any(step.kind == BIND for step in self.steps)

    @property
    def is_bound_already(self) -> bool:
        return bool(self.before.vfio_nodes) and not self.loses_driver and not self.binds_to_vfio


class HostStep(NamedTuple):
    """One change that concerns all devices, or none of those of the list."""

    kind: str
    value: str
    parameters: dict[str, str]
    sentence: str
