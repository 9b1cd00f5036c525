# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a device: driver, what it carries, who claims it, the next boot. Reads only."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils import _driverctl, _udev
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import RULES, Memory
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import memory as remember
from ansible_collections.armfleet.vfio.plugins.module_utils._call import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._devices import (
    resolve,
    snapshot,
    states_as_far_as_known,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    DEFAULT,
    NO_DRIVER,
    Identity,
    State,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._plan import is_native, override_of
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import Entry, first_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._selectors import KINDS, Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import BLOCKED, Hazard
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import native


class Binding(NamedTuple):
    """What drives a device, or shall; None for no driver, and for no override."""

    driver: str | None
    driver_override: str | None

    @property
    def label(self) -> str:
        return State(*self).binding


class NextBoot(NamedTuple):
    """How a device will be after the next boot, and why."""

    binding: Binding
    reason: str


class Rival(NamedTuple):
    """What driverctl has stored of a device, and the entry of a list that says the same."""

    path: str
    entry: Entry


class Inspection(NamedTuple):
    """All that is known of one device; ``claimed_by`` is the entry of the list last applied.

    ``desired`` is what that entry asks for, None where it leaves the device to its native driver;
    ``rules`` are those of others that may set its override.
    """

    device: Identity
    state: State
    hazards: list[Hazard]
    claimed_by: Entry | None
    desired: Binding | None
    next_boot: NextBoot
    driverctl: Rival | None = None
    rules: Sequence[_udev.Rule] = ()

    @property
    def drift(self) -> list[str]:
        """Where list, running system and next boot differ; empty where they agree.

        Of a device that a hanging driver holds it is not known how it is.
        """
        if any(hazard.kind == BLOCKED for hazard in self.hazards):
            return []
        running = Binding(self.state.driver, self.state.driver_override)
        after = self.next_boot.binding
        sentences = []
        if self.desired and running != self.desired:
            sentences.append(
                "it is %s, and the list last applied wants it %s"
                % (running.label, self.desired.label)
            )
        if running != after:
            sentences.append(
                "it is %s, and will be %s after the next boot: %s"
                % (running.label, after.label, self.next_boot.reason)
            )
        sentences += [
            "%s sets driver_override to %s at each boot, and the list last applied wants %s"
            % (rule.place, rule.driver_override or "another", self.desired.driver_override)
            for rule in self.rules
            if self.desired and rule.driver_override != self.desired.driver_override
        ]
        return sentences


class Findings(NamedTuple):
    """The devices that were asked for, and the list last applied."""

    devices: list[Inspection]
    policy_list: list[Entry]


def inspect(host: Host, selectors: Sequence[Selector] | None) -> Findings:
    """The devices that ``selectors`` mean, or all of them; PolicyError as in :func:`run`."""
    memory = remember(host.files.read(RULES))
    devices = snapshot(host.sysfs, KINDS)
    chosen = devices
    if selectors is not None:
        found = resolve(host.sysfs, selectors, devices)
        chosen = list(dict.fromkeys(device for matches in found for device in matches))
    earlier = [entry.selector._replace(required=False, expect=None) for entry in memory.entries]
    claimed = first_entries(memory.entries, resolve(host.sysfs, earlier, devices))
    kept = _driverctl.stored(host.files)
    rules = _udev.rules(host.files, RULES)
    sharing = Counter(device.stable_name for device in devices) if kept else Counter()
    return Findings(
        [
            _with_block(
                _inspection(
                    host,
                    device,
                    state,
                    claimed.get(device),
                    memory,
                    _rival(device, kept, is_alone=sharing[device.stable_name] < 2),
                    _udev.of_device(device, rules),
                ),
                blocked,
            )
            for device, (state, blocked) in zip(chosen, states_as_far_as_known(host.sysfs, chosen))
        ],
        memory.entries,
    )


def _with_block(found: Inspection, blocked: str | None) -> Inspection:
    if blocked is None:
        return found
    hazard = Hazard(BLOCKED, found.device.name, blocked)
    return found._replace(hazards=[*found.hazards, hazard])


def _rival(device: Identity, kept: Sequence[_driverctl.Stored], *, is_alone: bool) -> Rival | None:
    stored = _driverctl.of_device(device, kept)
    if stored is None:
        return None
    return Rival(stored.path, Entry(_selector(device, is_alone=is_alone), stored.policy))


def _selector(device: Identity, *, is_alone: bool) -> Selector:
    """The selector that means this device and no other, at every boot if there is one."""
    if is_alone and device.dt_path:
        return Selector("dt_path", device.dt_path)
    if is_alone and device.acpi_path:
        return Selector("acpi_path", device.acpi_path)
    return Selector("name", device.name, device.bus)


def _inspection(
    host: Host,
    device: Identity,
    state: State,
    entry: Entry | None,
    memory: Memory,
    rival: Rival | None,
    rules: Sequence[_udev.Rule],
) -> Inspection:
    hazards = host.usage.of(device, state) + host.usage.beside(device)
    desired = _asked(entry, device) if entry and entry.policy.kind != DEFAULT else None
    after = _next_boot(host, device, state, desired, entry, memory)
    plain = [rule for rule in rules if rule.driver_override]
    if plain and not desired:
        last = plain[-1]
        reason = "the rule %s sets its override" % last.place
        after = NextBoot(_binding_of(last.driver_override), reason)
    if rival:
        reason = "driverctl sets it, after all rules, by %s" % rival.path
        after = NextBoot(_asked(rival.entry, device), reason)
    return Inspection(device, state, hazards, entry, desired, after, rival, rules)


def _asked(entry: Entry, device: Identity) -> Binding:
    return _binding_of(override_of(entry.policy, device.bus))


def _binding_of(override: str | None) -> Binding:
    return Binding(None if override == NO_DRIVER else override, override)


def _next_boot(
    host: Host,
    device: Identity,
    state: State,
    desired: Binding | None,
    entry: Entry | None,
    memory: Memory,
) -> NextBoot:
    if desired and entry:
        return NextBoot(desired, "policy %s of the list last applied" % entry.policy.label)
    if is_native(device, state):
        reason = "the kernel chooses the driver; no rule of this collection concerns the device"
        return NextBoot(Binding(state.driver, None), reason)
    own = native(host.sysfs, host.kmod, device, memory.native_of(device))
    reason = "set while the system runs; no rule of this collection sets it again at boot"
    return NextBoot(Binding(own.driver, None), reason)
