# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices can be bound to VFIO, with which settings, and why others cannot. Reads only.

The answer is that of the preflight of a run with policy vfio for the device alone, or with the
whole of its IOMMU group. It is stricter about IOMMUs, where such a run leaves to the kernel what
depends on its version, and about devices that VFIO accepts and nobody should give to it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Callable, Mapping, NamedTuple, Sequence

from .._apply.readiness import (
    NO_IOMMU_GROUP,
    find_permanent_drivers,
    has_no_reset,
    no_group_reason,
    obstacle_of_permanent,
    unreadiness,
    will_have_noiommu,
)
from .._boot.forecast import OverrideSources
from .._discovery.acpi_iort import translates
from .._discovery.devices import aliases, sysfs_dir
from .._discovery.iommus import Iommus
from .._discovery.isolation import Isolation
from .._discovery.pci_iommus import PciIommus
from .._discovery.vfio import (
    is_in_noiommu_group,
    is_resettable,
    native_siblings,
    present_settings,
    registered,
)
from .._errors import PolicyError
from .._in_use.kinds import GROUP, OPEN_NODE, Hazard
from .._model.buses import BUSES
from .._model.device import Identity, Native, State
from .._model.plan import host_steps, plan
from .._model.policy import CONTAINER_MODULE, VFIO, Claim, Policy, VfioSettings
from .._model.selector import Selector
from .._model.selector_entry import parse
from .._model.steps import DevicePlan, Obstacle
from .._system.host import Host

# Kinds of Obstacle beside those of use and those that keep a run from beginning.
DRIVERCTL = "driverctl"
FOREIGN_RULE = "foreign_rule"
NOT_COHERENT = "iommu_not_coherent"
NO_REGISTERS = "no_registers"
PROVIDER = "provider"
OTHER = "other"
# What a run does not refuse.
ADVICE = frozenset({NOT_COHERENT, NO_REGISTERS, PROVIDER})

_VFIO = Policy(VFIO)
_PROVIDED = ("interrupt-controller",)
# They are about the children of a node.
_NO_PROVIDER = ("#address-cells", "#size-cells")
_TIMER = "timer"


class Known(NamedTuple):
    """What is known of a device before it is judged. ``hazards`` are those of now."""

    state: State
    hazards: Sequence[Hazard]
    boot_hazards: Sequence[Hazard]
    sources: OverrideSources


class Candidate(NamedTuple):
    """How a device would be bound to VFIO: the ``selector`` and the ``settings`` of its list.

    ``obstacles`` are why it cannot be; it is a candidate if there are none. ``group`` are the other
    devices of its IOMMU group. ``has_reset`` is None where VFIO asks for no reset function, or
    only the kernel knows. ``is_isolated`` is whether the kernel isolates its interrupts, None if
    only the kernel knows.
    """

    obstacles: Sequence[Obstacle]
    selector: Selector
    settings: VfioSettings
    group: Sequence[str]
    has_reset: bool | None
    is_isolated: bool | None


