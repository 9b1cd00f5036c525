# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a device will be after the next boot, and what decides it. Reads only."""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple, Sequence

from .._discovery.builtin_drivers import is_permanent_driver
from .._discovery.devices import resolve, sysfs_dir
from .._discovery.driver_match import UNKNOWN, Drivers, Match, Reason
from .._discovery.vfio import is_built_in, modalias, native
from .._model.buses import is_vfio_driver
from .._model.device import Identity, Native, State
from .._model.plan import override_of
from .._model.policy import CONTAINER_MODULE, DEFAULT, NO_AUTOBIND, NO_DRIVER, VFIO
from .._model.policy_list import Entry
from .._system.host import Host
from .._system.kmod import canonical_name
from .foreign_udev import Rule
from .installed_kernels import InstalledKernels
from .last_applied import LastApplied
from .modprobe_d import Line, with_needs
from .module_loading import ModuleLoading
from .modules_load_d import ModuleLoadForecast
from .modules_load_d import forecast as forecast_module


class Binding(NamedTuple):
    """What drives a device, or shall; None for no driver, and for no override."""

    driver: str | None
    driver_override: str | None

    @property
    def label(self) -> str:
        return State(*self).binding


class BootState(NamedTuple):
    """How a device will be after the next boot, and why.

    If it is not ``is_known``, ``binding`` is what the device may have, and no driver and no
    override if nothing is more likely than that.
    """

    binding: Binding
    reason: str
    is_known: bool = True


class _Claimed(NamedTuple):
    """What the modules that claim a device make of it, as a clause.

    It is decided unless a module will be loaded that is not loaded now.
    """

    reason: str
    is_loaded_at_boot: bool = True
    is_decided: bool = True


class ForeignConfig(NamedTuple):
    """What driverctl has stored of a device, and the entry of a list that says the same.

    ``entry`` is None if that is no driver's name; ``ignored`` is why driverctl does not set it at
    boot, as a clause.
    """

    path: str
    entry: Entry | None
    ignored: str | None = None

    @property
    def clears(self) -> bool:
        """Whether driverctl clears the override, so that the native driver gets the device."""
        return self.entry is not None and self.entry.policy.kind == DEFAULT


class OverrideSources(NamedTuple):
    """What sets the override of a device at each boot.

    ``entry`` is that of the list last applied. ``rules`` are those of others in their order, and
    of these ``on_add`` when the device appears and ``on_bind`` when a driver was bound to it.
    ``variant`` is the VFIO driver that the kernel had for it when the list was applied.
    """

    bus: str
    entry: Entry | None = None
    foreign: ForeignConfig | None = None
    rules: Sequence[Rule] = ()
    on_add: Sequence[Rule] = ()
    on_bind: Sequence[Rule] = ()
    variant: str | None = None

    @property
    def desired(self) -> Binding | None:
        """What the list asks for; None if it leaves the device to its native driver."""
        if self.entry is None or self.entry.policy.kind == DEFAULT:
            return None
        return self._asked(self.entry)

    @property
    def stored(self) -> Binding | None:
        """What driverctl sets."""
        return self._asked(self.foreign.entry) if self.foreign and self.foreign.entry else None

    def source_of(self, override: str) -> str:
        """Return what sets that override, as a clause."""
        if self.entry and self.desired and self.desired.driver_override == override:
            return "the last-applied configuration sets (policy %s)" % self.entry.policy.label
        if self.foreign and self.stored and self.stored.driver_override == override:
            return "driverctl sets (%s)" % self.foreign.path
        for rule in self.rules:
            if rule.driver_override == override:
                return "the rule %s sets" % rule.location
        return "was set manually while the system runs"

    def _asked(self, entry: Entry) -> Binding:
        policy = entry.policy
        if policy.kind == VFIO and not policy.vfio_driver:
            policy = policy._replace(vfio_driver=self.variant)
        override = override_of(policy, self.bus)
        return Binding(None if override == NO_DRIVER else override, override)


_NOTHING = Binding(None, None)


