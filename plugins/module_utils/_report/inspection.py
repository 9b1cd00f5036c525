# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a device: driver, what it carries, who claims it, the next boot. Reads only."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Sequence

from .._boot import driverctl, foreign_udev, in_sync, modprobe_d, modules_load_d
from .._boot.forecast import Binding, BootForecast, BootState, ForeignConfig, OverrideSources
from .._boot.installed_kernels import InstalledKernels, Kernel
from .._boot.kmod_conf import parameters
from .._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    PREVIOUS,
    RULES,
    WAITS_FOR_BOOT,
    AppliedList,
    LastApplied,
    accepted,
    digest,
    parse_header,
)
from .._boot.udev_commands import OVERRIDE as SETS_OVERRIDE
from .._discovery.builtin_drivers import BuiltinBinding, BuiltinDrivers
from .._discovery.devices import board, for_other_boards, resolve, snapshot, states_as_far_as_known
from .._discovery.driver_match import OVERRIDE, Drivers, Match, Reason
from .._discovery.vfio import modalias, present_settings
from .._discovery.virtual_functions import numvfs, totalvfs
from .._errors import PolicyError
from .._in_use.kinds import BLOCKED, GROUP, OPEN_NODE, Hazard
from .._model.buses import RESETTING, is_vfio_driver
from .._model.device import Board, Identity, State
from .._model.policy import VFIO_PARAMETERS, VfioSettings
from .._model.policy_list import Entry, first_entries
from .._model.selector import Selector
from .._system.files import Files
from .._system.host import Host
from .._system.read_once import read_once
from .._system.sysfs import Sysfs

if TYPE_CHECKING:
    from .._boot.rollout_history import Rollout
    from .._in_use.checker import Usage
    from .candidates import Candidate, Known
    from .lost_entries import LostEntry
    from .vfio_support import VfioSupport


class LostAtBoot(NamedTuple):
    """What would be hurt because the next boot gives the device to another driver than now.

    It ``is_accepted`` if the user did so for the list that waits for this boot.
    """

    hazard: Hazard
    is_accepted: bool


class Sriov(NamedTuple):
    """The virtual functions of a PCI function; ``desired`` is None if no list sets the number."""

    numvfs: int
    totalvfs: int
    desired: int | None = None