class Candidates:
    """Judges the devices of a host. ``find_out`` tells of one what is known of it."""

    def __init__(
        self, host: Host, devices: Sequence[Identity], find_out: Callable[[Identity], Known]
    ) -> None:
        self._host = host
        self._find_out = find_out
        self._by_name = {device.name_on_bus: device for device in devices}
        self._sharing = Counter(device.stable_name for device in devices)
        self._by_hid = Counter(device.acpi_hid for device in devices)
        self._by_uid = Counter((device.acpi_hid, device.acpi_uid) for device in devices)
        self._aliases = aliases(host.sysfs)
        self._present = present_settings(host.sysfs)
        self._registered = registered(host.sysfs)
        self._iommus = Iommus(host.sysfs)
        self._pci_iommus = PciIommus(host.sysfs)
        self._isolation = Isolation(host.sysfs, host.files)
        self._has_noiommu = will_have_noiommu(host.sysfs, host.kmod, VfioSettings())
        self._has_containers = _has_containers(host, self._present)
        self._obstacles: dict[Identity, list[Obstacle]] = {}
        self._needed: dict[Identity, VfioSettings] = {}
        host.kmod.resolve_at_once(
            [
                "vfio-reset:" + device.reset_compatible
                for device in devices
                if BUSES[device.bus].vfio_resets and device.reset_compatible
            ]
        )

    def of(self, device: Identity) -> Candidate:
        """Return whether and how a device can be bound to VFIO."""
        return Candidate(
            obstacles=[*self._own_obstacles(device), *self._obstacles_of_group(device)],
            selector=self._selector(device),
            settings=self._settings(device),
            group=self._group(device),
            has_reset=self._has_reset(device),
            is_isolated=self._isolation.of_group(device),
        )

    def _own_obstacles(self, device: Identity) -> list[Obstacle]:
        """Return what keeps it from VFIO but for others of its group."""
        if device not in self._obstacles:
            self._obstacles[device] = self._find_obstacles(device, self._find_out(device))
        return self._obstacles[device]

    def _find_obstacles(self, device: Identity, known: Known) -> list[Obstacle]:
        trial = plan(Claim(device, _VFIO), known.state, Native())
        if not trial.is_for_vfio:
            return [Obstacle(OTHER, "its bus has no VFIO driver")]
        try:
            obstacles = self._preflight(trial)
        except PolicyError as error:
            obstacles = [Obstacle(OTHER, str(error))]
        if trial.steps:
            obstacles += self._iommu_obstacles(device, known.state)
            obstacles += self._obstacles_of_node(device, known.state)
        obstacles += _obstacles_of_use(trial.loses_driver, known)
        return list(dict.fromkeys(obstacles + _foreign_obstacles(trial.driver_override, known)))

    def _preflight(self, trial: DevicePlan) -> list[Obstacle]:
        host, settings = self._host, self._settings(trial.device)
        steps = host_steps([trial], self._registered, settings, self._present)
        problems = unreadiness(
            host.sysfs, host.kmod, [trial], steps, settings, pci_iommus=self._pci_iommus
        )
        # Not explained: a driver's init function is in the list of all symbols of the kernel.
        permanent = find_permanent_drivers(host.sysfs, host.kmod, [trial])
        return [
            *(problem.obstacle or Obstacle(OTHER, problem.sentence) for problem in problems),
            *(obstacle_of_permanent(driver) for _device, driver in permanent),
        ]

    def _iommu_obstacles(self, device: Identity, state: State) -> list[Obstacle]:
        if not self._is_isolated(device, state):
            return [Obstacle(NO_IOMMU_GROUP, "no IOMMU group")]
        if self._iommus.is_coherent(device) is False:
            return [Obstacle(NOT_COHERENT, "its IOMMU is not cache coherent")]
        return []

    def _obstacles_of_node(self, device: Identity, state: State) -> list[Obstacle]:
        """Return why nobody should want the device, though VFIO would take it.

        The kernel uses interrupt controllers, timers and clocks without a driver (IRQCHIP_DECLARE,
        TIMER_OF_DECLARE and CLK_OF_DECLARE), so that nothing in /sys shows the use.
        """
        if not device.dt_path:
            return []
        properties = self._host.sysfs.names(sysfs_dir(device) + "/of_node")
        if "reg" not in properties:
            return [Obstacle(NO_REGISTERS, "it has no registers that VFIO could show")]
        provides = [
            name
            for name in properties
            if name in _PROVIDED or (name.endswith("-cells") and name not in _NO_PROVIDER)
        ]
        is_unseen = state.driver is None and state.driver_override is None
        if is_unseen and (provides or _TIMER in "".join(device.compatible)):
            brief = "the kernel may use it without a driver (%s)" % (provides or [_TIMER])[0]
            return [Obstacle(PROVIDER, brief)]
        return []

    def _is_isolated(self, device: Identity, state: State) -> bool:
        """Return whether VFIO will find an IOMMU in front of the device, or does without one."""
        sysfs = self._host.sysfs
        if state.iommu_group or self._has_noiommu:
            return True
        if not self._iommus.names or device.pci_address:
            return False
        # Before Linux 7 it has no group until a driver is probed.
        if device.dt_path:
            return self._iommus.is_active_for(device)
        return bool(device.acpi_path and translates(sysfs, device.acpi_path))

    def _obstacles_of_group(self, device: Identity) -> list[Obstacle]:
        obstacles = []
        for sibling in native_siblings(self._host.sysfs, device):
            other = self._by_name.get(sibling.name)
            if sibling.container == device.name_on_bus:
                continue
            if other is not None and not self._own_obstacles(other):
                continue
            brief = "shares IOMMU group %s with %s (%s), which cannot be bound to VFIO" % (
                sibling.group,
                sibling.name,
                sibling.driver,
            )
            obstacles.append(Obstacle(GROUP, brief))
        return obstacles

    def _group(self, device: Identity) -> list[str]:
        members = self._host.sysfs.names(sysfs_dir(device) + "/iommu_group/devices")
        return sorted(member for member in members if member != device.name)

    def _has_reset(self, device: Identity) -> bool | None:
        if device.pci_address:
            return is_resettable(self._host.sysfs, device)
        if not BUSES[device.bus].vfio_resets or device.reset_compatible is None:
            return None
        return not has_no_reset(self._host.kmod, device)

    def _settings(self, device: Identity) -> VfioSettings:
        """Return the settings that a list with the device needs."""
        if device not in self._needed:
            self._needed[device] = self._find_settings(device)
        return self._needed[device]

    def _find_settings(self, device: Identity) -> VfioSettings:
        asks_for_reset = BUSES[device.bus].vfio_resets and not self._has_reset(device)
        group = self._host.sysfs.link_name(sysfs_dir(device) + "/iommu_group")
        return VfioSettings(
            reset_required=False if asks_for_reset else None,
            unsafe_noiommu=True if self._has_noiommu and not group else None,
            unsafe_interrupts=True if self._needs_interrupts(device) else None,
        )

    def _needs_interrupts(self, device: Identity) -> bool:
        """Return whether containers surely refuse the device unless all interrupts are accepted."""
        return (
            self._has_containers
            and not is_in_noiommu_group(self._host.sysfs, device)
            and not no_group_reason(self._host.sysfs, device, self._pci_iommus)
            and self._isolation.of_group(device) is False
        )

    def _selector(self, device: Identity) -> Selector:
        """Return the selector that means this device and no other, the most readable first."""
        by_firmware = {
            "dt_path": [self._aliases.get(device.dt_path or ""), device.dt_path],
            "acpi_path": [device.acpi_path],
        }
        if device.pci_id and not device.dt_path:
            # An ACPI node is that of the slot, in which there may be another card tomorrow.
            return Selector.of_function(device)
        if self._is_known_by_uid(device):
            with suppress(PolicyError):
                return parse({"acpi_hid": device.acpi_hid, "acpi_uid": device.acpi_uid})
        if self._sharing[device.stable_name] < 2:
            for kind, values in by_firmware.items():
                for value in filter(None, values):
                    # Firmware may use characters that no selector accepts.
                    with suppress(PolicyError):
                        return parse({kind: value})
        return Selector("name", device.name, device.bus)

    def _is_known_by_uid(self, device: Identity) -> bool:
        """Return whether its _UID alone tells it from other devices with its hardware id."""
        is_one_of_several = self._by_hid[device.acpi_hid] > 1
        is_only_one = self._by_uid[device.acpi_hid, device.acpi_uid] == 1
        return is_one_of_several and is_only_one and device.acpi_uid is not None