class BootForecast:
    """What the next boot makes of the devices of a host.

    ``lines`` are foreign configuration of modules, ``kernels`` have them, ``previous`` is the
    last-applied configuration.
    """

    def __init__(
        self,
        host: Host,
        drivers: Drivers,
        previous: LastApplied,
        lines: Sequence[Line],
        kernels: InstalledKernels,
    ) -> None:
        self._host = host
        self._kernels = kernels
        self._drivers = drivers
        self._previous = previous
        self._lines = lines
        self._loading = ModuleLoading(host.kmod, lines, kernels)

    def of(
        self, device: Identity, state: State, match: Match | None, sources: OverrideSources
    ) -> BootState:
        """Return how the device will be.

        ``match`` is why it has its driver; None if it has none, or has it by its override.
        """
        forecast = self._removed_function(device) or after_bind(
            sources, self._after_add(device, state, match, sources)
        )
        driver = state.driver
        if driver in (None, forecast.binding.driver) or not self._is_permanent_driver(
            device, driver
        ):
            return forecast
        reason = (
            "%s is built into the kernel and has no unbind (suppress_bind_attrs), so the device "
            "stays bound to it whatever else is configured: %s" % (driver, forecast.reason)
        )
        return BootState(forecast.binding._replace(driver=driver), reason)

    def _removed_function(self, device: Identity) -> BootState | None:
        """Return what becomes of a virtual function that nothing here creates at boot."""
        if not device.pci_address:
            return None
        physical = self._host.sysfs.link_name(sysfs_dir(device) + "/physfn")
        if physical is None or physical in self._creating:
            return None
        reason = (
            "a reboot removes virtual functions, and no list sets sriov_numvfs of %s" % physical
        )
        return BootState(_NOTHING, reason, is_known=False)

    @functools.cached_property
    def _creating(self) -> set[str]:
        """The PCI functions that create virtual functions at boot by the list, by address."""
        entries = [entry for entry in self._previous.entries if entry.sriov_numvfs]
        selectors = [entry.selector._replace(required=False, expect=None) for entry in entries]
        return {
            device.name
            for matches in (resolve(self._host.sysfs, selectors) if selectors else ())
            for device in matches
        }

    def _is_permanent_driver(self, device: Identity, driver: str | None) -> bool:
        return driver is not None and is_permanent_driver(
            self._host.sysfs, self._host.kmod, device, driver
        )

    def _after_add(
        self, device: Identity, state: State, match: Match | None, sources: OverrideSources
    ) -> BootState:
        foreign, ignored = sources.foreign, self._ignored_reason(sources)
        if foreign and foreign.clears and not ignored:
            cleared = self._by_itself(device, state, match)
            reason = "driverctl clears its override after all rules (%s); %s"
            return cleared._replace(reason=reason % (foreign.path, cleared.reason))
        if foreign and sources.stored and not ignored:
            reason = "driverctl sets it after all rules (%s)" % foreign.path
            return BootState(sources.stored, reason)
        by_rules = after_rules(sources, self._by_list(device, sources), self._by_rule)
        outcome = by_rules or self._by_itself(device, state, match)
        if foreign:
            reason = "%s; driverctl does not apply %s: %s"
            outcome = outcome._replace(reason=reason % (outcome.reason, foreign.path, ignored))
        return outcome

    def _ignored_reason(self, sources: OverrideSources) -> str | None:
        """Return why driverctl does not set what it has stored, as a clause; None if it does."""
        if sources.foreign is None or sources.foreign.ignored:
            return sources.foreign and sources.foreign.ignored
        override = sources.stored.driver_override if sources.stored else None
        # set_override of driverctl goes by modules, whatever the driver's name.
        if override in (None, NO_DRIVER) or self._host.sysfs.exists("module/%s" % override):
            return None
        return self._host.kmod.explain_missing(str(override))

    def lines(
        self, device: Identity, state: State, match: Match | None, sources: OverrideSources
    ) -> list[Line]:
        """Return foreign configuration of the modules that the device is bound by, or may be."""
        module = self._drivers.module(device.bus, state.driver) if state.driver else None
        modules = {module} if module else set()
        if state.driver is None or (match and match.is_manual):
            modules.update(map(canonical_name, self._claimants(device)))
        if sources.desired:
            modules |= with_needs(self._needed(device, sources.desired))
            if is_vfio_driver(sources.desired.driver, device.bus):
                modules.add(CONTAINER_MODULE)
        return [line for line in self._lines if any(map(line.is_about, modules))]

    def _claimants(self, device: Identity) -> list[str]:
        return self._host.kmod.claimants(modalias(self._host.sysfs, device))

    def modules(self, bus: str, desired: Binding) -> list[str]:
        """Return the module of the driver; none where that driver has none here."""
        if desired.driver is None:
            return []
        if is_vfio_driver(desired.driver, bus):
            return [canonical_name(desired.driver)]
        pinned = self._drivers.module(bus, desired.driver)
        return [pinned] if pinned else []

    def _needed(self, device: Identity, desired: Binding) -> list[str]:
        """Return the module that the list requires; none if the driver is built in."""
        modules = self.modules(device.bus, desired)
        return [module for module in modules if not is_built_in(self._host.sysfs, module)]

    def _by_list(self, device: Identity, sources: OverrideSources) -> BootState | None:
        if not (sources.desired and sources.entry):
            return None
        policy = "policy %s of the last-applied configuration" % sources.entry.policy.label
        for line in self._loading.blocking(self._needed(device, sources.desired)):
            reason = "%s, so %s, which %s requires, is not loaded" % (
                line.label,
                line.module,
                policy,
            )
            return BootState(sources.desired._replace(driver=None), reason)
        for module in self._needed(device, sources.desired):
            cause = self._explain_missing(module)
            if cause:
                reason = "%s, so %s, which %s requires, is not loaded" % (cause, module, policy)
                return BootState(sources.desired._replace(driver=None), reason)
        for line in self._loading.running_commands(self._needed(device, sources.desired)):
            reason = "%s, so whether %s, which %s requires, is loaded depends on that command"
            reason %= (line.label, line.module, policy)
            return BootState(sources.desired, reason, is_known=False)
        return BootState(sources.desired, policy)

    def _explain_missing(self, module: str) -> str | None:
        lost = self._kernels.lost_file(module)
        return "%s does not exist" % lost if lost else self._host.kmod.explain_missing(module)

    def _by_rule(self, bus: str, rule: Rule) -> BootState:
        """Return the result of a foreign rule, whether or not it loads the module itself."""
        override = rule.driver_override
        nothing = Binding(None, override)
        reason = "the rule %s sets its override" % rule.location
        if override is None or override == NO_DRIVER:
            return BootState(nothing, reason)
        if override not in self._drivers.names(bus):
            return BootState(nothing, "%s, and there is no driver %s" % (reason, override))
        module = self._drivers.module(bus, override)
        for line in self._loading.blocking([module] if module else []):
            away = "%s, but %s, so %s is not loaded" % (reason, line.label, line.module)
            return BootState(nothing, away)
        for line in self._loading.running_commands([module] if module else []):
            open_reason = "%s, but %s, so whether %s is loaded depends on that command"
            open_reason %= (reason, line.label, line.module)
            return BootState(Binding(override, override), open_reason, is_known=False)
        return BootState(Binding(override, override), reason)

    def _by_itself(self, device: Identity, state: State, match: Match | None) -> BootState:
        """Return what becomes of a device whose override nobody sets."""
        reason = "the kernel chooses the driver"
        if state.driver_override is not None or (match and match.is_manual):
            reason += ", and changes to the running system do not persist"
        if match and not match.is_manual:
            return self._if_loaded(state.driver, match, reason)
        remembered = self._previous.native_of(device)
        if remembered is None:
            return self._unremembered(device, state, reason)
        own = native(self._host.sysfs, self._host.kmod, device, remembered)
        own_match = self._match(device, own)
        if own_match is None or own_match.is_manual:
            return BootState(_NOTHING, "%s; %s" % (reason, self._claimed(device).reason))
        return self._if_loaded(own.driver, own_match, reason)

    def _unremembered(self, device: Identity, state: State, reason: str) -> BootState:
        """Return what becomes of a device whose native driver no header names.

        A module that claims a device can have several drivers, and their probes can decline it;
        drivers that are built in need not be among the claims. So that a device never had a
        driver, or that its modules stay away, is known; no more.
        """
        claimed = self._claimed(device)
        if not claimed.is_loaded_at_boot:
            return BootState(_NOTHING, claimed.reason)
        if state.driver is None and state.driver_override is None:
            if not self._never_had_a_driver(device):
                reason = "whether it was unbound from a driver while the system runs is unknown"
            elif claimed.is_decided:
                return BootState(_NOTHING, "%s, and no driver bound it" % claimed.reason)
        else:
            reason += "; which driver is unknown"
        return BootState(_NOTHING, "%s; %s" % (reason, claimed.reason), is_known=False)

    def _match(self, device: Identity, own: Native) -> Match | None:
        if own.driver is None:
            return None
        if own.module is None:
            return self._drivers.match(device, own.driver)
        return Match(Reason(UNKNOWN, "its module claims it"), own.module, is_claiming=True)

    def _never_had_a_driver(self, device: Identity) -> bool:
        """Return whether it is known that no driver was bound to the device since it is there."""
        # device_links_driver_bound in drivers/base/core.c removes the file.
        return self._host.sysfs.exists(sysfs_dir(device) + "/waiting_for_supplier")

    def _if_loaded(self, driver: str | None, match: Match, reason: str) -> BootState:
        if match.module is None:
            return BootState(Binding(driver, None), reason)
        module_forecast = self._forecast_module(match.module, is_claiming=match.is_claiming)
        if not module_forecast.is_loaded:
            return BootState(_NOTHING, module_forecast.reason)
        return BootState(
            Binding(driver, None),
            "%s; %s" % (reason, module_forecast.reason),
            is_known=module_forecast.is_known,
        )

    def _claimed(self, device: Identity) -> _Claimed:
        for module in map(canonical_name, self._claimants(device)):
            module_forecast = self._forecast_module(module, is_claiming=True)
            if not module_forecast.is_loaded:
                return _Claimed(module_forecast.reason, is_loaded_at_boot=False)
            if module_forecast.is_known and self._host.sysfs.exists("module/" + module):
                return _Claimed("the module %s claims it" % module)
            reason = "%s, but its drivers are unknown until then" % module_forecast.reason
            return _Claimed(reason, is_decided=False)
        return _Claimed(self._host.kmod.without_modules() or "no module claims it")

    def _forecast_module(self, module: str, *, is_claiming: bool) -> ModuleLoadForecast:
        holders = self._host.sysfs.names("module/%s/holders" % module)
        lines = self._loading.of_module(module)
        return forecast_module(module, lines, holders, is_claiming=is_claiming)