class Inspection(NamedTuple):
    """All that is known of one device.

    ``sources`` is who decides its override; ``lines`` are what others say of its modules, and
    ``against`` those values of parameters, now and by these lines, that the list last applied does
    not set.
    ``builtin`` is its native driver where that has the device before any rule can run.
    ``hazards`` is None if none is known and there may be some; where it ``may_carry_more`` they
    may not be all. ``links`` are those to its nodes. ``without_driver`` names kernels that would
    leave it so. ``lost`` is what the next boot takes. ``candidate`` is how it would be bound to
    VFIO, if that was asked for. ``sriov`` is how many virtual functions it has, can have and shall
    have; None if it can have none.
    """

    device: Identity
    state: State
    bound_by: Reason | None
    hazards: list[Hazard] | None
    sources: OverrideSources
    next_boot: BootState
    lines: Sequence[modprobe_d.Line] = ()
    against: Sequence[str] = ()
    builtin: BuiltinBinding | None = None
    links: Sequence[str] = ()
    without_driver: Sequence[str] = ()
    may_carry_more: bool = False
    lost: Sequence[LostAtBoot] = ()
    candidate: Candidate | None = None
    sriov: Sriov | None = None

    @property
    def drift(self) -> list[str]:
        """Where list, running system and next boot differ; empty where they agree."""
        if self._is_blocked:
            return []
        return [
            *self._unaccepted_losses(),
            *self._difference_now(),
            *self._difference_after(),
            *self._foreign_rules(),
            *self._other_numvfs(),
            *self.against,
            *self.without_driver,
        ]

    @property
    def is_next_boot_in_drift(self) -> bool:
        """Whether ``drift`` has a sentence on the next boot, with the reason of ``next_boot``."""
        return not self._is_blocked and bool(self._difference_after())

    @property
    def _is_blocked(self) -> bool:
        """Whether a hanging driver holds the device, so that it is not known how it is."""
        return any(hazard.kind == BLOCKED for hazard in self.hazards or ())

    @property
    def _running(self) -> Binding:
        return Binding(self.state.driver, self.state.driver_override)

    @property
    def _is_restored(self) -> bool:
        """Whether the next boot does what the last-applied configuration requires."""
        return self.next_boot.is_known and self.next_boot.binding == self.sources.desired

    def _unaccepted_losses(self) -> list[str]:
        return [
            "the next boot unbinds it from %s, but %s" % (self.state.driver, lost.hazard.sentence)
            for lost in self.lost
            if not lost.is_accepted
        ]

    def _difference_now(self) -> list[str]:
        desired = self.sources.desired
        if desired is None or self._running == desired:
            return []
        sentence = "it is %s, but the last-applied configuration requires it to be %s%s"
        restored = ", as it will be after the next boot" if self._is_restored else ""
        return [sentence % (self._running.label, desired.label, restored)]

    def _difference_after(self) -> list[str]:
        running, after = self._running, self.next_boot.binding
        if running == after or self._is_restored:
            return []
        if self.next_boot.is_known:
            sentence = "it is %s, but will be %s after the next boot: %s"
            return [sentence % (running.label, after.label, self.next_boot.reason)]
        # What has no driver and no override may well be as the kernel left it.
        sentence = "it is %s, which does not persist across reboots: %s"
        return [sentence % (running.label, self.next_boot.reason)]

    def _foreign_rules(self) -> list[str]:
        desired = self.sources.desired
        return [
            "%s %s at each boot, but the last-applied configuration sets %s"
            % (rule.location, _may(rule), desired.driver_override)
            for rule in self.sources.rules
            if desired
            and not (rule.sure_override or rule.unbinds)
            and rule.opposes(desired.driver_override)
        ]

    def _other_numvfs(self) -> list[str]:
        if self.sriov is None or self.sriov.desired in (None, self.sriov.numvfs):
            return []
        sentence = "it has %d virtual functions, but the last-applied configuration requires %d"
        return [sentence % (self.sriov.numvfs, self.sriov.desired)]


def _may(rule: foreign_udev.Rule) -> str:
    """Return what a rule may do, as a clause."""
    if rule.kind == SETS_OVERRIDE:
        return "may set another driver_override"
    return rule._replace(is_sure=False).act


class Findings(NamedTuple):
    """The requested devices, the last-applied configuration, its files, and the board.

    ``skipped`` are sentences on what was asked for on other boards only. ``lost_entries`` are those
    of the last-applied configuration that match nothing any more. ``driverctl_notes`` are sentences
    on files of driverctl by which it sets no override. ``rollouts`` are those of the host, newest
    first, each with its state; None if they cannot be read, and ``rollouts_problem`` is why.
    """

    devices: list[Inspection]
    policy_list: list[Entry]
    waits_for_boot: bool = False
    board: Board = Board()
    skipped: Sequence[str] = ()
    boot_files: Sequence[in_sync.BootFile] = ()
    kernels: Sequence[Kernel] = ()
    vfio_support: VfioSupport | None = None
    lost_entries: Sequence[LostEntry] = ()
    driverctl_notes: Sequence[str] = ()
    policy_digest: str = ""
    rollouts: Sequence[tuple[Rollout, str]] | None = ()
    rollouts_problem: str | None = None

    @property
    def rollout(self) -> str | None:
        """The name of the rollout that can be rolled back."""
        if not self.rollouts:
            return None
        from .._boot.rollout_history import APPLIED  # noqa: PLC0415 - as in _vfio_support

        return next((past.name for past, state in self.rollouts if state == APPLIED), None)


