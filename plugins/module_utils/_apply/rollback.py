# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo what a run changed: at once where it fails, or by the next run where it was killed."""

from __future__ import annotations

from typing import Container, NamedTuple, Sequence

from .._errors import PolicyError
from .._system.host import Host
from .._system.sysfs import KernelBlockedError, KernelRefusedError
from .operations import DeviceBinding, Operation, UndoContext


class Failure(NamedTuple):
    """What could not be undone, and why."""

    operation: Operation
    reason: str

    @property
    def sentence(self) -> str:
        return "%s: %s" % (self.operation.subject, self.reason)


def names_of_devices(operations: Sequence[Operation]) -> set[str]:
    """Return the devices whose bindings are undone with ``operations``."""
    return {
        operation.device.name for operation in operations if isinstance(operation, DeviceBinding)
    }


def roll_back(
    host: Host, operations: Sequence[Operation], blocked: Container[str] = ()
) -> list[Failure]:
    """Undo in reverse order, and return what could not be undone.

    Devices whose labels are ``blocked`` are not touched, because the kernel holds them. What fails
    is tried again after all else: a device cannot be bound again before its supplier is.
    """
    context = UndoContext(host, names_of_devices(operations), blocked)
    waiting = [operation for operation in reversed(operations) if not operation.deferred]
    waiting += [operation for operation in operations if operation.deferred]
    held: list[Failure] = []
    while True:
        failures: list[Failure] = []
        for operation in waiting:
            try:
                operation.undo(context)
            except KernelBlockedError as error:
                held.append(Failure(operation, str(error)))
            except (PolicyError, KernelRefusedError, OSError) as error:
                failures.append(Failure(operation, str(error)))
        if len(failures) in (0, len(waiting)):
            return held + failures
        waiting = [failure.operation for failure in failures]
