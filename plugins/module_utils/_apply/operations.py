# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that a run changes, one class for each kind: apply, undo, and the journal's record of it.

An operation knows how things were before it. It is written to the journal by its record, from which
the next run makes it again if this one is killed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar, Container, Mapping, NamedTuple, Sequence

from .._discovery.devices import state, sysfs_dir
from .._discovery.vfio import INTERRUPTS, NOIOMMU, present_settings
from .._discovery.virtual_functions import autoprobes, numvfs, present
from .._errors import PolicyError
from .._in_use.checker import Usage
from .._model.device import Identity, State
from .._model.node_access import NodeAccess
from .._model.policy import VfioSettings
from .._model.steps import Step, StepKind
from .._system.file_writes import StagedFile
from .._system.files import FileChange, Files
from .._system.host import Host
from .._system.kmod import canonical_name
from .._system.sysfs import KernelBlockedError, KernelRefusedError, Sysfs
from . import bindings, symlinks
from . import record_fields as fields

_HOLDERS = "module/%s/holders"


class UndoRecord(NamedTuple):
    """How something was before an operation, as a line of the journal has it.

    ``values`` is what JSON can hold, by ``kind``. What is ``deferred`` is undone after all others.
    """

    kind: str
    subject: str
    values: dict[str, Any]
    deferred: bool = False


class UndoContext(NamedTuple):
    """What undoing goes by.

    ``devices`` are the names of those whose bindings are undone as well, ``blocked`` the labels of
    those that the kernel holds.
    """

    host: Host
    devices: Container[str]
    blocked: Container[str] = ()


class RecoveryContext(NamedTuple):
    """What decides whether an operation of an interrupted run may still be undone.

    ``allow`` are the kinds of use that the user accepts, ``devices`` as in UndoContext.
    """

    host: Host
    usage: Usage
    allow: Sequence[str]
    devices: Container[str]


class Operation:
    """One change of the host; ``subject`` is how messages call what it changes.

    ``record_fields`` are the checks of what a record has in ``values``, ``later_fields`` what those
    of them mean that records of earlier versions do not have.
    """

    kind: ClassVar[str]
    record_fields: ClassVar[Mapping[str, fields.Check]]
    later_fields: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    # Whether a device that is left as it is may need what it changed.
    is_of_modules: ClassVar[bool] = False

    def __init__(self, subject: str, *, deferred: bool = False) -> None:
        self.subject = subject
        self.deferred = deferred

    @property
    def values(self) -> dict[str, Any]:
        """How things were, by the names of ``record_fields``."""
        raise NotImplementedError

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Operation:
        """Return the operation of a record whose values were checked."""
        raise NotImplementedError

    def to_record(self) -> UndoRecord:
        """Return what the journal keeps of it."""
        return UndoRecord(self.kind, self.subject, self.values, self.deferred)

    def find_undo_conflict(self, _context: RecoveryContext) -> str | None:
        """Return why it may not be undone any more, after the run that made it was interrupted."""
        return None

    def undo(self, context: UndoContext) -> None:
        """Restore what was before.

        PolicyError, KernelRefusedError, KernelBlockedError or OSError if that cannot be done.
        """
        raise NotImplementedError