def inspect(
    host: Host,
    open_usage: Callable[[Host], Usage],
    selectors: Sequence[Selector] | None,
    *,
    only_claimed: bool = False,
    with_candidates: bool = True,
    with_use: bool = True,
) -> Findings:
    """Return the devices that ``selectors`` mean, or all of them; PolicyError as in :func:`run`.

    With ``only_claimed`` those of them that the last-applied configuration claims.
    ``with_candidates`` judges how each would be bound to VFIO, and ``with_use`` finds what uses it;
    without both, that is found only of a device that drifts or that the next boot unbinds.
    """
    host = host._replace(sysfs=read_once(host.sysfs))
    last_applied, problem = _last_applied(host.files)
    waits_for_boot, obstacles = _waits_for_boot(host.files)
    devices = snapshot(host.sysfs, Identity._fields)
    of_other_boards = for_other_boards(host.sysfs, selectors or ())
    chosen: Sequence[Identity] = devices
    if selectors is not None:
        of_this_board = [selector for selector in selectors if selector not in of_other_boards]
        chosen = _matched(host.sysfs, of_this_board, devices)
    inspector = _Inspector(
        host,
        open_usage,
        last_applied,
        devices,
        accepted(waits_for_boot),
        with_use=with_use or with_candidates,
    )
    if only_claimed:
        chosen = [device for device in chosen if inspector.is_claimed(device)]
    states = states_as_far_as_known(host.sysfs, chosen)
    inspector.ask_at_once(chosen, [state for state, _blocked in states])
    inspections = [inspector.of(device, *known) for device, known in zip(chosen, states)]
    if with_candidates:
        inspections = inspector.judge(inspections)
    rollouts, rollouts_problem = _rollouts(host, last_applied)
    return Findings(
        devices=inspections,
        policy_list=last_applied.entries,
        waits_for_boot=waits_for_boot is not None,
        board=board(host.sysfs),
        skipped=list(of_other_boards.values()),
        boot_files=[*in_sync.compare(host.files, last_applied, problem), *obstacles],
        kernels=inspector.kernels,
        vfio_support=_vfio_support(host) if with_candidates else None,
        lost_entries=inspector.lost_entries,
        driverctl_notes=inspector.driverctl_notes,
        policy_digest=digest(last_applied.entries, last_applied.options),
        rollouts=rollouts,
        rollouts_problem=rollouts_problem,
    )


def _matched(
    sysfs: Sysfs, selectors: Sequence[Selector], devices: Sequence[Identity]
) -> Sequence[Identity]:
    """Return the devices that ``selectors`` mean, each once."""
    matches = resolve(sysfs, selectors, devices)
    return list(dict.fromkeys(device for matched in matches for device in matched))


def _last_applied(files: Files) -> tuple[LastApplied, str | None]:
    """Return the last-applied configuration, an empty one if it is unknown, and then why."""
    try:
        return parse_header(files.read(RULES)), None
    except PolicyError as error:
        return LastApplied([], {}), str(error)


def _waits_for_boot(files: Files) -> tuple[str | None, list[in_sync.BootFile]]:
    """Return the record that the next boot is waited for, or what is in its place."""
    try:
        return files.read_own(WAITS_FOR_BOOT), []
    except PolicyError as error:
        return None, [in_sync.BootFile(WAITS_FOR_BOOT, is_present=True, drift=[str(error)])]


def _vfio_support(host: Host) -> VfioSupport:
    # Here, as all that not each host needs: it compiles what it loads.
    from .vfio_support import vfio_support  # noqa: PLC0415

    return vfio_support(host)


def _rollouts(
    host: Host, last_applied: LastApplied
) -> tuple[Sequence[tuple[Rollout, str]] | None, str | None]:
    """Return the rollouts with their states, or None and why, as Findings has them."""
    try:
        content = host.files.read_own(PREVIOUS)
        if content is None:
            return [], None
        from .._boot.rollout_history import parse, states  # noqa: PLC0415 - as in _vfio_support

        rollouts = parse(content)
        now = AppliedList(last_applied.entries, last_applied.options)
        return list(zip(rollouts, states(rollouts, now))), None
    except PolicyError as error:
        return None, str(error)


def _lost_entries(
    last_applied: LastApplied, matches: Sequence[Sequence[Identity]], devices: Sequence[Identity]
) -> list[LostEntry]:
    if not last_applied.matched:
        return []
    from .lost_entries import find_lost_entries  # noqa: PLC0415 - as in _vfio_support

    return find_lost_entries(last_applied, matches, devices)


