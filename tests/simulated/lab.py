# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated machine with a disk, on which the engine runs and which can be rebooted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    Outcome,
    reconcile,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Findings,
    inspect,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._system.recorded_reads import Record
from extensions.simulator.machine import Machine
from extensions.simulator.udev import Udev
from tests.harness.simulated_gateways import (
    SimulatedFiles,
    SimulatedKmod,
    SimulatedSysfs,
    everything,
)

Binding = tuple[str | None, str | None]

_MODPROBE_D = Path("etc/modprobe.d")


class Lab:
    """A machine that ``build`` makes at each boot; its files are below ``root``."""

    def __init__(self, build: Callable[[], Machine], root: Path) -> None:
        self._build = build
        self.root = root
        for path in last_applied.PATHS:
            (root / path[1:]).parent.mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n")
        (root / "proc/swaps").write_text("Filename Type Size Used Priority\n")
        self.reboot()

    @property
    def host(self) -> Host:
        """Return new gateways, which cache nothing from an earlier run, as in a new process."""
        sysfs = SimulatedSysfs(self.machine)
        return Host(
            sysfs,
            SimulatedKmod(self.machine, self.root / "etc"),
            SimulatedFiles(self.machine, self.root),
            KernelLog(str(self.root / "dev/kmsg")),
        )

    def apply(
        self,
        entries: Sequence[dict[str, Any]],
        *,
        check: bool = False,
        record: Record | None = None,
        **settings: Any,
    ) -> Outcome:
        """Return the outcome of host_policy for this list; add all that it reads to ``record``."""
        names = ("reset_required", "unsafe_noiommu", "unsafe_interrupts")
        vfio = VfioSettings(*(settings.pop(name, None) for name in names))
        request = Request(
            parse_entries(entries),
            is_whole_list=True,
            settings=vfio,
            **{"persistent": True, **settings},
        )
        usage = Usage(self.host.sysfs, str(self.root / "proc"))
        lock = RunLock("host_policy", directory=str(self.root / "run"))
        record = record or Record()
        host, usage = record.host(self.host), record.unrecorded(usage)
        return reconcile(host, usage, lock, request, check_mode=check)

    def inspect(self, record: Record) -> Findings:
        """Return what device_info finds for drift; add all that it reads to ``record``."""

        def open_usage(same: Host) -> Usage:
            usage: Usage = record.unrecorded(Usage(same.sysfs, str(self.root / "proc")))
            return usage

        host = record.host(self.host)
        return inspect(host, open_usage, None, with_candidates=False, with_use=False)

    def reboot(self) -> None:
        """Replace the machine by the one after the next boot."""
        self.machine = self.next_boot()

    def next_boot(self) -> Machine:
        """Return a new machine that has booted with the files of this one."""
        machine = self._build()
        for name in (self.file(last_applied.MODULES_LOAD) or "").splitlines():
            if name and not name.startswith("#"):
                machine.modules.modprobe(["--", name], self._modprobe_configuration())
        self._udev(machine).coldplug()
        return machine

    def replay(self) -> None:
        """Replay ``add`` for every device, as 'udevadm trigger -c add' does."""
        self._udev(self.machine).coldplug()

    def _udev(self, machine: Machine) -> Udev:
        return Udev(machine, self.file(last_applied.RULES) or "", self._modprobe_configuration())

    def file(self, path: str) -> str | None:
        file = self.root / path[1:]
        return file.read_text() if file.exists() else None

    def files(self) -> dict[str, str | None]:
        return {path: self.file(path) for path in last_applied.PATHS}

    def everything(self) -> dict[str, str | None]:
        return {**everything(self.machine), **self.files()}

    def _modprobe_configuration(self) -> str:
        files = sorted((self.root / _MODPROBE_D).glob("*.conf"))
        return "".join(file.read_text() for file in files)


def bindings(machine: Machine) -> dict[str, Binding]:
    """Return driver and override of every device, by name."""
    devices = machine.kernel.devices.values()
    return {
        device.name: (device.driver and device.driver.name, device.override) for device in devices
    }
