# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out a plan whole and verified, or roll all of it back."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import Callable, Mapping, NamedTuple, Sequence

from .._discovery.devices import consumers, state, states, sysfs_dir, with_all_ids
from .._discovery.vfio import INTERRUPTS, present_settings, registered
from .._discovery.virtual_functions import autoprobes, numvfs
from .._errors import PolicyError
from .._model.buses import BUSES
from .._model.claimed import NumVfs
from .._model.device import Identity, State
from .._model.node_access import NodeAccess
from .._model.policy import CONTAINER_MODULE, DEFAULT, VfioSettings
from .._model.steps import DevicePlan, HostStep, HostStepKind, Step, StepKind
from .._system.files import FileChange
from .._system.host import Host
from .._system.sysfs import KernelRefusedError
from . import bindings, symlinks
from .error_context import ErrorContext
from .journal import Journal
from .operations import (
    DeviceBinding,
    FileWrite,
    InterruptsSwitch,
    ModuleLoad,
    ModuleReload,
    NodeAccessChange,
    NoiommuSwitch,
    Operation,
    ParameterSwitch,
    SymlinkChange,
    VirtualFunctions,
)
from .rollback import Failure, roll_back
from .verification import verify, verify_again

# What takes a device from one driver to another.
_MOVES = (StepKind.LOAD_MODULE, StepKind.UNBIND, StepKind.BIND, StepKind.PROBE)
_SWITCHES: Mapping[HostStepKind, type[ParameterSwitch]] = {
    HostStepKind.SET_NOIOMMU: NoiommuSwitch,
    HostStepKind.SET_INTERRUPTS: InterruptsSwitch,
}
_RESTORING: Mapping[HostStepKind, type[ParameterSwitch]] = {
    HostStepKind.RESTORE_NOIOMMU: NoiommuSwitch,
    HostStepKind.RESTORE_INTERRUPTS: InterruptsSwitch,
}


class ChangeSet(NamedTuple):
    """All that one call changes on a host, in the order in which it is done."""

    host_steps: Sequence[HostStep]
    plans: Sequence[DevicePlan]
    files: Sequence[FileChange]
    access: NodeAccess | None = None
    may_share_group: bool = False
    numvfs: Mapping[Identity, NumVfs] = MappingProxyType({})

    @property
    def created(self) -> set[Identity]:
        """The virtual functions that are not there yet."""
        return {device for change in self.numvfs.values() for device in change.created}

    @property
    def reloads_module(self) -> bool:
        return any(step.kind is HostStepKind.RELOAD_MODULE for step in self.host_steps)