class _Inspector:
    """What concerns all devices of a host, read once, and each device in the light of it."""

    def __init__(
        self,
        host: Host,
        open_usage: Callable[[Host], Usage],
        last_applied: LastApplied,
        devices: Sequence[Identity],
        accepted_kinds: Sequence[str],
        *,
        with_use: bool,
    ) -> None:
        self._host = host
        self._open_usage = open_usage
        self._with_use_of_all = with_use
        self._devices = devices
        earlier = [
            entry.selector._replace(required=False, expect=None) for entry in last_applied.entries
        ]
        matches = resolve(host.sysfs, earlier, devices)
        self._claimed = first_entries(last_applied.entries, matches)
        self.lost_entries = _lost_entries(last_applied, matches, devices)
        self._stored = driverctl.stored(host.files)
        self._sharing = Counter(device.stable_name for device in devices if self._stored)
        self._rules = foreign_udev.rules(host.files, RULES)
        self._lines = [
            *modprobe_d.lines(host.files, MODPROBE),
            *modules_load_d.lines(host.files, MODULES_LOAD),
        ]
        settings = last_applied.options.settings
        self._parameters = parameters(settings)
        self._against = _other_settings(host.sysfs, settings) if self._parameters else {}
        self._drivers = Drivers(host.sysfs, host.kmod)
        self._last_applied = last_applied
        self._accepted = accepted_kinds
        self._builtin_drivers = BuiltinDrivers(host.sysfs, host.kmod, host.files)
        self._installed = InstalledKernels(host.files)
        self._forecast = BootForecast(
            host, self._drivers, last_applied, self._lines, self._installed
        )
        self.kernels = self._installed.lacking(self._modules())
        self.driverctl_notes = driverctl.notes(
            host.files, self._stored, {(device.bus, device.name) for device in devices}
        )

    @functools.cached_property
    def _usage(self) -> Usage:
        return self._open_usage(self._host)

    def _modules(self) -> list[str]:
        """Return the modules of the drivers that the last-applied configuration asks for."""
        asked = {
            (device.bus, desired)
            for device, entry in self._claimed.items()
            for desired in [
                OverrideSources(device.bus, entry, variant=self._variant(device)).desired
            ]
            if desired
        }
        return sorted(
            {module for bus, desired in asked for module in self._forecast.modules(bus, desired)}
        )

    def is_claimed(self, device: Identity) -> bool:
        """Return whether the last-applied configuration claims it."""
        return device in self._claimed

    def ask_at_once(self, devices: Sequence[Identity], states: Sequence[State]) -> None:
        """Ask kmod about many devices in few calls; each call starts a process."""
        known = list(zip(devices, states))
        self._drivers.ask_at_once(
            [
                (device, state.driver)
                for device, state in known
                if state.driver and state.driver != state.driver_override
            ]
        )
        self._host.kmod.claimants_at_once(
            [
                modalias(self._host.sysfs, device)
                for device, state in known
                if self._has_unknown_driver(device, state)
            ]
        )

    def _has_unknown_driver(self, device: Identity, state: State) -> bool:
        """Return whether the forecast asks which modules claim the device."""
        match = self._match(device, state)
        if match:
            return match.is_manual
        return state.driver is None or self._last_applied.native_of(device) is None

    def _match(self, device: Identity, state: State) -> Match | None:
        """Return why the device has its driver; None without one, or if its override names it."""
        if state.driver is None or state.driver == state.driver_override:
            return None
        return self._drivers.match(device, state.driver)

    def judge(self, inspections: Sequence[Inspection]) -> list[Inspection]:
        """Return the inspections with how each device would be bound to VFIO."""
        from .candidates import Candidates, Known  # noqa: PLC0415 - as in _vfio_support

        by_device = {inspection.device: inspection for inspection in inspections}

        def find_out(device: Identity) -> Known:
            # One of its IOMMU group may not have been asked for.
            inspection = by_device.get(device) or self.of(
                device, *states_as_far_as_known(self._host.sysfs, [device])[0]
            )
            hazards = inspection.hazards or ()
            at_boot = self._usage.find_boot_hazards(device, inspection.state, hazards)
            return Known(inspection.state, hazards, at_boot, inspection.sources)

        if not inspections:
            return []
        candidates = Candidates(self._host, self._devices, find_out)
        return [
            inspection._replace(candidate=candidates.of(inspection.device))
            for inspection in inspections
        ]

    def of(self, device: Identity, state: State, blocked: str | None) -> Inspection:
        """Return all that is known of a device; ``blocked`` is why its override is not."""
        sources = self._override_sources(device)
        match = self._match(device, state)
        inspection = Inspection(
            device=device,
            state=state,
            bound_by=None if blocked else _bound_by(state, match, sources),
            hazards=_blocked(device, blocked) or None,
            sources=sources,
            next_boot=self._forecast.of(device, state, match, sources),
            lines=self._forecast.lines(device, state, match, sources),
            against=self._against_parameters(sources),
            builtin=self._builtin_binding(device, state, sources),
            links=_present_links(self._host, device, state, sources.entry),
            without_driver=self._without_driver(device, sources),
            sriov=self._sriov(device, sources),
        )
        if self._with_use_of_all or _is_unbound_at_boot(inspection) or inspection.drift:
            return self._with_use(inspection, blocked)
        return inspection

    def _with_use(self, inspection: Inspection, blocked: str | None) -> Inspection:
        """Return the inspection with what uses its device, now and at the next boot."""
        device, state = inspection.device, inspection.state
        unanswered = self._usage.unanswered
        hazards = [
            *self._usage.hazards_of(device, state),
            *self._usage.iommu_group_hazards(device),
            *_blocked(device, blocked),
        ]
        may_carry_more = self._usage.unanswered > unanswered
        return inspection._replace(
            hazards=None if may_carry_more and not hazards else hazards,
            may_carry_more=may_carry_more,
            lost=self._lost_at_boot(inspection, hazards),
        )

    def _against_parameters(self, sources: OverrideSources) -> list[str]:
        """In which parameters VFIO differs from the list, if it gives the device to VFIO."""
        desired = sources.desired
        if desired is None or not is_vfio_driver(desired.driver, sources.bus):
            return []
        present = [
            sentence
            for option, sentence in self._against.items()
            # Only one of the drivers knows it.
            if option != "reset_required" or desired.driver == RESETTING.vfio_driver
        ]
        return [*present, *_against(self._lines, self._parameters)]

    def _sriov(self, device: Identity, sources: OverrideSources) -> Sriov | None:
        total = totalvfs(self._host.sysfs, device) if device.pci_address else None
        if not total:
            return None
        desired = sources.entry.sriov_numvfs if sources.entry else None
        return Sriov(numvfs(self._host.sysfs, device) or 0, total, desired)

    def _without_driver(self, device: Identity, sources: OverrideSources) -> list[str]:
        """In which new kernels the device would not have the driver that the list asks for."""
        needed = self._forecast.modules(device.bus, sources.desired) if sources.desired else []
        return [
            "kernel %s, installed since the last boot, has no module %s, which the last-applied "
            "configuration requires: if the next boot starts it, the device has no driver"
            % (kernel.release, module)
            for kernel in self.kernels
            for module in needed
            if kernel.is_new and module in kernel.missing
        ]

    def _lost_at_boot(self, inspection: Inspection, hazards: Sequence[Hazard]) -> list[LostAtBoot]:
        if not _is_unbound_at_boot(inspection):
            return []
        # Processes end before the boot; what a group is of no use to is no loss.
        kept = [hazard for hazard in hazards if hazard.kind not in (OPEN_NODE, BLOCKED, GROUP)]
        kept += self._usage.find_boot_hazards(inspection.device, inspection.state, kept)
        return [LostAtBoot(hazard, hazard.kind in self._accepted) for hazard in kept]

    def _builtin_binding(
        self, device: Identity, state: State, sources: OverrideSources
    ) -> BuiltinBinding | None:
        if sources.desired is None:
            return None
        is_native = state.driver_override is None
        taken_from = (state.driver,) if is_native else self._last_applied.native_of(device)
        if taken_from in (None, (sources.desired.driver,)):
            return None
        return self._builtin_drivers.of(device, taken_from[0])

    def _override_sources(self, device: Identity) -> OverrideSources:
        is_alone = self._sharing[device.stable_name] < 2
        rules = foreign_udev.DeviceRules(self._host.sysfs, device, self._rules)
        return OverrideSources(
            bus=device.bus,
            entry=self._claimed.get(device),
            foreign=_foreign_config(device, self._stored, is_alone=is_alone),
            rules=rules.at(),
            on_add=rules.at("add"),
            on_bind=rules.at("bind"),
            variant=self._variant(device),
        )

    def _variant(self, device: Identity) -> str | None:
        """Return the VFIO driver that the kernel had for the device when the list was applied."""
        machine = self._last_applied.machine
        return machine.variants.get(device.pci_id[-1]) if machine and device.pci_id else None


