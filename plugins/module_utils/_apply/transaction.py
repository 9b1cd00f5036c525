# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out a plan whole and verified, or put everything back."""

from __future__ import annotations

import contextlib
import errno
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

from .._discovery.devices import consumers, state, states, with_all_ids
from .._discovery.vfio import NOIOMMU as NOIOMMU_PARAMETER
from .._discovery.vfio import (
    bound_wrongly,
    native_siblings,
    present_settings,
    registered,
    why_not_bound,
)
from .._errors import PolicyError
from .._model.buses import BUSES, is_vfio_driver
from .._model.device import Identity, State
from .._model.policy import NodeAccess, VfioSettings
from .._model.steps import (
    BIND,
    LOAD,
    LOAD_VFIO,
    NODES,
    OVERRIDE,
    PROBE,
    RELOAD_VFIO,
    RESTORE_NOIOMMU,
    SET_NOIOMMU,
    UNBIND,
    UNLINK,
    DevicePlan,
    HostStep,
    Step,
)
from .._system.files import FileChange, Files, StagedFile
from .._system.kmod import Kmod
from .._system.kmsg import KernelLog
from .._system.sysfs import KernelBlockedError, KernelRefusedError, Sysfs
from . import operations, symlinks
from .rollback import Failure, Rollback, of_device
from .run_lock import FILE, LINKS, MODULE, NODE, NOIOMMU, RELOADED, Runs, Undo


class Changes(NamedTuple):
    """All that one call changes on a host, in the order in which it is done."""

    host_steps: Sequence[HostStep]
    plans: Sequence[DevicePlan]
    files: Sequence[FileChange]
    access: NodeAccess | None = None
    may_share_group: bool = False


