# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is and what is wanted to the steps between. Pure."""

from __future__ import annotations

from typing import Sequence

from .buses import BUSES, RESETTING, is_vfio_driver
from .device import Identity, Native, State
from .policy import DEFAULT, DRIVER, NO_AUTOBIND, NO_DRIVER, VFIO, Claim, Policy, VfioSettings
from .steps import DevicePlan, HostStep, HostStepKind, Step, StepKind


def override_of(policy: Policy, bus: str) -> str | None:
    """Return the driver_override that a policy sets on a device of ``bus``; None clears it."""
    return {
        VFIO: policy.vfio_driver or BUSES[bus].vfio_driver,
        NO_AUTOBIND: NO_DRIVER,
        DRIVER: policy.driver,
        DEFAULT: None,
    }[policy.kind]


def is_still_applied(policy: Policy, bus: str, state: State) -> bool:
    """Return whether a device is still in the state of ``policy``, or partly released."""
    if state.driver_override is not None:
        return _is_override_of(policy, bus, state.driver_override)
    return not state.driver or (
        policy.kind != NO_AUTOBIND and _is_override_of(policy, bus, state.driver)
    )


def _is_override_of(policy: Policy, bus: str, driver: str) -> bool:
    if policy.kind == VFIO:
        # Another kernel may have named another VFIO driver when the policy was applied.
        return is_vfio_driver(driver, bus)
    return driver == override_of(policy, bus)


def is_native(device: Identity, state: State) -> bool:
    """Return whether the kernel alone chose what drives the device."""
    return state.driver_override is None and not is_vfio_driver(state.driver, device.bus)


def is_settled(policy: Policy, device: Identity, state: State) -> bool:
    """Return whether a device is as ``policy`` leaves it, so that a boot changes nothing."""
    if policy.kind == DEFAULT:
        return is_native(device, state)
    override = override_of(policy, device.bus)
    driver = None if policy.kind == NO_AUTOBIND else override
    return (state.driver, state.driver_override) == (driver, override)


def needs_native(claim: Claim, state: State) -> bool:
    """Return whether the plan for this device depends on which driver is its native one."""
    policy, bus = claim.policy, claim.device.bus
    if policy.kind != DEFAULT or not policy.rebind:
        return False
    if policy.release_of and not is_still_applied(policy.release_of, bus, state):
        return False
    if state.driver is None:
        return claim.is_new or state.driver_override is not None
    return is_vfio_driver(state.driver, bus) or state.driver in _asked_for(policy, bus, state)


def _asked_for(policy: Policy, bus: str, state: State) -> tuple[str | None, ...]:
    """Return drivers that a device was given to: by its override, or by the claim that is given up.

    A run that was killed may have cleared the override and left the driver.
    """
    release_of = override_of(policy.release_of, bus) if policy.release_of else None
    return (state.driver_override, release_of)


def plan(claim: Claim, state: State, native: Native) -> DevicePlan:
    """Return the steps that bring one device to its policy; none where it is there already."""
    device, policy = claim.device, claim.policy
    if policy.release_of and not is_still_applied(policy.release_of, device.bus, state):
        return DevicePlan(
            device=device,
            policy=policy,
            before=state,
            steps=(),
            driver=state.driver,
            driver_override=state.driver_override,
        )
    override = override_of(policy, device.bus)
    steps: list[Step] = []
    driver = state.driver
    if policy.rebind and policy.kind == DEFAULT:
        steps, driver = _give_back(claim, state, native)
    elif policy.rebind:
        driver = None if policy.kind == NO_AUTOBIND else override
        note = ", the kernel's VFIO driver for %s" % device.pci_id[0] if policy.is_variant else ""
        steps = _move(state.driver, driver, note)
    if override != state.driver_override:
        steps.insert(0, Step(StepKind.SET_OVERRIDE, override, state.driver_override))
    return DevicePlan(
        device=device,
        policy=policy,
        before=state,
        steps=tuple(steps),
        driver=driver,
        driver_override=override,
        native=native,
    )


def _move(before: str | None, after: str | None, note: str = "") -> list[Step]:
    if before == after:
        return []
    steps = [Step(StepKind.UNBIND, before)] if before else []
    if after:
        steps.append(Step(StepKind.BIND, after, note=note))
    return steps


def _give_back(claim: Claim, state: State, native: Native) -> tuple[list[Step], str | None]:
    bus = claim.device.bus
    is_foreign = state.driver is not None and (
        is_vfio_driver(state.driver, bus)
        or (state.driver in _asked_for(claim.policy, bus, state) and state.driver != native.driver)
    )
    is_driverless = state.driver is None and (claim.is_new or state.driver_override is not None)
    if not is_foreign and not is_driverless:
        return [], state.driver
    if is_driverless and state.driver_override is None and native == Native():
        return [], None
    steps = _move(state.driver, None)
    if native.module:
        steps.append(Step(StepKind.LOAD_MODULE, native.module))
    steps.append(Step(StepKind.PROBE, native.driver))
    return steps, native.driver


def host_steps(
    plans: Sequence[DevicePlan],
    registered: Sequence[str],
    wanted: VfioSettings,
    present: VfioSettings,
) -> list[HostStep]:
    """Return what the vfio modules need before devices are bound to them.

    ``registered`` are the vfio drivers that the kernel has at this moment, ``present`` the
    settings of the modules that are loaded.
    """
    drivers = sorted({plan.driver_override or "" for plan in plans if plan.is_for_vfio})
    steps = []
    for driver in drivers:
        parameters = _load_parameters(driver, wanted)
        if driver not in registered:
            steps.append(HostStep(HostStepKind.LOAD_MODULE, driver, parameters))
        elif parameters and present.reset_required != wanted.reset_required:
            steps.append(HostStep(HostStepKind.RELOAD_MODULE, driver, parameters))
    # What a module that is not loaded yet starts with depends on modprobe's configuration.
    if drivers and wanted.unsafe_noiommu not in (None, present.unsafe_noiommu):
        steps.append(HostStep(HostStepKind.SET_NOIOMMU, _flag(wanted.unsafe_noiommu)))
    if drivers and _must_set_interrupts(wanted, present, loads_modules=bool(steps)):
        steps.append(HostStep(HostStepKind.SET_INTERRUPTS, _flag(wanted.unsafe_interrupts)))
    return steps


def _must_set_interrupts(
    wanted: VfioSettings, present: VfioSettings, *, loads_modules: bool
) -> bool:
    """Return whether to set the parameter; its module may be loaded with the modules of VFIO."""
    if wanted.unsafe_interrupts in (None, present.unsafe_interrupts):
        return False
    is_absent = present.unsafe_interrupts is None
    return wanted.unsafe_interrupts is True or not is_absent or loads_modules


def _load_parameters(driver: str, wanted: VfioSettings) -> dict[str, str]:
    if driver != RESETTING.vfio_driver or wanted.reset_required is None:
        return {}
    return {"reset_required": _flag(wanted.reset_required)}


def _flag(value: bool | None) -> str:
    return "Y" if value else "N"