def _blocked(device: Identity, blocked: str | None) -> list[Hazard]:
    return [Hazard(BLOCKED, device.name, blocked)] if blocked else []


def _is_unbound_at_boot(inspection: Inspection) -> bool:
    """Return whether the next boot surely takes the device from the driver that it has."""
    next_boot, driver = inspection.next_boot, inspection.state.driver
    return next_boot.is_known and driver not in (None, next_boot.binding.driver)


def _bound_by(state: State, match: Match | None, sources: OverrideSources) -> Reason | None:
    """Return why the device has its driver; None if it has none."""
    override = state.driver_override
    if override and override == state.driver:
        return Reason(
            OVERRIDE,
            "its driver_override is %s, which %s" % (override, sources.source_of(override)),
        )
    if match is None or override is None:
        return match and match.reason
    return match.reason._replace(
        sentence="%s; its driver_override was set to %s after that, and takes effect at the next "
        "probe" % (match.reason.sentence, override)
    )


def _other_settings(sysfs: Sysfs, wanted: VfioSettings) -> dict[str, str]:
    """Return a sentence for each setting that a loaded module has otherwise, by option."""
    present, required = parameters(present_settings(sysfs)), parameters(wanted)
    return {
        VFIO_PARAMETERS[name]: "parameter %s is %s, but the last-applied configuration requires %s"
        % (name, "NY"[present[name]], "NY"[value])
        for name, value in required.items()
        if name in present and present[name] is not value
    }