def _has_containers(host: Host, present: VfioSettings) -> bool:
    """Return whether the kernel has what containers need for an IOMMU."""
    if present.unsafe_interrupts is not None:
        return True
    try:
        return host.kmod.is_available(CONTAINER_MODULE)
    except PolicyError:
        # There is no modprobe, so nothing can be loaded.
        return False


def _obstacles_of_use(loses_driver: bool, known: Known) -> list[Obstacle]:
    kept = [hazard for hazard in known.hazards if hazard.kind != GROUP]
    if not loses_driver:
        # A device that is bound to VFIO already may be open.
        kept = [hazard for hazard in kept if hazard.kind != OPEN_NODE]
        return [Obstacle(hazard.kind, hazard.sentence) for hazard in kept]
    return [
        *(Obstacle(hazard.kind, "in use: " + hazard.sentence, hazard.subject) for hazard in kept),
        *(
            Obstacle(hazard.kind, "in use at boot: " + hazard.sentence)
            for hazard in known.boot_hazards
        ),
    ]


def _foreign_obstacles(driver_override: str | None, known: Known) -> list[Obstacle]:
    """Return whose configuration a list with the device would contradict."""
    if known.sources.entry:
        return []
    obstacles = []
    if known.sources.foreign and not known.sources.foreign.ignored:
        obstacles.append(Obstacle(DRIVERCTL, "driverctl has an override stored for it"))
    obstacles += [
        Obstacle(FOREIGN_RULE, "%s %s at each boot" % (rule.location, rule.act))
        for rule in known.sources.rules
        if rule.opposes(driver_override)
    ]
    return obstacles


def entry(candidate: Candidate) -> Mapping[str, str]:
    """Return the entry of a policy list that binds the device to VFIO."""
    selector = candidate.selector
    options = {"bus": selector.bus, "pci_id": selector.pci_id, "acpi_uid": selector.acpi_uid}
    keys = {name: value for name, value in options.items() if value}
    return {selector.kind: selector.value, **keys, "policy": VFIO}