class Transaction:
    """One run of ``changes``; everything that it did is undone if any of it fails.

    How things were is written down by ``runs`` before each change, for the next run if this one is
    killed. ``refusals`` are why a device may not be unbound by now, asked for right before that.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        kmod: Kmod,
        files: Files,
        runs: Runs,
        log: KernelLog,
        changes: Changes,
        refusals: Callable[[DevicePlan], Sequence[str]] = lambda _plan: (),
    ) -> None:
        self._sysfs = sysfs
        self._kmod = kmod
        self._files = files
        self._runs = runs
        self._log = log
        self._changes = changes
        self._refusals = refusals
        self._settings_before = VfioSettings()
        self._undos: list[Undo] = []
        self._staged: list[StagedFile] = []
        self._touched: set[Identity] = set()
        self._blocked: set[str] = set()

    def run(self) -> dict[Identity, State]:
        """The verified state of every device that was changed.

        PolicyError with the reason and with what could not be put back, if anything failed.
        """
        self._log.begin()
        try:
            self._stage()
            after = self._apply()
            self._runs.forget()
            return after
        except PolicyError as error:
            raise PolicyError([*error.problems, self._put_back()]) from None
        except KernelRefusedError as error:
            problem = "%s. %s" % (error, error.advice)
            raise PolicyError([problem, self._put_back()]) from None
        except BaseException:
            self._put_back()
            raise
        finally:
            self._log.end()

    def _stage(self) -> None:
        """Write all that has to be written but for the last step, before the first device."""
        changes = self._changes
        records = [_undo_of(change) for change in changes.files]
        self._runs.begin(records, len(changes.plans) + len(changes.host_steps))
        problems = []
        for change in changes.files:
            try:
                self._staged.append(self._files.stage(change.path, change.after))
            except PolicyError as error:
                problems += error.problems
        if problems:
            raise PolicyError(problems)

    def _apply(self) -> dict[Identity, State]:
        working = [plan for plan in self._changes.plans if plan.steps]
        for plan in working:
            self._perform(plan, OVERRIDE)
        self._settings_before = present_settings(self._sysfs)
        for step in self._changes.host_steps:
            if step.kind != RESTORE_NOIOMMU:
                self._prepare(step)
        after = {}
        reloads = any(step.kind == RELOAD_VFIO for step in self._changes.host_steps)
        concerned = self._changes.plans if reloads else working
        for plan in concerned:
            self._perform(plan, LOAD, UNBIND, BIND, PROBE)
            after[plan.device] = self._verify(plan)
        # A supplier that was bound later brought its consumers back, and they have other nodes.
        after = self._verify_again(after)
        for plan in concerned:
            if any(step.kind == NODES for step in plan.steps):
                self._open_nodes(plan.device, after[plan.device])
            self._link_nodes(plan, after[plan.device])
        for step in self._changes.host_steps:
            if step.kind == RESTORE_NOIOMMU:
                self._set_noiommu(step.value)
        for change, staged in zip(self._changes.files, self._staged):
            self._remember(_undo_of(change))
            staged.commit()
        return after

    def _remember(self, undo: Undo) -> None:
        self._runs.remember(undo)
        self._undos.append(undo)

    def _perform(self, plan: DevicePlan, *kinds: str) -> None:
        for step in plan.steps:
            if step.kind in kinds:
                refusals = self._refusals(plan) if step.kind == UNBIND else ()
                if refusals:
                    raise PolicyError(refusals)
                self._remember_device(plan)
                with self._explained(plan.device, step):
                    self._act(plan.device, step)

    def _remember_device(self, plan: DevicePlan) -> None:
        if plan.device not in self._touched:
            self._touched.add(plan.device)
            wanted = (plan.driver, plan.driver_override)
            self._remember(of_device(plan.device, plan.before, wanted))

    def _remember_consumers(self, device: Identity) -> None:
        """Their drivers go with it, and the kernel probes all of them when it comes back."""
        for consumer in consumers(self._sysfs, device):
            bus, name = consumer.split(":", 1)
            if bus not in BUSES:
                continue
            lost = with_all_ids(self._sysfs, Identity(bus, name))
            if lost not in self._touched:
                self._touched.add(lost)
                # Put back after its supplier.
                self._remember(of_device(lost, state(self._sysfs, lost), is_late=True))
                self._remember_consumers(lost)

    def _act(self, device: Identity, step: Step) -> None:
        value = step.value or ""
        if step.kind == OVERRIDE:
            operations.override(self._sysfs, device, step.value)
        elif step.kind == UNBIND:
            self._remember_consumers(device)
            operations.unbind(self._sysfs, device, value)
        elif step.kind == BIND:
            operations.bind(self._sysfs, device, value)
        elif step.kind == PROBE:
            self._probe(device)
        elif step.kind == LOAD:
            self._load(value, {})

    def _probe(self, device: Identity) -> None:
        try:
            self._sysfs.write("bus/%s/drivers_probe" % device.bus, device.name)
        except KernelRefusedError as error:
            # The native driver failed or waits for a supplier; reading back tells what that means.
            if error.code != errno.EINVAL:
                raise

    def _load(self, module: str, parameters: dict[str, str]) -> None:
        before = set(self._sysfs.names("module"))
        if operations.is_loaded(self._sysfs, module):
            self._kmod.load(module, parameters)
            return
        values = {"module": module, "before": sorted(before), "came": []}
        undo = Undo(MODULE, "module " + module, values)
        self._remember(undo)
        self._kmod.load(module, parameters)
        # What was not there before came along, and only now it is known.
        values["came"] = sorted(set(self._sysfs.names("module")) - before)
        self._runs.remember(undo)

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
        elif step.kind == UNLINK:
            self._point({step.value: None})

    def _reload(self, module: str, parameters: dict[str, str]) -> None:
        # Unloading unbinds what is bound to it; what was on it before is to come back to it, once
        # the module itself has.
        for plan in self._changes.plans:
            if plan.before.driver == module:
                self._remember_device(plan)
        before = self._settings_before
        values = {
            "module": module,
            "reset_required": "Y" if before.reset_required else "N",
            "noiommu": before.unsafe_noiommu,
        }
        self._remember(Undo(RELOADED, "module " + module, values))
        operations.load_anew(self._sysfs, self._kmod, module, parameters, before.unsafe_noiommu)
        # Registration binds them again only while the bus probes by itself (drivers_autoprobe).
        for plan in self._changes.plans:
            if plan.before.driver == module and plan.driver == module:
                operations.bind(self._sysfs, plan.device, module)

    def _set_noiommu(self, value: str) -> None:
        before = self._settings_before.unsafe_noiommu
        if present_settings(self._sysfs).unsafe_noiommu is (value == "Y"):
            return
        if before is not None:
            values = {"value": "Y" if before else "N"}
            self._remember(Undo(NOIOMMU, "vfio.enable_unsafe_noiommu_mode", values))
        try:
            self._sysfs.write(NOIOMMU_PARAMETER, value)
        except KernelRefusedError as error:
            raise PolicyError(
                "Cannot set `unsafe_noiommu`: %s. The kernel needs CONFIG_VFIO_NOIOMMU for it"
                % error
            ) from None

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
                "%s did not become what policy %s asks for (driver %s): %s. See 'dmesg | grep %s'%s"
                % (
                    plan.device.label,
                    plan.policy.label,
                    plan.driver or "none",
                    problem,
                    plan.device.name,
                    self._quote(plan.device),
                )
            )
        return after

    def _verify_again(self, verified: dict[Identity, State]) -> dict[Identity, State]:
        """The states as they are in the end.

        What one device lost to a later one, such as a consumer to its supplier, is a failure.
        """
        now = states(self._sysfs, list(verified))
        problems = [
            "%s was on driver %s, and lost it again to a later step of this run (now: %s)"
            % (device.label, before.driver or "none", after.driver or "none")
            for (device, before), after in zip(verified.items(), now)
            if not after.is_bound_as(before)
        ]
        problems += [
            "%s was bound to VFIO, and shares IOMMU group %s with %s on driver %s, so that VFIO "
            "could open neither. Give %s to VFIO in the same list, or keep drivers off it with "
            "no_autobind; to do so later, add 'group' to `allow`"
            % (plan.device.label, one.group, one.name, one.driver, one.name)
            for plan in self._changes.plans
            if plan.binds_to_vfio and not self._changes.may_share_group
            for one in native_siblings(self._sysfs, plan.device)
        ]
        if problems:
            raise PolicyError(problems)
        return dict(zip(verified, now))

    def _open_nodes(self, device: Identity, after: State) -> None:
        access = self._changes.access
        if access is None:
            return
        for node in after.vfio_nodes:
            before = self._files.node_access(node)
            if before is None:
                raise PolicyError("%s: there is no node %s" % (device.label, node))
            values = {"path": node, "group": before.group, "mode": before.mode}
            self._remember(Undo(NODE, node, values))
            self._files.give_node(node, access)

    def _link_nodes(self, plan: DevicePlan, after: State) -> None:
        # A container may have no /dev/vfio.
        if plan.links and any(map(self._sysfs.has_node, after.vfio_nodes)):
            self._point(symlinks.targets(plan.links, after.vfio_nodes))

    def _point(self, wanted: Mapping[str, str | None]) -> None:
        present = {path: self._files.link(path) for path in wanted}
        before = {path: present[path] for path in wanted if present[path] != wanted[path]}
        if not before:
            return
        owners = {path: self._owner(path, target) for path, target in before.items() if target}
        # A link that comes back has to wait for its device, whose nodes may get other numbers.
        values = {"before": before, "owners": owners}
        self._remember(Undo(LINKS, "links " + ", ".join(before), values, is_late=bool(owners)))
        for path in before:
            self._files.point(path, wanted[path])

    def _owner(self, path: str, target: str) -> Identity | None:
        node = symlinks.node_of(path, target)
        plans = self._changes.plans
        return next((one.device for one in plans if node in one.before.vfio_nodes), None)

    @contextlib.contextmanager
    def _explained(self, device: Identity, step: Step) -> Iterator[None]:
        try:
            yield
        except KernelBlockedError as error:
            self._blocked.add(device.label)
            raise PolicyError(
                "%s: cannot %s: %s%s" % (device.label, step.sentence, error, self._quote(device))
            ) from None
        except KernelRefusedError as error:
            reason = (
                why_not_bound(self._sysfs, device, step.value or "", error.code)
                if step.kind == BIND
                else error.advice
            )
            raise PolicyError(
                "%s: cannot %s: %s. %s%s"
                % (device.label, step.sentence, error, reason, self._quote(device))
            ) from None

    def _quote(self, device: Identity) -> str:
        lines = self._log.about(device.name)
        return ". The kernel's log says: %s" % "; ".join(map(repr, lines)) if lines else ""

    def _put_back(self) -> str:
        for staged in self._staged:
            staged.discard()
        failures = Rollback(self._sysfs, self._kmod, self._files, self._blocked).run(self._undos)
        if not failures:
            # What is in it is how everything is again, so it may stay.
            with contextlib.suppress(PolicyError):
                self._runs.forget()
            return "Nothing was changed: all that this run did was put back"
        return self._report(failures)

    def _report(self, failures: Sequence[Failure]) -> str:
        sentence = "Not everything could be put back as it was: %s. The rest was" % "; ".join(
            failure.sentence for failure in failures
        )
        try:
            self._runs.keep(self._runs.who, [failure.undo for failure in failures])
        except PolicyError as error:
            # The journal is then as it was, and has this too.
            return "%s. %s. The next run tries again" % (sentence, error)
        return "%s. What is left to be put back is in %s, and the next run tries again" % (
            sentence,
            self._runs.journal,
        )


def _undo_of(change: FileChange) -> Undo:
    values = {"path": change.path, "before": change.before, "after": change.after}
    return Undo(FILE, change.path, values)


def _is_expected(plan: DevicePlan, after: State) -> bool:
    if any(step.kind == PROBE for step in plan.steps) and not plan.native.was_bound:
        # No more than the modalias spoke for a driver, so whatever the kernel chose is right.
        return not is_vfio_driver(after.driver, plan.device.bus)
    return after.driver == plan.driver
