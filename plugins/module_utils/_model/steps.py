# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done with a device or the host. Pure data."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Mapping, NamedTuple

from .buses import is_vfio_driver
from .device import Identity, Native, State
from .node_access import NodeAccess
from .policy import Policy


class StepKind(Enum):
    """What is done with one device."""

    SET_OVERRIDE = "set_override"
    LOAD_MODULE = "load_module"
    UNBIND = "unbind"
    BIND = "bind"
    PROBE = "probe"
    SET_NODE_ACCESS = "set_node_access"
    LINK_NODES = "link_nodes"
    SET_NUMVFS = "set_numvfs"


class HostStepKind(Enum):
    """What is done with the vfio modules, and with links that no device of the list has."""

    LOAD_MODULE = "load_module"
    RELOAD_MODULE = "reload_module"
    SET_NOIOMMU = "set_noiommu"
    SET_INTERRUPTS = "set_interrupts"
    # Done once all devices are as their policies ask for.
    RESTORE_NOIOMMU = "restore_noiommu"
    RESTORE_INTERRUPTS = "restore_interrupts"
    REMOVE_LINK = "remove_link"


class Obstacle(NamedTuple):
    """What keeps a device from a driver: its ``kind``, and the same in a few words.

    ``subject`` is that of the hazard if it is one that the device has now; None otherwise.
    """

    kind: str
    brief: str
    subject: str | None = None


class Problem(NamedTuple):
    """A reason not to begin.

    It concerns ``device``, or the entry at ``position`` of the user's list, or else the host.
    ``obstacle`` is what keeps a device from VFIO, for a list of candidates. ``line`` is the foreign
    line that it is about: its location and its text.
    """

    sentence: str
    device: Identity | None = None
    position: int | None = None
    obstacle: Obstacle | None = None
    line: tuple[str, str] | None = None


class Step(NamedTuple):
    """One change of one device.

    ``value`` is the override, the driver or the module, ``before`` the override until now. A
    ``note`` follows it in messages.
    """

    kind: StepKind
    value: str | None = None
    before: str | None = None
    access: NodeAccess | None = None
    links: tuple[str, ...] = ()
    note: str = ""


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
        return any(step.kind is StepKind.UNBIND for step in self.steps)

    @property
    def is_for_vfio(self) -> bool:
        return self.policy.rebind and is_vfio_driver(self.driver_override, self.device.bus)

    @property
    def binds_to_vfio(self) -> bool:
        return self.is_for_vfio and any(step.kind is StepKind.BIND for step in self.steps)

    @property
    def is_bound_already(self) -> bool:
        return bool(self.before.vfio_nodes) and not self.loses_driver and not self.binds_to_vfio


class HostStep(NamedTuple):
    """One change that concerns all devices, or none of those of the list.

    ``value`` is the module, the setting or the path of the link, ``parameters`` are the module's.
    """

    kind: HostStepKind
    value: str
    parameters: Mapping[str, str] = MappingProxyType({})
