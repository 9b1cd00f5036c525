# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out a plan whole and verified, or put everything back."""

from __future__ import annotations

import contextlib
import errno
from functools import partial
from typing import Callable, Iterator, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils._devices import (
    complete,
    consumers,
    folder,
    state,
    states,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._files import FileChange, Files
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    BIND,
    LOAD,
    LOAD_VFIO,
    NODES,
    OVERRIDE,
    PROBE,
    RELOAD_VFIO,
    SET_NOIOMMU,
    UNBIND,
    VFIO_DRIVERS,
    DevicePlan,
    HostStep,
    Identity,
    NodeAccess,
    State,
    Step,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import (
    KernelBlockedError,
    KernelRefusedError,
    Sysfs,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._vfio import (
    NOIOMMU,
    bound_wrongly,
    present_settings,
    registered,
    why_not_bound,
)


class Changes(NamedTuple):
    """All that one call changes on a host, in the order in which it is done."""

    host_steps: Sequence[HostStep]
    plans: Sequence[DevicePlan]
    files: Sequence[FileChange]
    access: NodeAccess | None = None


_HOLDERS = "module/%s/holders"


class Transaction:
    """One run of ``changes``; everything that it did is undone if any of it fails."""

    def __init__(self, sysfs: Sysfs, kmod: Kmod, files: Files, changes: Changes) -> None:
        self._sysfs = sysfs
        self._kmod = kmod
        self._files = files
        self._changes = changes
        self._settings_before = VfioSettings()
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self._touched: set[Identity] = set()
        self._blocked: set[Identity] = set()

    def run(self) -> dict[Identity, State]:
        """The verified state of every device that was changed.

        PolicyError with the reason and with what could not be put back, if anything failed.
        """
        try:
            return self._apply()
        except PolicyError as error:
            raise PolicyError([*error.problems, self._report(self._put_back())]) from None
        except KernelRefusedError as error:
            problem = "%s. %s" % (error, error.advice)
            raise PolicyError([problem, self._report(self._put_back())]) from None
        except BaseException:
            self._put_back()
            raise

    def _apply(self) -> dict[Identity, State]:
        working = [plan for plan in self._changes.plans if plan.steps]
        for plan in working:
            self._perform(plan, OVERRIDE)
        self._settings_before = present_settings(self._sysfs)
        for step in self._changes.host_steps:
            self._prepare(step)
        after = {}
        reloads = any(step.kind == RELOAD_VFIO for step in self._changes.host_steps)
        for plan in self._changes.plans if reloads else working:
            self._perform(plan, LOAD, UNBIND, BIND, PROBE)
            after[plan.device] = self._verify(plan)
            if any(step.kind == NODES for step in plan.steps):
                self._open_nodes(plan.device, after[plan.device])
        self._verify_again(after)
        for change in self._changes.files:
            self._undo.append((change.path, partial(self._files.put, change.path, change.before)))
            self._files.put(change.path, change.after)
        return after

    def _perform(self, plan: DevicePlan, *kinds: str) -> None:
        for step in plan.steps:
            if step.kind in kinds:
                self._will_restore(plan)
                with self._explained(plan.device, step):
                    self._act(plan.device, step)

    def _will_restore(self, plan: DevicePlan) -> None:
        if plan.device not in self._touched:
            self._touched.add(plan.device)
            restore = partial(self._restore_device, plan.device, plan.before)
            self._undo.append((plan.device.label, restore))

    def _will_restore_consumers(self, device: Identity) -> None:
        """Their drivers go with it, and the kernel probes all of them when it comes back."""
        for consumer in consumers(self._sysfs, device):
            bus, name = consumer.split(":", 1)
            if bus not in VFIO_DRIVERS:
                continue
            lost = complete(self._sysfs, Identity(bus, name))
            if lost not in self._touched:
                self._touched.add(lost)
                restore = partial(self._restore_device, lost, state(self._sysfs, lost))
                # Undone after its supplier.
                self._undo.insert(0, (lost.label, restore))
                self._will_restore_consumers(lost)

    def _act(self, device: Identity, step: Step) -> None:
        value = step.value or ""
        if step.kind == OVERRIDE:
            self._override(device, step.value)
        elif step.kind == UNBIND:
            self._unbind(device, value)
        elif step.kind == BIND:
            self._bind(device, value)
        elif step.kind == PROBE:
            self._probe(device)
        elif step.kind == LOAD:
            self._load(value, {})

    def _override(self, device: Identity, driver: str | None) -> None:
        # A write of zero bytes does not clear it.
        self._sysfs.write(folder(device) + "/driver_override", (driver or "") + "\n")

    def _unbind(self, device: Identity, driver: str) -> None:
        if self._driver(device) == driver:
            self._will_restore_consumers(device)
            self._sysfs.write("bus/%s/drivers/%s/unbind" % (device.bus, driver), device.name)

    def _bind(self, device: Identity, driver: str) -> None:
        # A driver that was registered after the override was set has the device already. "bind"
        # tells the probe's own errno, which drivers_probe hides.
        if self._driver(device) == driver:
            return
        try:
            self._sysfs.write("bus/%s/drivers/%s/bind" % (device.bus, driver), device.name)
        except KernelRefusedError:
            if self._driver(device) != driver:
                raise

    def _probe(self, device: Identity) -> None:
        try:
            self._sysfs.write("bus/%s/drivers_probe" % device.bus, device.name)
        except KernelRefusedError as error:
            # The native driver failed or waits for a supplier; reading back tells what that means.
            if error.code != errno.EINVAL:
                raise

    def _driver(self, device: Identity) -> str | None:
        return self._sysfs.link_name(folder(device) + "/driver")

    def _load(self, module: str, parameters: dict[str, str]) -> None:
        before = set(self._sysfs.names("module"))
        self._kmod.load(module, parameters)
        came = set(self._sysfs.names("module")) - before
        # One that is built in is not there, and cannot be unloaded.
        if module.replace("-", "_") in came:
            self._undo.append(("module " + module, partial(self._unload, module, before, came)))

    def _unload(self, module: str, before: set[str], came: set[str]) -> None:
        self._kmod.unload(module)
        # modprobe takes along what only this module needed, loaded before or not, and leaves what
        # came because of another one that came (vfio_iommu_type1 with vfio, both with us).
        while True:
            loaded = set(self._sysfs.names("module"))
            free = [one for one in came & loaded if not self._sysfs.names(_HOLDERS % one)]
            if not free:
                break
            self._kmod.unload(min(free))
        for taken in sorted(before - loaded):
            self._kmod.load(taken)

    def _prepare(self, step: HostStep) -> None:
        if step.kind == LOAD_VFIO:
            self._load(step.value, step.parameters)
            if step.value not in registered(self._sysfs):
                raise PolicyError(
                    "Module %s was loaded, but its driver is not registered; see 'dmesg'"
                    % step.value
                )
        elif step.kind == RELOAD_VFIO:
            self._reload(step.value, step.parameters)
        elif step.kind == SET_NOIOMMU:
            self._set_noiommu(step.value)

    def _reload(self, module: str, parameters: dict[str, str]) -> None:
        # Unloading unbinds what is bound to it; what was on it before is to come back to it, once
        # the module itself has.
        for plan in self._changes.plans:
            if plan.before.driver == module:
                self._will_restore(plan)
        before = "Y" if self._settings_before.reset_required else "N"
        self._undo.append(
            ("module " + module, partial(self._load_anew, module, {"reset_required": before}))
        )
        self._load_anew(module, parameters)
        # Registration binds them again only while the bus probes by itself (drivers_autoprobe).
        for plan in self._changes.plans:
            if plan.before.driver == module and plan.driver == module:
                self._bind(plan.device, module)

    def _load_anew(self, module: str, parameters: dict[str, str]) -> None:
        if self._is_loaded(module):
            self._kmod.unload(module)
        self._kmod.load(module, parameters)
        self._restore_noiommu()

    def _restore_noiommu(self) -> None:
        # vfio itself goes with the module that used it last, and comes back as configured.
        noiommu = self._settings_before.unsafe_noiommu
        if noiommu is not None and present_settings(self._sysfs).unsafe_noiommu != noiommu:
            self._sysfs.write(NOIOMMU, "Y" if noiommu else "N")

    def _is_loaded(self, module: str) -> bool:
        return self._sysfs.exists("module/" + module.replace("-", "_"))

    def _set_noiommu(self, value: str) -> None:
        before = self._settings_before.unsafe_noiommu
        if present_settings(self._sysfs).unsafe_noiommu is (value == "Y"):
            return
        try:
            self._sysfs.write(NOIOMMU, value)
        except KernelRefusedError as error:
            raise PolicyError(
                "Cannot set unsafe_noiommu: %s. The kernel needs CONFIG_VFIO_NOIOMMU for it" % error
            ) from None
        if before is not None:
            restore = partial(self._sysfs.write, NOIOMMU, "Y" if before else "N")
            self._undo.append(("vfio.enable_unsafe_noiommu_mode", restore))

    def _verify(self, plan: DevicePlan) -> State:
        after = state(self._sysfs, plan.device)
        problem = None
        if after.driver_override != plan.driver_override:
            problem = "its driver_override reads %s" % (after.driver_override or "unset")
        elif not _is_expected(plan, after):
            problem = "its driver is %s" % (after.driver or "none")
        else:
            problem = bound_wrongly(self._sysfs, plan, after)
        if problem:
            raise PolicyError(
                "%s did not become what policy %s asks for (driver %s): %s. See 'dmesg | grep %s'"
                % (
                    plan.device.label,
                    plan.policy.label,
                    plan.driver or "none",
                    problem,
                    plan.device.name,
                )
            )
        return after

    def _verify_again(self, verified: dict[Identity, State]) -> None:
        """What one device lost to a later one, such as a consumer to its supplier, is a failure."""
        now = states(self._sysfs, list(verified))
        problems = [
            "%s was on driver %s, and lost it again to a later step of this run (now: %s)"
            % (device.label, before.driver or "none", after.driver or "none")
            for (device, before), after in zip(verified.items(), now)
            if (after.driver, after.driver_override) != (before.driver, before.driver_override)
        ]
        if problems:
            raise PolicyError(problems)

    def _open_nodes(self, device: Identity, after: State) -> None:
        access = self._changes.access
        if access is None:
            return
        for node in after.vfio_nodes:
            before = self._files.node_access(node)
            if before is None:
                raise PolicyError("%s: there is no node %s" % (device.label, node))
            self._undo.append((node, partial(self._files.give_node, node, before)))
            self._files.give_node(node, access)

    @contextlib.contextmanager
    def _explained(self, device: Identity, step: Step) -> Iterator[None]:
        try:
            yield
        except KernelBlockedError as error:
            self._blocked.add(device)
            raise PolicyError("%s: cannot %s: %s" % (device.label, step.sentence, error)) from None
        except KernelRefusedError as error:
            reason = (
                why_not_bound(self._sysfs, device, step.value or "", error.code)
                if step.kind == BIND
                else error.advice
            )
            raise PolicyError(
                "%s: cannot %s: %s. %s" % (device.label, step.sentence, error, reason)
            ) from None

    def _put_back(self) -> list[str]:
        """Undo in reverse; what could not be undone, one sentence each.

        What fails is tried again after all else: a device cannot come back before its supplier has.
        """
        waiting, self._undo = self._undo[::-1], []
        held: list[str] = []
        while True:
            failures: list[str] = []
            again = []
            for subject, undo in waiting:
                try:
                    undo()
                except KernelBlockedError as error:
                    held.append("%s: %s" % (subject, error))
                except (PolicyError, KernelRefusedError, OSError) as error:
                    failures.append("%s: %s" % (subject, error))
                    again.append((subject, undo))
            if len(again) in (0, len(waiting)):
                return held + failures
            waiting = again

    def _report(self, failures: Sequence[str]) -> str:
        if failures:
            return "Not everything could be put back as it was: " + "; ".join(failures)
        return "Nothing was changed: all that this run did was put back"

    def _restore_device(self, device: Identity, before: State) -> None:
        if device in self._blocked:
            raise PolicyError(
                "the kernel still holds it; it was on driver %s with driver_override %s"
                % (before.driver or "none", before.driver_override or "unset")
            )
        now = state(self._sysfs, device)
        override = before.driver_override
        if override and before.driver and now.driver != before.driver:
            # A driver that had the device against its override is refused as long as that is set.
            override = before.driver
        if now.driver_override != override:
            self._override(device, override)
        if now.driver and now.driver != before.driver:
            self._unbind(device, now.driver)
        if before.driver and now.driver != before.driver:
            self._bind(device, before.driver)
        if override != before.driver_override:
            self._override(device, before.driver_override)
        after = state(self._sysfs, device)
        if (after.driver, after.driver_override) != (before.driver, before.driver_override):
            raise PolicyError(
                "it was on driver %s with driver_override %s and is now on driver %s with "
                "driver_override %s"
                % (
                    before.driver or "none",
                    before.driver_override or "unset",
                    after.driver or "none",
                    after.driver_override or "unset",
                )
            )


def _is_expected(plan: DevicePlan, after: State) -> bool:
    if any(step.kind == PROBE for step in plan.steps) and not plan.native.was_bound:
        # No more than the modalias spoke for a driver, so whatever the kernel chose is right.
        return after.driver != VFIO_DRIVERS[plan.device.bus]
    return after.driver == plan.driver
