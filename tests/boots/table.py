# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bindings of devices before and after each boot, by case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.guest import Guest
from tests.harness.playbook import Run, play
from tests.harness.sysfs import read_machine

ROW = "row of the table of boots"
MOMENTS = ("before", "in initramfs", "boot", "trigger add", "second boot")

Binding = tuple[str | None, str | None]
# For a device that the list does not claim: its binding must not change.
UNTOUCHED = None


class Case(NamedTuple):
    """A device by its name in sysfs, what it exemplifies, and its expected driver and override."""

    title: str
    device: str
    wanted: Binding | None


class Row(NamedTuple):
    """A line of the table: the binding of a case's device at all of MOMENTS or the first ones."""

    case: Case
    states: Sequence[Binding | None]


class Boots(NamedTuple):
    """A guest, its inventory and the list that is tried on it."""

    guest: Guest
    inventory: Any
    variables: Mapping[str, Any]

    def apply(self, **others: Any) -> Run:
        """Run the role with ``variables``, some of them replaced by ``others``."""
        run = self.attempt(**others)
        assert run.code == 0, run.output
        return run

    def attempt(self, **others: Any) -> Run:
        """Run the role like `apply`; the run may fail."""
        variables = {**self.variables, **others}
        return play(self.inventory, "armfleet.vfio.apply", variables=variables)

    def changes(self) -> list[str]:
        """Apply the list again, and return what changes on the running system."""
        run = self.apply()
        done = run.of("armfleet.vfio.host_policy")
        changed = [step for device in done["devices"] for step in device["steps"]]
        changed += done["host_steps"]
        changed += [file["path"] for file in done["boot_files"] if file["changed"]]
        changed += done["initramfs_command"] or []
        assert bool(changed) == bool(run.changed[self.guest.name]), run.output
        return changed

    def bindings(self, cases: Sequence[Case]) -> list[Binding | None]:
        """Return driver and override of each case's device, or None if it does not exist."""
        self.guest.run("udevadm settle")
        devices = read_machine(self.guest).devices
        by_name = {device.name: device.binding for device in devices}
        return [by_name.get(case.device) for case in cases]

    def witnessed(self, cases: Sequence[Case]) -> list[Binding | None]:
        """Return each binding at the end of the initramfs, or None if there was no initramfs."""
        reported = self.guest.run("cat /run/witness 2>/dev/null || true").stdout.splitlines()
        seen = {}
        for line in reported:
            name, driver, override = (word or None for word in line.split(" "))
            seen[name] = (driver, None if override == "(null)" else override)
        return [seen.get(case.device) for case in cases]

    def try_twice(
        self,
        cases: Sequence[Case],
        record: Callable[[Row], None],
        boot: Callable[[], None] | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Boot twice, replay the events of all devices, and compare with the expected bindings.

        The assertions come last, so that the table has all rows even if one of them fails.
        """
        moments = [self.bindings(cases)]
        changes = []
        (boot or self.guest.reboot)()
        moments += [self.witnessed(cases), self.bindings(cases)]
        changes += self.changes()
        self.guest.run("udevadm trigger --action=add --settle")
        moments.append(self.bindings(cases))
        if not once:
            self.guest.reboot()
            moments.append(self.bindings(cases))
            changes += self.changes()
        rows = [Row(case, states) for case, *states in zip(cases, *moments, strict=True)]
        for row in rows:
            record(row)
        wrong = [row for row in rows if not _is_as_wanted(row)]
        assert not wrong, rendered(wrong)
        assert changes == []


def _is_as_wanted(row: Row) -> bool:
    before, _early, *after = row.states
    wanted = before if row.case.wanted is UNTOUCHED else row.case.wanted
    return after == [wanted] * len(after)


def rendered(rows: Sequence[Row]) -> str:
    """Return the rows as a table with a header."""
    lines = [("case", "device", *MOMENTS)]
    for row in rows:
        states = [*map(_words, row.states), *["not tried"] * (len(MOMENTS) - len(row.states))]
        lines.append((row.case.title, row.case.device, *states))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )
    return table + "*: driver_override says so; for no driver it says none\n"


def _words(binding: Binding | None) -> str:
    if binding is None:
        return "-"
    driver, override = binding
    words = driver or "no driver"
    if override is None:
        return words
    return words + "*" if override == (driver or "none") else "%s (%s)" % (words, override)
