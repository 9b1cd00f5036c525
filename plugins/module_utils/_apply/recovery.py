# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a run that was killed half-way: the next one undoes it first, and says so."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._discovery.devices import folder, state
from .._errors import PolicyError
from .._in_use.checker import Usage
from .._model.device import State
from .._system.files import Files
from .._system.kmod import Kmod
from .._system.sysfs import KernelBlockedError, Sysfs
from .journal import PATHS
from .rollback import Rollback, device_of, names_of_devices, others_on
from .run_lock import DEVICE, FILE, MODULE, NOIOMMU, RELOADED, Interrupted, Runs, Undo

_MODULES = (MODULE, RELOADED, NOIOMMU)


class Recovery(NamedTuple):
    """The doors that undoing an interrupted run needs."""

    sysfs: Sysfs
    kmod: Kmod
    files: Files
    usage: Usage
    runs: Runs

    def run(self, allow: Sequence[str]) -> list[str]:
        """Undo what an interrupted run left; what was done and what was left, in sentences.

        PolicyError if the journal has lines that cannot be read: the others are undone before.
        """
        interrupted = self.runs.interrupted()
        if interrupted is None:
            return []
        ours = names_of_devices(interrupted.undos)
        reasons = [(undo, self._why_not(undo, allow, ours)) for undo in interrupted.undos]
        if any(reason for undo, reason in reasons if undo.kind == DEVICE):
            # Its driver's module must not be taken from under it.
            reasons = [
                (undo, "a device that is left may need it" if undo.kind in _MODULES else reason)
                for undo, reason in reasons
            ]
        self.files.clear(PATHS)
        undone = [undo for undo, reason in reasons if reason is None]
        left = ["%s: %s" % (undo.subject, reason) for undo, reason in reasons if reason]
        failures = Rollback(self.sysfs, self.kmod, self.files).run(undone)
        undone_first = "" if interrupted.damaged else " What it had done was undone first"
        sentences = [announcement(interrupted) + undone_first]
        if left:
            sentences.append("Left as it is now: " + "; ".join(left))
        if failures:
            sentences.append(
                "Could not be put back: %s. The next run tries again"
                % "; ".join(failure.sentence for failure in failures)
            )
        try:
            if failures or interrupted.damaged:
                left_to_do = [failure.undo for failure in failures]
                self.runs.keep(interrupted.who, left_to_do, interrupted.damaged)
            else:
                self.runs.forget()
        except PolicyError as error:
            raise PolicyError([*sentences, *error.problems]) from None
        if interrupted.damaged:
            complaint = self.runs.complaint(interrupted.damaged, "was undone as far as it could be")
            raise PolicyError([*sentences, complaint])
        return sentences

    def _why_not(self, undo: Undo, allow: Sequence[str], ours: set[str]) -> str | None:
        """Why something is to stay as it is, although an interrupted run may have changed it."""
        if undo.kind == DEVICE:
            try:
                return self._why_not_device(undo, allow)
            except KernelBlockedError:
                # Putting it back says so.
                return None
        if undo.kind in (MODULE, RELOADED):
            others = others_on(self.sysfs, undo.values["module"], ours)
            return "%s is bound to its driver by now" % ", ".join(others) if others else None
        if undo.kind == FILE:
            known = (undo.values["before"], undo.values["after"])
            if self.files.read(undo.values["path"]) not in known:
                return "somebody has changed it since"
        return None

    def _why_not_device(self, undo: Undo, allow: Sequence[str]) -> str | None:
        device, before = device_of(undo), undo.values
        if not self.sysfs.exists(folder(device)):
            return "there is no such device any more"
        now = state(self.sysfs, device)
        if not _may_be_ours(now, undo):
            return "somebody has changed it since, to %s" % now.binding
        if now.driver in (None, before["driver"]):
            return None
        hazards = [one for one in self.usage.hazards_of(device, now) if not one.is_accepted(allow)]
        return "; ".join(hazard.sentence for hazard in hazards) or None


def announcement(interrupted: Interrupted) -> str:
    """That there was such a run."""
    return "An earlier run on this host was interrupted: %s." % interrupted.who


def _may_be_ours(now: State, undo: Undo) -> bool:
    """Whether a device is as the run found it, as it wanted it, or between the two."""
    if undo.values["wanted"] is None:
        # A bystander's driver goes and comes with its supplier's; its override is nobody's but its
        # owner's.
        owners: str | None = undo.values["driver_override"]
        return now.driver_override == owners
    driver, override = undo.values["wanted"]
    # A driver of before that had the device against its override is put back by naming it.
    overrides = (undo.values["driver_override"], override, undo.values["driver"])
    return now.driver in (None, undo.values["driver"], driver) and now.driver_override in overrides
