# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The promises hold for any board and any list, whatever other tools do between runs.

To replay a failure, run this file with the --hypothesis-seed and the --depth of the run that
failed; hypothesis prints the steps.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import (
    DeviceOutcome,
    Outcome,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._model.steps import StepKind
from ansible_collections.armfleet.vfio.plugins.module_utils._report.device_info import inspections
from ansible_collections.armfleet.vfio.plugins.module_utils._report.results import list_result
from ansible_collections.armfleet.vfio.plugins.module_utils._system.reads import (
    digest_again,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.recorded_reads import Record
from extensions.simulator.machine import Machine
from extensions.simulator.vfio import NOIOMMU, RESET_REQUIRED
from extensions.simulator.watch import Write
from tests.simulated.boards import KINDS, PINS, Board, boards
from tests.simulated.counts import Counts
from tests.simulated.lab import Lab, bindings
from tests.simulated.traces import differences

POLICIES = ("vfio", "vfio", "no_autobind", "driver", "default")
DRIVERS = (*PINS, *(f"acme-{kind}" for kind in KINDS), "acme-dma-amba", "nobody-has-this")
ALLOW = list(ACCEPTABLE)
SETTINGS = st.fixed_dictionaries(
    {
        "reset_required": st.sampled_from([None, False, False, True]),
        "unsafe_noiommu": st.sampled_from([None, True, True, False]),
        "unsafe_interrupts": st.sampled_from([None, True, False]),
        "allow": st.sampled_from([[], ALLOW]),
    }
)
MODULES = ("vfio_platform", "vfio_amba", "vfio", "acme_late", *(f"acme_{kind}" for kind in KINDS))


def entries(board: Board) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return lists for the devices of a board, also with contradictions and unknown devices."""
    selectors: list[dict[str, Any]] = [{"compatible": f"acme,{kind}"} for kind in KINDS]
    for number, part in enumerate(board.parts):
        path = f"/{'soc/' if part.is_below_bus else ''}{part.kind}@{number + 1:x}000"
        selectors += [{"dt_path": path}] * 3
        selectors += [{"dt_path": f"{part.kind}{number}"}]
        selectors += [{"name": f"{number + 1:x}000.{part.kind}"}]
    entry = st.tuples(
        st.sampled_from(selectors), st.sampled_from(POLICIES), st.sampled_from(DRIVERS)
    ).map(lambda drawn: {**drawn[0], **policy(*drawn[1:]), "required": False})
    return st.lists(entry, max_size=len(board.parts))


def policy(kind: str, driver: str) -> dict[str, Any]:
    return {"policy": kind, "driver": driver if kind == "driver" else None}


def device_of(write: Write) -> str:
    """Return the name of the device that a write concerns."""
    directory, _slash, name = write.path.rpartition("/")
    return (
        directory.rpartition("/")[2] if name == "driver_override" else write.data.decode().strip()
    )


def vfio_settings(machine: Machine) -> tuple[bytes | None, ...]:
    return tuple(machine.tree.read(parameter) for parameter in (RESET_REQUIRED, NOIOMMU))


def unforetold(
    foretold: Outcome, done: Outcome, refusing: set[str], waiting: set[str]
) -> list[object]:
    """Return the differences between check mode and the run."""
    different: list[object] = []
    for expected, actual in zip(foretold.devices, done.devices, strict=True):
        ends = expected.after.driver, actual.after.driver
        if (
            expected.steps != actual.steps
            or expected.after.driver_override != actual.after.driver_override
        ):
            different.append((expected, actual))
        elif ends[0] != ends[1] and not is_for_the_kernel_to_say(
            expected, actual, refusing, waiting
        ):
            different.append((expected.device.label, *ends))
    if (foretold.host_steps, foretold.files) != (done.host_steps, done.files):
        different.append((foretold.host_steps, done.host_steps))
    return different


def is_for_the_kernel_to_say(
    foretold: DeviceOutcome, done: DeviceOutcome, refusing: set[str], waiting: set[str]
) -> bool:
    """Return whether check mode cannot predict which driver a released device is bound to.

    - Its driver is in a module that is not loaded yet.
    - It had no driver when it was claimed, and may have been unbound manually.
    - Its driver's probe fails, or is deferred for a supplier that has no driver.
    """
    if foretold.after.driver is None:
        return any(
            step.kind is StepKind.LOAD_MODULE or (step.kind is StepKind.PROBE and not step.value)
            for step in foretold.steps
        )
    return done.after.driver is None and (
        foretold.after.driver in refusing or done.device.name in waiting
    )


class Kept(NamedTuple):
    """A run without changes: its list and settings, the recorded reads and the answer."""

    wanted: list[dict[str, Any]]
    asked: dict[str, Any]
    record: Record
    answer: dict[str, Any]


class Fleet(RuleBasedStateMachine):
    """A machine on which lists are applied, other tools write, and which is rebooted."""

    counts: ClassVar[Counts]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.last: tuple[list[dict[str, Any]], dict[str, Any]] | None = None
        self.claimed: set[str] = set()
        self.kept: Kept | None = None
        self.inspected: tuple[Record, dict[str, Any]] | None = None

    @initialize(board=boards())
    def boot_first(self, board: Board) -> None:
        self.board = board
        self.lab = Lab(board.boot, Path(self.directory.name))

    @rule(data=st.data(), asked=SETTINGS)
    def apply(self, data: st.DataObject, asked: dict[str, Any]) -> None:
        self.run_list(data.draw(entries(self.board)), asked)

    @rule()
    def release(self) -> None:
        self.run_list([], {"allow": ALLOW})

    @rule()
    def rerun(self) -> None:
        if self.last:
            self.run_list(*self.last)

    @rule(data=st.data(), override=st.sampled_from(["none", "\n", "vfio-platform", *DRIVERS]))
    def another_tool_sets_an_override(self, data: st.DataObject, override: str) -> None:
        self.write(f"{self.some_device(data)}/driver_override", override)

    @rule(data=st.data())
    def another_tool_unbinds(self, data: st.DataObject) -> None:
        home = self.some_device(data)
        self.write(f"{home}/driver/unbind", home.rpartition("/")[2])

    @rule(data=st.data(), driver=st.sampled_from(["vfio-platform", *DRIVERS]))
    def another_tool_binds(self, data: st.DataObject, driver: str) -> None:
        home = self.some_device(data)
        self.write(f"bus/platform/drivers/{driver}/bind", home.rpartition("/")[2])

    @rule(data=st.data())
    def another_tool_probes(self, data: st.DataObject) -> None:
        home = self.some_device(data)
        self.write(f"{home}/subsystem/drivers_probe", home.rpartition("/")[2])

    @rule(value=st.sampled_from(["0", "1"]))
    def another_tool_stops_probing(self, value: str) -> None:
        self.write("bus/platform/drivers_autoprobe", value)

    @rule(module=st.sampled_from(MODULES), removes=st.booleans())
    def another_tool_loads_a_module(self, module: str, *, removes: bool) -> None:
        self.counts.add("steps")
        self.lab.machine.modules.modprobe(["--remove" if removes else "--", module], "")
        self.last = None
        self.assert_the_kept_answer_is_true()

    @rule()
    def replay_the_rules(self) -> None:
        self.counts.add("steps")
        before = bindings(self.lab.machine)
        self.lab.replay()
        self.lab.machine.watch.take()
        if self.last:
            after = bindings(self.lab.machine)
            assert {name: after[name] for name in self.claimed} == {
                name: before[name] for name in self.claimed
            }

    @rule()
    def reboot(self) -> None:
        self.counts.add("steps")
        self.lab.reboot()
        self.lab.machine.watch.take()
        self.assert_the_kept_answer_is_true()

    def teardown(self) -> None:
        self.directory.cleanup()

    def some_device(self, data: st.DataObject) -> str:
        devices = sorted(device.home for device in self.lab.machine.kernel.devices.values())
        return data.draw(st.sampled_from(devices))

    def write(self, path: str, text: str) -> None:
        self.counts.add("steps")
        resolved = self.lab.machine.tree.resolve(path)
        file = None if resolved is None else self.lab.machine.tree.lookup(resolved)
        self.last = None
        try:
            if file:
                file.write(text.encode())
        except OSError:
            self.counts.add("writes of others that the kernel refused")
        self.assert_the_kept_answer_is_true()

    def run_list(self, wanted: list[dict[str, Any]], asked: dict[str, Any]) -> None:
        self.counts.add("steps")
        before = self.lab.everything()
        foretold = self.outcome(wanted, asked, check=True)
        assert not differences(before, self.lab.everything())
        assert not self.lab.machine.watch.take()
        done = self.outcome(wanted, asked)
        writes = self.lab.machine.watch.take()
        if isinstance(done, str):
            self.counts.add("lists refused" if done == foretold else "lists put back")
            assert foretold == done or not isinstance(foretold, str)
            assert foretold == done or "Nothing was changed" in done, done
            assert not differences(before, self.lab.everything()), done
            return
        assert not isinstance(foretold, str), foretold
        self.counts.add("lists applied")
        assert not unforetold(foretold, done, self.board.refusing, self.waiting())
        selected = {device_outcome.device.name for device_outcome in done.devices}
        assert {device_of(write) for write in writes if "module/" not in write.path} <= selected
        self.assert_nothing_left_to_do(wanted, asked)
        self.last = (wanted, asked)
        self.claimed = {
            device_outcome.device.name
            for device_outcome in done.devices
            if device_outcome.policy.kind != "default"
        }
        self.assert_the_next_boot_gives_the_same()

    def assert_the_next_boot_gives_the_same(self) -> None:
        booted = self.lab.next_boot()
        if vfio_settings(booted) != vfio_settings(self.lab.machine):
            # A run does not persist VFIO parameters that another tool has set.
            return
        self.counts.add("next boots compared")
        now, then = bindings(self.lab.machine), bindings(booted)
        different = {name: (now[name], then[name]) for name in self.claimed}
        assert not [pair for pair in different.items() if pair[1][0] != pair[1][1]]

    def waiting(self) -> set[str]:
        """Return the devices that have a supplier without a driver."""
        return {
            device.name
            for device in self.lab.machine.kernel.devices.values()
            if any(
                link.supplier.driver is None and not link.is_relaxed for link in device.suppliers
            )
        }

    def assert_nothing_left_to_do(
        self, wanted: list[dict[str, Any]], asked: dict[str, Any]
    ) -> None:
        record = Record()
        again = self.outcome(wanted, asked, record=record)
        assert not isinstance(again, str), again
        assert not again.is_changed
        assert not self.lab.machine.watch.take()
        if record.is_complete:
            self.counts.add("answers kept")
            self.kept = Kept(wanted, asked, record, list_result(again))

    def assert_the_kept_answer_is_true(self) -> None:
        """Assert that the last answer without changes is valid while all its reads are the same."""
        self.assert_the_kept_inspection_is_true()
        if not self.kept:
            return
        host, record = self.lab.host, self.kept.record
        if digest_again(host.sysfs, host.files, record.reads) != record.digest:
            self.counts.add("kept answers that do not count any more")
            return
        self.counts.add("kept answers compared")
        whole = self.outcome(self.kept.wanted, self.kept.asked, check=True)
        assert not isinstance(whole, str), whole
        assert list_result(whole) == self.kept.answer

    def assert_the_kept_inspection_is_true(self) -> None:
        """Assert the same of what device_info returned after the last step."""
        kept = self.inspected
        host = self.lab.host
        is_same = kept and digest_again(host.sysfs, host.files, kept[0].reads) == kept[0].digest
        record = Record()
        now = inspections(self.lab.inspect(record))
        if kept and is_same:
            self.counts.add("kept inspections compared")
            assert now == kept[1]
        elif kept:
            self.counts.add("kept inspections that do not count any more")
        self.inspected = (record, now) if record.is_complete else None

    def outcome(
        self,
        wanted: list[dict[str, Any]],
        asked: dict[str, Any],
        *,
        check: bool = False,
        record: Record | None = None,
    ) -> Outcome | str:
        try:
            return self.lab.apply(wanted, check=check, record=record, **asked)
        except PolicyError as error:
            return str(error)


def test_the_promises_hold_on_any_board_after_any_steps(
    depth: str,
    examples_of_depth: Callable[[type[Fleet]], type[Fleet]],
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    Fleet.counts = counts
    steps = {"check": 1_000, "test": 2_000, "nightly": 200_000}[depth]
    length = 50
    run_state_machine_as_test(
        examples_of_depth(Fleet),
        settings=settings(
            # Some steps of hypothesis execute no rule.
            max_examples=steps * 2 // length,
            stateful_step_count=length,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=(Phase.generate,),
        ),
    )
    assert counts["steps"] >= steps
    assert counts["kept answers compared"]
    assert counts["kept inspections compared"]
