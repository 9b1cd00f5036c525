# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the error of a step says beside the step: the kernel's answer, its reason and its log."""

from __future__ import annotations

import contextlib
from typing import Iterator

from .._discovery.vfio import explain_bind
from .._discovery.virtual_functions import explain_numvfs
from .._errors import PolicyError
from .._model.device import Identity
from .._model.steps import Step, StepKind
from .._system.host import Host
from .._system.sysfs import KernelBlockedError, KernelRefusedError
from .bindings import driver_of
from .step_sentences import of_step


class ErrorContext:
    """Turns what the kernel refuses into errors that name device, step and reason.

    ``blocked`` are the labels of devices whose writes the kernel does not end.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.blocked: set[str] = set()

    @contextlib.contextmanager
    def explaining(self, device: Identity, step: Step) -> Iterator[None]:
        """PolicyError if the kernel refuses the step, or does not end it."""
        try:
            yield
        except KernelBlockedError as error:
            self.blocked.add(device.label)
            raise PolicyError(
                "%s: cannot %s: %s%s" % (device.label, of_step(step), error, self.quote(device))
            ) from None
        except KernelRefusedError as error:
            reason = error.advice
            if step.kind is StepKind.BIND:
                reason = explain_bind(self._host.sysfs, device, step.value or "", error.code)
            elif step.kind is StepKind.SET_NUMVFS:
                reason = explain_numvfs(driver_of(self._host.sysfs, device), error.code)
            raise PolicyError(
                "%s: cannot %s: %s. %s%s"
                % (device.label, of_step(step), error, reason, self.quote(device))
            ) from None

    def quote(self, device: Identity) -> str:
        """Return kernel log lines of the device since this run began, as the end of a message."""
        lines = self._host.log.about(device.name)
        return ". The kernel log has: %s" % "; ".join(map(repr, lines)) if lines else ""
