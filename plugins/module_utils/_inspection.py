# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a device: driver, what it carries, who claims it, the next boot. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import RULES, Memory
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import memory as remember
from ansible_collections.armfleet.vfio.plugins.module_utils._devices import (
    resolve,
    snapshot,
    states_as_far_as_known,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._engine import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    DEFAULT,
    NO_AUTOBIND,
    Identity,
    State,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._plan import is_native, override_of
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import Entry, first_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._selectors import KINDS, Selector
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import BLOCKED, Hazard
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import native


class Inspection(NamedTuple):
    """All that is known of one device; ``claimed_by`` is the entry of the list last applied."""

    device: Identity
    state: State
    hazards: list[Hazard]
    claimed_by: Entry | None
    next_driver: str | None
    next_override: str | None
    reason: str


def inspect(host: Host, selectors: Sequence[Selector] | None) -> list[Inspection]:
    """The devices that ``selectors`` mean, or all of them; PolicyError as in :func:`run`."""
    memory = remember(host.files.read(RULES))
    devices = snapshot(host.sysfs, KINDS)
    chosen = devices
    if selectors is not None:
        found = resolve(host.sysfs, selectors, devices)
        chosen = list(dict.fromkeys(device for matches in found for device in matches))
    earlier = [entry.selector._replace(required=False, expect=None) for entry in memory.entries]
    claimed = first_entries(memory.entries, resolve(host.sysfs, earlier, devices))
    return [
        _with_block(_inspection(host, device, state, claimed.get(device), memory), blocked)
        for device, (state, blocked) in zip(chosen, states_as_far_as_known(host.sysfs, chosen))
    ]


def _with_block(found: Inspection, blocked: str | None) -> Inspection:
    if blocked is None:
        return found
    hazard = Hazard(BLOCKED, found.device.name, blocked)
    return found._replace(hazards=[*found.hazards, hazard])


def _inspection(
    host: Host, device: Identity, state: State, entry: Entry | None, memory: Memory
) -> Inspection:
    hazards = host.usage.of(device, state) + host.usage.beside(device)
    if entry and entry.policy.kind != DEFAULT:
        override = override_of(entry.policy, device.bus)
        driver = None if entry.policy.kind == NO_AUTOBIND else override
        reason = "policy %s of the list last applied" % entry.policy.label
        return Inspection(device, state, hazards, entry, driver, override, reason)
    if is_native(device, state):
        reason = "the kernel chooses the driver; no rule of this collection concerns the device"
        return Inspection(device, state, hazards, entry, state.driver, None, reason)
    own = native(host.sysfs, host.kmod, device, memory.native_of(device))
    reason = "set while the system runs; no rule of this collection sets it again at boot"
    return Inspection(device, state, hazards, entry, own.driver, None, reason)
