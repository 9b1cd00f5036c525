# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put back what a run changed: at once where it fails, or by the next run where it was killed."""

from __future__ import annotations

from typing import Any, Container, NamedTuple, Sequence

from .._discovery.devices import state
from .._discovery.vfio import NOIOMMU, present_settings
from .._errors import PolicyError
from .._model.device import Identity, State
from .._model.policy import NodeAccess
from .._system.files import Files
from .._system.kmod import Kmod
from .._system.sysfs import KernelBlockedError, KernelRefusedError, Sysfs
from . import operations, symlinks
from .run_lock import DEVICE, FILE, LINKS, MODULE, NODE, RELOADED, Undo

_HOLDERS = "module/%s/holders"


def names_of_devices(undos: Sequence[Undo]) -> set[str]:
    """The devices that are put back by ``undos``."""
    return {device_of(undo).name for undo in undos if undo.kind == DEVICE}


class Failure(NamedTuple):
    """What could not be put back, and why."""

    undo: Undo
    reason: str

    @property
    def sentence(self) -> str:
        return "%s: %s" % (self.undo.subject, self.reason)


def of_device(
    device: Identity,
    before: State,
    wanted: tuple[str | None, str | None] | None = None,
    is_late: bool = False,
) -> Undo:
    """``wanted`` is the driver and the override that the run gives it; None for a bystander."""
    values = {
        "device": device,
        "driver": before.driver,
        "driver_override": before.driver_override,
        "wanted": wanted,
    }
    return Undo(DEVICE, device.label, values, is_late)


def device_of(undo: Undo) -> Identity:
    """The device that an undo of kind DEVICE is about."""
    return _identity(undo.values["device"])


def _identity(values: Sequence[Any]) -> Identity:
    """A device that may have been through JSON."""
    bus, name, dt_path, compatible, acpi_path, acpi_hid = values
    return Identity(bus, name, dt_path, tuple(compatible), acpi_path, acpi_hid)


def others_on(sysfs: Sysfs, module: str, ours: Container[str]) -> list[str]:
    """Names of devices that unloading would take from their driver, but ``ours``.

    modprobe does not ask: a device that is merely bound does not keep its driver's module.
    """
    drivers = [
        name.split(":", 1) for name in sysfs.names("module/%s/drivers" % module.replace("-", "_"))
    ]
    return [
        name
        for bus, driver in drivers
        for name in sysfs.names("bus/%s/drivers/%s" % (bus, driver))
        if name not in ours and sysfs.exists("bus/%s/devices/%s" % (bus, name))
    ]


class Rollback:
    """Puts back in reverse order; ``blocked`` devices are not touched, the kernel holds them."""

    def __init__(
        self, sysfs: Sysfs, kmod: Kmod, files: Files, blocked: Container[str] = ()
    ) -> None:
        self._sysfs = sysfs
        self._kmod = kmod
        self._files = files
        self._blocked = blocked
        self._ours: set[str] = set()

    def run(self, undos: Sequence[Undo]) -> list[Failure]:
        """What could not be put back.

        What fails is tried again after all else: a device cannot come back before its supplier has.
        """
        self._ours = names_of_devices(undos)
        waiting = [undo for undo in reversed(undos) if not undo.is_late]
        waiting += [undo for undo in undos if undo.is_late]
        held: list[Failure] = []
        while True:
            failures: list[Failure] = []
            for undo in waiting:
                try:
                    self._put_back(undo)
                except KernelBlockedError as error:
                    held.append(Failure(undo, str(error)))
                except (PolicyError, KernelRefusedError, OSError) as error:
                    failures.append(Failure(undo, str(error)))
            if len(failures) in (0, len(waiting)):
                return held + failures
            waiting = [failure.undo for failure in failures]

    def _put_back(self, undo: Undo) -> None:
        values = undo.values
        if undo.kind == DEVICE:
            self._device(undo)
        elif undo.kind == MODULE:
            self._unload(values["module"], set(values["before"]), set(values["came"]))
        elif undo.kind == RELOADED:
            self._reload(values)
        elif undo.kind == FILE:
            # What was never done needs no write, which a read-only file system refuses.
            if self._files.read(values["path"]) != values["before"]:
                self._files.put(values["path"], values["before"])
        elif undo.kind == NODE:
            access = NodeAccess(values["group"], values["mode"])
            if self._files.node_access(values["path"]) != access:
                self._files.give_node(values["path"], access)
        elif undo.kind == LINKS:
            self._link(undo)
        elif self._sysfs.read(NOIOMMU) not in (None, values["value"]):
            self._sysfs.write(NOIOMMU, values["value"])

    def _reload(self, values: dict[str, Any]) -> None:
        now = present_settings(self._sysfs)
        is_as_before = (now.reset_required, now.unsafe_noiommu) == (
            values["reset_required"] == "Y",
            values["noiommu"],
        )
        if is_as_before and operations.is_loaded(self._sysfs, values["module"]):
            return
        parameters = {"reset_required": values["reset_required"]}
        operations.load_anew(
            self._sysfs, self._kmod, values["module"], parameters, values["noiommu"]
        )

    def _unload(self, module: str, before: set[str], came: set[str]) -> None:
        if not operations.is_loaded(self._sysfs, module):
            return
        bound = others_on(self._sysfs, module, self._ours)
        if bound:
            raise PolicyError("%s is bound to its driver" % ", ".join(bound))
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

    def _link(self, undo: Undo) -> None:
        for path, target in undo.values["before"].items():
            nodes = self._nodes(undo.values["owners"].get(path))
            self._files.point(path, symlinks.followed(path, target, nodes))

    def _nodes(self, owner: Sequence[Any] | None) -> Sequence[str]:
        device = owner and _identity(owner)
        if not device or device.label in self._blocked:
            return ()
        return state(self._sysfs, device).vfio_nodes

    def _device(self, undo: Undo) -> None:
        device = device_of(undo)
        before = State(undo.values["driver"], undo.values["driver_override"])
        if device.label in self._blocked:
            raise PolicyError("the kernel still holds it; it was %s" % before.binding)
        now = state(self._sysfs, device)
        override = before.driver_override
        if override and before.driver and now.driver != before.driver:
            # A driver that had the device against its override is refused as long as that is set.
            override = before.driver
        if now.driver_override != override:
            operations.override(self._sysfs, device, override)
        if now.driver and now.driver != before.driver:
            operations.unbind(self._sysfs, device, now.driver)
        if before.driver and now.driver != before.driver:
            operations.bind(self._sysfs, device, before.driver)
        if override != before.driver_override:
            operations.override(self._sysfs, device, before.driver_override)
        after = state(self._sysfs, device)
        if not after.is_bound_as(before):
            raise PolicyError("it was %s and is now %s" % (before.binding, after.binding))