class DeviceBinding(Operation):
    """The driver and the driver_override of a device.

    ``target`` is the driver and the override that the run wants; None for a device that only loses
    its driver with its supplier's, and gets it back after that.
    """

    kind = "device"
    record_fields: ClassVar = {
        "device": fields.device,
        "driver": fields.or_null(fields.sysfs_name),
        "driver_override": fields.or_null(fields.override),
        "wanted": fields.or_null(fields.binding),
    }

    def __init__(
        self,
        device: Identity,
        before: State,
        target: tuple[str | None, str | None] | None = None,
        *,
        deferred: bool = False,
    ) -> None:
        super().__init__(device.label, deferred=deferred)
        self.device = device
        self._before = before
        self._target = target

    @property
    def values(self) -> dict[str, Any]:
        return {
            "device": _device_values(self.device),
            "driver": self._before.driver,
            "driver_override": self._before.driver_override,
            "wanted": self._target and list(self._target),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> DeviceBinding:
        before = State(values["driver"], values["driver_override"])
        target = values["wanted"]
        return cls(_device(values["device"]), before, target and (target[0], target[1]))

    def apply(self, sysfs: Sysfs, step: Step) -> None:
        """Do one step of those that bring the device to its policy."""
        value = step.value or ""
        if step.kind is StepKind.SET_OVERRIDE:
            bindings.override(sysfs, self.device, step.value)
        elif step.kind is StepKind.UNBIND:
            bindings.unbind(sysfs, self.device, value)
        elif step.kind is StepKind.BIND:
            bindings.bind(sysfs, self.device, value)
        elif step.kind is StepKind.PROBE:
            bindings.probe(sysfs, self.device)

    def find_undo_conflict(self, context: RecoveryContext) -> str | None:
        try:
            return self._find_undo_conflict(context)
        except KernelBlockedError:
            # Undoing it says so.
            return None

    def _find_undo_conflict(self, context: RecoveryContext) -> str | None:
        sysfs = context.host.sysfs
        if not sysfs.exists(sysfs_dir(self.device)):
            return "the device no longer exists"
        now = state(sysfs, self.device)
        if not self._explains(now):
            return "it was changed since, and is now %s" % now.binding
        if now.driver in (None, self._before.driver):
            return None
        hazards = context.usage.hazards_of(self.device, now)
        refusals = [hazard for hazard in hazards if not hazard.is_accepted(context.allow)]
        return "; ".join(hazard.sentence for hazard in refusals) or None

    def _explains(self, now: State) -> bool:
        """Return whether the device is as the run found it, as it wanted it, or between the two."""
        before = self._before
        if self._target is None:
            # Its driver goes and comes with its supplier's; its override is nobody's but its
            # owner's.
            return now.driver_override == before.driver_override
        driver, override = self._target
        # A driver that had the device against its override is bound again by naming it.
        overrides = (before.driver_override, override, before.driver)
        return now.driver in (None, before.driver, driver) and now.driver_override in overrides

    def undo(self, context: UndoContext) -> None:
        sysfs, device, before = context.host.sysfs, self.device, self._before
        if device.label in context.blocked:
            raise PolicyError("the kernel still holds it; it was %s" % before.binding)
        now = state(sysfs, device)
        override = before.driver_override
        if override and before.driver and now.driver != before.driver:
            # A driver that had the device against its override is refused as long as that is set.
            override = before.driver
        if now.driver_override != override:
            bindings.override(sysfs, device, override)
        if now.driver and now.driver != before.driver:
            bindings.unbind(sysfs, device, now.driver)
        if before.driver and now.driver != before.driver:
            bindings.bind(sysfs, device, before.driver)
        if override != before.driver_override:
            bindings.override(sysfs, device, before.driver_override)
        after = state(sysfs, device)
        if not after.is_bound_as(before):
            raise PolicyError("it was %s and is now %s" % (before.binding, after.binding))


class VirtualFunctions(Operation):
    """The number of virtual functions of a PCI function.

    ``removed`` are those that were there, with their states; the kernel removes all of them before
    it creates others. ``autoprobes`` is whether native drivers probe new ones by themselves.
    """

    kind = "numvfs"
    record_fields: ClassVar = {
        "device": fields.device,
        "before": fields.count,
        "after": fields.count,
        "autoprobes": fields.boolean,
        "removed": fields.each_of(fields.bound_device),
    }

    def __init__(
        self,
        device: Identity,
        before: int,
        after: int,
        removed: Sequence[tuple[Identity, State]],
        *,
        autoprobes: bool,
    ) -> None:
        super().__init__("sriov_numvfs of " + device.label)
        self._device = device
        self._before = before
        self._after = after
        self._removed = removed
        self._autoprobes = autoprobes

    @classmethod
    def planned(
        cls, sysfs: Sysfs, device: Identity, after: int, removed: Sequence[tuple[Identity, State]]
    ) -> VirtualFunctions:
        """Return the operation from what there is now."""
        before = numvfs(sysfs, device) or 0
        return cls(device, before, after, removed, autoprobes=autoprobes(sysfs, device))

    @property
    def values(self) -> dict[str, Any]:
        return {
            "device": _device_values(self._device),
            "before": self._before,
            "after": self._after,
            "autoprobes": self._autoprobes,
            "removed": [
                [_device_values(device), state.driver, state.driver_override]
                for device, state in self._removed
            ],
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> VirtualFunctions:
        removed = [
            (_device(device), State(driver, override))
            for device, driver, override in values["removed"]
        ]
        device, before, after = _device(values["device"]), values["before"], values["after"]
        return cls(device, before, after, removed, autoprobes=values["autoprobes"])

    def apply(self, sysfs: Sysfs) -> None:
        """Set the number that is wanted; the functions have no driver."""
        bindings.set_numvfs(sysfs, self._device, self._after)

    def find_undo_conflict(self, context: RecoveryContext) -> str | None:
        sysfs = context.host.sysfs
        now = numvfs(sysfs, self._device)
        if now is None:
            return "the device no longer exists"
        if now not in (0, self._before, self._after):
            return "it was changed since, and is now %d" % now
        if now in (0, self._before):
            return None
        refusals = [
            hazard.sentence
            for device in present(sysfs, self._device)
            for hazard in context.usage.hazards_of(device, state(sysfs, device))
            if not hazard.is_accepted(context.allow)
        ]
        return "; ".join(refusals) or None

    def undo(self, context: UndoContext) -> None:
        sysfs = context.host.sysfs
        if numvfs(sysfs, self._device) != self._before:
            bindings.set_numvfs(sysfs, self._device, self._before)
        if autoprobes(sysfs, self._device) != self._autoprobes:
            bindings.set_autoprobes(sysfs, self._device, is_on=self._autoprobes)
        for device, before in self._removed:
            DeviceBinding(device, before).undo(context)


class ModuleLoad(Operation):
    """A module that was not loaded, with those that come with it.

    ``before`` are the modules that were loaded, ``added`` what came with it.
    """

    kind = "module"
    record_fields: ClassVar = {
        "module": fields.module,
        "before": fields.modules,
        "came": fields.modules,
    }
    is_of_modules = True

    def __init__(
        self,
        module: str,
        before: Sequence[str],
        added: Sequence[str] = (),
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("module " + module)
        self._module = module
        self._before = list(before)
        self._added = list(added)
        self._parameters = parameters or {}

    @property
    def values(self) -> dict[str, Any]:
        return {"module": self._module, "before": self._before, "came": self._added}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ModuleLoad:
        return cls(values["module"], values["before"], values["came"])

    def apply(self, host: Host) -> None:
        """Load it; what came with it is known after that, and belongs into the journal as well."""
        host.kmod.load(self._module, self._parameters)
        self._added = sorted(set(host.sysfs.names("module")) - set(self._before))

    def find_undo_conflict(self, context: RecoveryContext) -> str | None:
        return _bound_since(context, self._module)

    def undo(self, context: UndoContext) -> None:
        sysfs, kmod = context.host.sysfs, context.host.kmod
        if not bindings.is_loaded(sysfs, self._module):
            return
        bound = bound_devices(sysfs, self._module, context.devices)
        if bound:
            raise PolicyError("%s is bound to its driver" % ", ".join(bound))
        kmod.unload(self._module)
        # modprobe takes along what only this module needed, loaded before or not, and leaves what
        # came because of another one that came (vfio_iommu_type1 with vfio, both with us).
        while True:
            loaded = set(sysfs.names("module"))
            unused = [
                name for name in loaded & set(self._added) if not sysfs.names(_HOLDERS % name)
            ]
            if not unused:
                break
            kmod.unload(min(unused))
        for name in sorted(set(self._before) - loaded):
            kmod.load(name)


class ModuleReload(Operation):
    """A module of VFIO that is loaded again with other parameters; ``before`` are its settings.

    Those of other modules that are not known, None, stay as they are.
    """

    kind = "reloaded"
    record_fields: ClassVar = {
        "module": fields.vfio_module,
        "reset_required": fields.switch,
        "noiommu": fields.or_null(fields.boolean),
        "interrupts": fields.or_null(fields.boolean),
    }
    later_fields: ClassVar = {"interrupts": None}
    is_of_modules = True

    def __init__(
        self, module: str, before: VfioSettings, parameters: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("module " + module)
        self._module = module
        self._before = before._replace(reset_required=bool(before.reset_required))
        self._parameters = parameters or {}

    @property
    def values(self) -> dict[str, Any]:
        return {
            "module": self._module,
            "reset_required": _flag(self._before.reset_required),
            "noiommu": self._before.unsafe_noiommu,
            "interrupts": self._before.unsafe_interrupts,
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ModuleReload:
        reset_required = values["reset_required"] == "Y"
        settings = VfioSettings(reset_required, values["noiommu"], values["interrupts"])
        return cls(values["module"], settings)

    def apply(self, host: Host) -> None:
        """Load it with the parameters that are wanted."""
        self._reload(host, self._parameters, self._before)

    def find_undo_conflict(self, context: RecoveryContext) -> str | None:
        return _bound_since(context, self._module)

    def undo(self, context: UndoContext) -> None:
        host = context.host
        now = present_settings(host.sysfs)
        wanted = VfioSettings(
            *(present if known is None else known for known, present in zip(self._before, now))
        )
        if now == wanted and bindings.is_loaded(host.sysfs, self._module):
            return
        self._reload(host, {"reset_required": _flag(wanted.reset_required)}, wanted)

    def _reload(self, host: Host, parameters: Mapping[str, str], kept: VfioSettings) -> None:
        bindings.reload(host.sysfs, host.kmod, self._module, parameters, kept)


class ParameterSwitch(Operation):
    """A parameter of VFIO that can be set while its module is loaded; ``before`` is Y or N.

    ``path`` is its file, ``option`` the field of VfioSettings, ``kernel_option`` what the kernel
    needs for it.
    """

    path: ClassVar[str]
    option: ClassVar[str]
    kernel_option: ClassVar[str]
    record_fields: ClassVar = {"value": fields.switch}
    is_of_modules = True

    def __init__(self, before: str) -> None:
        parts = self.path.split("/")
        super().__init__("%s.%s" % (parts[1], parts[-1]))
        self._before = before

    @property
    def values(self) -> dict[str, Any]:
        return {"value": self._before}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ParameterSwitch:
        return cls(values["value"])

    @classmethod
    def apply(cls, sysfs: Sysfs, value: str) -> None:
        """Set the parameter."""
        try:
            sysfs.write(cls.path, value)
        except KernelRefusedError as error:
            raise PolicyError(
                "`%s` cannot be set: %s. Use a kernel with %s"
                % (cls.option, error, cls.kernel_option)
            ) from None

    def undo(self, context: UndoContext) -> None:
        if context.host.sysfs.read(self.path) not in (None, self._before):
            context.host.sysfs.write(self.path, self._before)


class NoiommuSwitch(ParameterSwitch):
    """The parameter of vfio that lets devices be opened without an IOMMU."""

    kind = "noiommu"
    path = NOIOMMU
    option = "unsafe_noiommu"
    kernel_option = "CONFIG_VFIO_NOIOMMU"


class InterruptsSwitch(ParameterSwitch):
    """The parameter that lets containers have devices whose interrupts are not isolated."""

    kind = "interrupts"
    path = INTERRUPTS
    option = "unsafe_interrupts"
    kernel_option = "CONFIG_VFIO_IOMMU_TYPE1"


class FileWrite(Operation):
    """A file of this collection, or one of driverctl's that the list takes over."""

    kind = "file"
    record_fields: ClassVar = {
        "path": fields.our_path,
        "before": fields.or_null(fields.text_of),
        "after": fields.or_null(fields.text_of),
    }

    def __init__(self, change: FileChange) -> None:
        super().__init__(change.path)
        self._change = change
        self._staged: StagedFile | None = None

    @property
    def values(self) -> dict[str, Any]:
        change = self._change
        return {"path": change.path, "before": change.before, "after": change.after}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> FileWrite:
        return cls(FileChange(values["path"], values["before"], values["after"]))

    def stage(self, files: Files) -> None:
        """Write all of it that can be written before it counts; PolicyError if that fails."""
        self._staged = files.stage(self._change.path, self._change.after)

    def apply(self) -> None:
        """Let what was staged count."""
        if self._staged:
            self._staged.commit()

    def discard(self) -> None:
        """Remove what was staged and does not count."""
        if self._staged:
            self._staged.discard()

    def find_undo_conflict(self, context: RecoveryContext) -> str | None:
        if context.host.files.read(self._change.path) in (self._change.before, self._change.after):
            return None
        return "it was changed since"

    def undo(self, context: UndoContext) -> None:
        files, path, before = context.host.files, self._change.path, self._change.before
        # What was never done needs no write, which a read-only file system refuses.
        if files.read(path) != before:
            files.write_atomic(path, before)


class NodeAccessChange(Operation):
    """Group and mode of a node of VFIO."""

    kind = "node"
    record_fields: ClassVar = {
        "path": fields.node,
        "group": fields.or_null(fields.sysfs_name),
        "mode": fields.or_null(fields.mode),
    }

    def __init__(self, path: str, before: NodeAccess) -> None:
        super().__init__(path)
        self._path = path
        self._before = before

    @property
    def values(self) -> dict[str, Any]:
        return {"path": self._path, "group": self._before.group, "mode": self._before.mode}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> NodeAccessChange:
        return cls(values["path"], NodeAccess(values["group"], values["mode"]))

    def apply(self, files: Files, access: NodeAccess) -> None:
        """Let the node be opened by those that ``access`` names."""
        files.set_node_access(self._path, access)

    def undo(self, context: UndoContext) -> None:
        if context.host.files.node_access(self._path) != self._before:
            context.host.files.set_node_access(self._path, self._before)


class SymlinkChange(Operation):
    """Links to nodes, by path, and what they led to; None if there was none.

    ``owners`` are the devices to whose nodes they led, as far as that is known.
    """

    kind = "links"
    record_fields: ClassVar = {
        "before": fields.each(fields.link, fields.or_null(fields.link_target)),
        "owners": fields.each(fields.link, fields.device),
    }

    def __init__(self, before: Mapping[str, str | None], owners: Mapping[str, Identity]) -> None:
        # A link that is restored has to wait for its device, whose nodes may get other numbers.
        super().__init__("links " + ", ".join(before), deferred=bool(owners))
        self._before = dict(before)
        self._owners = dict(owners)

    @property
    def values(self) -> dict[str, Any]:
        owners = {path: _device_values(device) for path, device in self._owners.items()}
        return {"before": self._before, "owners": owners}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SymlinkChange:
        owners = {path: _device(device) for path, device in values["owners"].items()}
        return cls(values["before"], owners)

    def apply(self, files: Files, targets: Mapping[str, str | None]) -> None:
        """Let each link lead to its target, or be none."""
        for path in self._before:
            files.set_symlink(path, targets[path])

    def undo(self, context: UndoContext) -> None:
        for path, target in self._before.items():
            nodes = self._nodes(context, self._owners.get(path))
            context.host.files.set_symlink(path, symlinks.followed(path, target, nodes))

    @staticmethod
    def _nodes(context: UndoContext, owner: Identity | None) -> Sequence[str]:
        if not owner or owner.label in context.blocked:
            return ()
        return state(context.host.sysfs, owner).vfio_nodes


OPERATIONS: Mapping[str, type[Operation]] = {
    operation.kind: operation
    for operation in (
        DeviceBinding,
        VirtualFunctions,
        ModuleLoad,
        ModuleReload,
        NoiommuSwitch,
        InterruptsSwitch,
        FileWrite,
        NodeAccessChange,
        SymlinkChange,
    )
}


def from_record(record: Any) -> Operation:
    """Return the operation of a journal line; raise ValueError if the line is invalid."""
    if not isinstance(record, list) or len(record) != len(UndoRecord._fields):
        raise ValueError("%s is not a record" % fields.quoted(record))
    kind, subject, values, deferred = record
    if not isinstance(kind, str) or kind not in OPERATIONS:
        raise ValueError("%s is not a kind of change" % fields.quoted(kind))
    fields.printable(subject, "the subject")
    if not isinstance(deferred, bool):
        raise ValueError("%s is neither true nor false" % fields.quoted(deferred))
    checks = OPERATIONS[kind].record_fields
    given = fields.mapping(values, "what it was")
    values = {**OPERATIONS[kind].later_fields, **given}
    if values.keys() != checks.keys():
        keys = ", ".join(checks)
        raise ValueError("%s does not have the keys %s" % (fields.quoted(given), keys))
    for key, check in checks.items():
        check(values[key], key)
    operation = OPERATIONS[kind].from_values(values)
    operation.subject, operation.deferred = subject, deferred
    return operation


def bound_devices(sysfs: Sysfs, module: str, ours: Container[str]) -> list[str]:
    """Return names of devices that unloading would take from their driver, but ``ours``.

    modprobe does not ask: a device that is merely bound does not keep its driver's module.
    """
    names = sysfs.names("module/%s/drivers" % canonical_name(module))
    drivers = [name.split(":", 1) for name in names]
    return [
        name
        for bus, driver in drivers
        for name in sysfs.names("bus/%s/drivers/%s" % (bus, driver))
        if name not in ours and sysfs.exists("bus/%s/devices/%s" % (bus, name))
    ]


def _bound_since(context: RecoveryContext, module: str) -> str | None:
    others = bound_devices(context.host.sysfs, module, context.devices)
    return "%s has since been bound to its driver" % ", ".join(others) if others else None


def _device_values(device: Identity) -> list[Any]:
    """Return a device as records have it: those fields in that order, whatever else it may have."""
    return [
        *(device.bus, device.name, device.dt_path, list(device.compatible)),
        *(device.acpi_path, device.acpi_hid),
    ]


def _device(values: Sequence[Any]) -> Identity:
    bus, name, dt_path, compatible, acpi_path, acpi_hid = values
    return Identity(
        bus=bus,
        name=name,
        dt_path=dt_path,
        compatible=tuple(compatible),
        acpi_path=acpi_path,
        acpi_hid=acpi_hid,
    )


def _flag(value: bool | None) -> str:
    return "Y" if value else "N"