def _against(lines: Sequence[modprobe_d.Line], parameters: Mapping[str, bool]) -> list[str]:
    return [
        "%s sets %s at each boot, but the last-applied configuration sets %d"
        % (line.location, word, wanted)
        for line, word, wanted in modprobe_d.find_other_values(lines, parameters)
    ]


def _foreign_config(
    device: Identity, kept: Sequence[driverctl.Stored], *, is_alone: bool
) -> ForeignConfig | None:
    stored = driverctl.of_device(device, kept)
    if stored is None:
        return None
    entry = stored.policy and Entry(_selector(device, is_alone=is_alone), stored.policy)
    return ForeignConfig(stored.path, entry, stored.ignored)


def _selector(device: Identity, *, is_alone: bool) -> Selector:
    """Return the selector that means this device and no other, at every boot if there is one."""
    if is_alone and device.dt_path:
        return Selector("dt_path", device.dt_path)
    if device.pci_id:
        return Selector.of_function(device)
    if is_alone and device.acpi_path:
        return Selector("acpi_path", device.acpi_path)
    return Selector("name", device.name, device.bus)


def _present_links(host: Host, device: Identity, state: State, entry: Entry | None) -> list[str]:
    if not state.vfio_nodes:
        return []
    from .._apply import symlinks  # noqa: PLC0415 - as in _vfio_support

    called = symlinks.names(device, entry and entry.tag)
    wanted = symlinks.targets(called, state.vfio_nodes)
    return [path for path, target in wanted.items() if target and host.files.link(path) == target]