class Transaction:
    """One run of ``changes``; everything that it did is undone if any of it fails.

    How things were is written to the journal before each change, for the next run if this one is
    killed. ``refusals`` are why a device may not be unbound by now, asked for right before that.
    """

    def __init__(
        self,
        host: Host,
        journal: Journal,
        changes: ChangeSet,
        refusals: Callable[[DevicePlan], Sequence[str]] = lambda _plan: (),
    ) -> None:
        self._host = host
        self._journal = journal
        self._changes = changes
        self._refusals = refusals
        self._errors = ErrorContext(host)
        self._settings_before = VfioSettings()
        self._operations: list[Operation] = []
        self._files = [FileWrite(change) for change in changes.files]
        self._bindings: dict[Identity, DeviceBinding] = {}
        # What the kernel logged of the end of what was used.
        self.deprecations: Sequence[str] = ()

    def run(self) -> dict[Identity, State]:
        """Return the verified state of every device that was changed.

        PolicyError with the reason and with what could not be rolled back, if anything failed.
        """
        self._host.log.begin()
        try:
            self._stage()
            after = self._apply()
            self._journal.discard()
            self.deprecations = self._host.log.about("DEPRECATION")
            return after
        except PolicyError as error:
            raise PolicyError([*error.problems, self._roll_back()]) from None
        except KernelRefusedError as error:
            problem = "%s. %s" % (error, error.advice)
            raise PolicyError([problem, self._roll_back()]) from None
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._host.log.end()

    def _stage(self) -> None:
        """Write all that has to be written but for the last step, before the first device."""
        changes = self._changes
        records = [write.to_record() for write in self._files]
        self._journal.begin(records, len(changes.plans) + len(changes.host_steps))
        problems = []
        for write in self._files:
            try:
                write.stage(self._host.files)
            except PolicyError as error:
                problems += error.problems
        if problems:
            raise PolicyError(problems)

    def _apply(self) -> dict[Identity, State]:
        working = [plan for plan in self._changes.plans if plan.steps]
        created = self._changes.created
        for plan in working:
            if plan.device not in created:
                self._perform(plan, StepKind.SET_OVERRIDE)
        self._settings_before = present_settings(self._host.sysfs)
        for step in self._changes.host_steps:
            if step.kind not in _RESTORING:
                self._prepare(step)
        after = self._set_numbers(working)
        for plan in working:
            if plan.device in created:
                self._perform(plan, StepKind.SET_OVERRIDE)
        moved = self._changes.plans if self._changes.reloads_module else working
        after = self._move([plan for plan in moved if plan.device not in after], after)
        self._probe_created()
        for step in self._changes.host_steps:
            if step.kind in _RESTORING:
                self._switch(_RESTORING[step.kind], step.value)
        for write in self._files:
            self._record(write)
            write.apply()
        return after

    def _set_numbers(self, plans: Sequence[DevicePlan]) -> dict[Identity, State]:
        """Set numbers of virtual functions; return the states of the functions that have them."""
        after = {}
        for plan in plans:
            for step in plan.steps:
                if step.kind is StepKind.SET_NUMVFS:
                    # Only its driver creates them.
                    self._perform(plan, *_MOVES)
                    after[plan.device] = verify(self._host.sysfs, plan, self._errors.quote)
                    self._set_number(plan, step)
        return after

    def _set_number(self, plan: DevicePlan, step: Step) -> None:
        sysfs, change = self._host.sysfs, self._changes.numvfs[plan.device]
        removed = list(zip(change.removed, states(sysfs, change.removed)))
        for device, before in removed:
            removal = DevicePlan(
                device=device,
                policy=plan.policy,
                before=before,
                steps=(),
                driver=None,
                driver_override=None,
            )
            refusals = self._refusals(removal)
            if refusals:
                raise PolicyError(refusals)
        operation = VirtualFunctions.planned(sysfs, plan.device, change.after, removed)
        self._record(operation)
        with self._errors.explaining(plan.device, step):
            operation.apply(sysfs)
        missing = [device for device in change.created if not sysfs.exists(sysfs_dir(device))]
        if missing or numvfs(sysfs, plan.device) != change.after:
            raise PolicyError(
                "%s: sriov_numvfs was set to %d, but there is no %s. Read 'dmesg | grep %s'"
                % (
                    plan.device.label,
                    change.after,
                    missing[0].label if missing else "such number of virtual functions",
                    plan.device.name,
                )
            )

    def _probe_created(self) -> None:
        """Let native drivers have the virtual functions that the list leaves to them."""
        decided = {plan.device for plan in self._changes.plans if plan.policy.kind != DEFAULT}
        for physical, change in self._changes.numvfs.items():
            if change.created and autoprobes(self._host.sysfs, physical):
                for device in change.created:
                    if device not in decided:
                        bindings.probe(self._host.sysfs, device)

    def _move(
        self, plans: Sequence[DevicePlan], before: Mapping[Identity, State]
    ) -> dict[Identity, State]:
        """Bring devices to their drivers, and their nodes to whom they are for.

        ``before`` are the states of devices that have their drivers already.
        """
        sysfs = self._host.sysfs
        after = dict(before)
        for plan in plans:
            self._perform(plan, *_MOVES)
            after[plan.device] = verify(sysfs, plan, self._errors.quote)
        # A supplier that was bound later brought its consumers back, and they have other nodes.
        after = verify_again(
            sysfs, after, self._changes.plans, may_share_group=self._changes.may_share_group
        )
        for plan in plans:
            if any(step.kind is StepKind.SET_NODE_ACCESS for step in plan.steps):
                self._set_node_access(plan.device, after[plan.device])
            self._link_nodes(plan, after[plan.device])
        return after

    def _record(self, operation: Operation) -> None:
        self._journal.append(operation.to_record())
        self._operations.append(operation)

    def _perform(self, plan: DevicePlan, *kinds: StepKind) -> None:
        for step in plan.steps:
            if step.kind in kinds:
                refusals = self._refusals(plan) if step.kind is StepKind.UNBIND else ()
                if refusals:
                    raise PolicyError(refusals)
                binding = self._record_binding(plan)
                with self._errors.explaining(plan.device, step):
                    self._perform_step(binding, step)

    def _perform_step(self, binding: DeviceBinding, step: Step) -> None:
        if step.kind is StepKind.LOAD_MODULE:
            self._load(step.value or "", {})
            return
        if step.kind is StepKind.UNBIND:
            self._record_consumers(binding.device, set())
        binding.apply(self._host.sysfs, step)

    def _record_binding(self, plan: DevicePlan) -> DeviceBinding:
        if plan.device not in self._bindings:
            target = (plan.driver, plan.driver_override)
            self._bindings[plan.device] = DeviceBinding(plan.device, plan.before, target)
            self._record(self._bindings[plan.device])
        return self._bindings[plan.device]

    def _record_consumers(self, device: Identity, seen: set[str]) -> None:
        """Their drivers go with its own, and the kernel probes all of them when it is back."""
        sysfs = self._host.sysfs
        for consumer in consumers(sysfs, device):
            bus, name = consumer.split(":", 1)
            if bus not in BUSES or consumer in seen:
                continue
            seen.add(consumer)
            lost = with_all_ids(sysfs, Identity(bus, name))
            if lost not in self._bindings:
                # Undone after its supplier.
                self._bindings[lost] = DeviceBinding(lost, state(sysfs, lost), deferred=True)
                self._record(self._bindings[lost])
            # Those of a device that has a step of its own are recorded by nothing else.
            self._record_consumers(lost, seen)

    def _load(self, module: str, parameters: Mapping[str, str]) -> None:
        if bindings.is_loaded(self._host.sysfs, module):
            self._host.kmod.load(module, parameters)
            return
        loaded = sorted(self._host.sysfs.names("module"))
        load = ModuleLoad(module, loaded, parameters=parameters)
        self._record(load)
        load.apply(self._host)
        self._journal.append(load.to_record())

    def _prepare(self, step: HostStep) -> None:
        if step.kind is HostStepKind.LOAD_MODULE:
            self._load(step.value, step.parameters)
            if step.value not in registered(self._host.sysfs):
                raise PolicyError(
                    "Module %s was loaded, but its driver is not registered. Read 'dmesg'"
                    % step.value
                )
        elif step.kind is HostStepKind.RELOAD_MODULE:
            self._reload(step.value, step.parameters)
        elif step.kind is HostStepKind.SET_INTERRUPTS and not self._has_container_module():
            # Nothing has loaded it, so that there is nothing to turn off.
            if step.value == "Y":
                self._load(CONTAINER_MODULE, {})
                self._switch(InterruptsSwitch, step.value)
        elif step.kind in _SWITCHES:
            self._switch(_SWITCHES[step.kind], step.value)
        elif step.kind is HostStepKind.REMOVE_LINK:
            self._set_links({step.value: None})

    def _reload(self, module: str, parameters: Mapping[str, str]) -> None:
        # Unloading unbinds what is bound to it; if that is rolled back, it is bound again once the
        # module itself is back.
        bound = [plan for plan in self._changes.plans if plan.before.driver == module]
        for plan in bound:
            self._record_binding(plan)
        reload = ModuleReload(module, self._settings_before, parameters)
        self._record(reload)
        reload.apply(self._host)
        # Registration binds them again only while the bus probes by itself (drivers_autoprobe).
        for plan in bound:
            if plan.driver == module:
                bindings.bind(self._host.sysfs, plan.device, module)

    def _has_container_module(self) -> bool:
        return self._host.sysfs.exists(INTERRUPTS)

    def _switch(self, switch: type[ParameterSwitch], value: str) -> None:
        before: bool | None = getattr(self._settings_before, switch.option)
        if getattr(present_settings(self._host.sysfs), switch.option) is (value == "Y"):
            return
        if before is not None:
            self._record(switch("Y" if before else "N"))
        switch.apply(self._host.sysfs, value)

    def _set_node_access(self, device: Identity, after: State) -> None:
        access = self._changes.access
        if access is None:
            return
        files = self._host.files
        for node in after.vfio_nodes:
            before = files.node_access(node)
            if before is None:
                raise PolicyError("%s: there is no node %s" % (device.label, node))
            change = NodeAccessChange(node, before)
            self._record(change)
            change.apply(files, access)

    def _link_nodes(self, plan: DevicePlan, after: State) -> None:
        # A container may have no /dev/vfio.
        if plan.links and any(map(self._host.sysfs.has_node, after.vfio_nodes)):
            self._set_links(symlinks.targets(plan.links, after.vfio_nodes))

    def _set_links(self, targets: Mapping[str, str | None]) -> None:
        files = self._host.files
        present = {path: files.link(path) for path in targets}
        before = {path: present[path] for path in targets if present[path] != targets[path]}
        if not before:
            return
        owners = {path: self._owner(path, target) for path, target in before.items() if target}
        known = {path: owner for path, owner in owners.items() if owner}
        change = SymlinkChange(before, known)
        self._record(change)
        change.apply(files, targets)

    def _owner(self, path: str, target: str) -> Identity | None:
        node = symlinks.node_of(path, target)
        removed = [device for change in self._changes.numvfs.values() for device in change.removed]
        nodes = [(plan.device, plan.before.vfio_nodes) for plan in self._changes.plans]
        nodes += [
            (device, state.vfio_nodes)
            for device, state in zip(removed, states(self._host.sysfs, removed))
        ]
        return next((device for device, of_device in nodes if node in of_device), None)

    def _roll_back(self) -> str:
        """Undo all that was done; return what came of it, in a sentence."""
        for write in self._files:
            write.discard()
        failures = roll_back(self._host, self._operations, self._errors.blocked)
        if not failures:
            # What is in it is how everything is again, so it may stay.
            with contextlib.suppress(PolicyError):
                self._journal.discard()
            return "Nothing was changed: all changes of this run were rolled back"
        return self._report(failures)

    def _report(self, failures: Sequence[Failure]) -> str:
        sentence = "Not everything could be rolled back: %s. The rest was" % "; ".join(
            failure.sentence for failure in failures
        )
        try:
            self._journal.replace([failure.operation.to_record() for failure in failures])
        except PolicyError as error:
            # The journal is then as it was, and has this too.
            return "%s. %s. The next run tries again" % (sentence, error)
        return "%s. The remaining changes are recorded in %s, and the next run tries again" % (
            sentence,
            self._journal.path,
        )