def after_rules(
    sources: OverrideSources, ours: BootState | None, by_rule: Callable[[str, Rule], BootState]
) -> BootState | None:
    """Return the result of foreign rules and ``ours`` on a device, or None if there are none.

    Ours bind the device at once, so that an override that is set after them leaves it there.
    ``by_rule`` tells what a foreign rule makes of a device of a bus that no list claims.
    """
    plain = [rule for rule in sources.on_add if rule.sure_override]
    earlier = [rule for rule in plain if not rule.is_after_ours or ours is None]
    outcome = by_rule(sources.bus, earlier[-1]) if earlier else None
    if ours is None:
        return outcome
    if outcome and sources.entry and sources.entry.policy.kind == NO_AUTOBIND:
        outcome = outcome._replace(
            reason=outcome.reason + ", which policy no_autobind leaves unchanged"
        )
    else:
        outcome = ours
    for rule in sources.on_add:
        if rule.is_after_ours:
            outcome = _with_rule(outcome, rule, "afterwards")
    return outcome


def after_bind(sources: OverrideSources, outcome: BootState) -> BootState:
    """Return the result of foreign rules on a bound device, which our rules do not change."""
    is_bound = outcome.binding.driver is not None
    for rule in sources.on_bind if is_bound else ():
        outcome = _with_rule(outcome, rule, "when the device is bound")
    if outcome.binding.driver is None:
        return outcome
    for rule in sources.on_add:
        if rule.unbinds and sources.desired is None:
            # Its driver may be bound only after this event.
            reason = "%s; the rule %s unbinds it if it is bound by then" % (
                outcome.reason,
                rule.location,
            )
            return BootState(_NOTHING, reason, is_known=False)
    return outcome


def _with_rule(outcome: BootState, rule: Rule, when: str) -> BootState:
    if rule.unbinds and outcome.binding.driver:
        reason = "%s; the rule %s unbinds it %s" % (outcome.reason, rule.location, when)
        return BootState(outcome.binding._replace(driver=None), reason)
    if rule.sure_override in (None, outcome.binding.driver_override):
        return outcome
    binding = outcome.binding._replace(driver_override=rule.driver_override)
    reason = "%s; the rule %s sets its override %s" % (outcome.reason, rule.location, when)
    return BootState(binding, reason)
