# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any text of an inventory is refused, or its rules match the intended device and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import reconcile
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import (
    Entry,
    parse_entries,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from extensions.simulator.description import Description, Habits
from extensions.simulator.device import Device
from extensions.simulator.machine import DEVICE_TREE, Machine, build
from extensions.simulator.udev import Udev
from tests.harness.simulated_gateways import SimulatedFiles, SimulatedKmod, SimulatedSysfs
from tests.simulated.counts import Counts
from tests.simulated.nasty import GOOD, neighbours, texts
from tests.verifier import complaints

EXAMPLES = {"check": 1_000, "test": 2_000, "nightly": 200_000}
AT_ONCE = 500
DRIVER = "acme-uio"
ALIASED = "/soc/aliased@1000"
Look = Callable[..., None]
NO_VFIO = Description(kernel=Habits(vfio="absent"), natives="none")


class Verifier:
    """Collects rule files, and verifies many of them in one call of udevadm."""

    def __init__(self, tmp_path: Path, counts: Counts) -> None:
        self._directory = tmp_path
        self._counts = counts
        self._files: list[Path] = []

    def take(self, rules: str) -> None:
        file = self._directory / f"{len(self._files)}.rules"
        file.write_text(rules, encoding="utf-8")
        self._files.append(file)
        if len(self._files) == AT_ONCE:
            self.verify()

    def verify(self) -> None:
        if self._files:
            assert not complaints(self._files)
        self._counts.add("rule files that udevadm verify took", len(self._files))
        self._files = []


def entry_with(kind: str, text: str) -> dict[str, Any]:
    """Return an entry with this text as its selector, driver or board."""
    if kind == "driver":
        return {"name": "1000.dma", "policy": "driver", "driver": text}
    if kind == "when_board":
        return {"name": "1000.dma", "policy": "driver", "driver": DRIVER, "when_board": text}
    return {kind: text, "policy": "driver", "driver": DRIVER, "required": False}


def meant(entry: Entry, *, is_there: bool) -> Device | None:
    """Return the device that the entry selects, or None if this machine cannot have it.

    ``is_there`` is whether the machine has the entry's alias, or is the entry's board.
    """
    selector = entry.selector
    if selector.when_board and not is_there:
        return None
    if not selector.reference:
        return device("meant", selector.kind, selector.value)
    # Events have only aliases that end in a number: of_alias_scan in drivers/of/base.c.
    is_reported = selector.value == selector.reference and selector.reference[-1].isdigit()
    if not is_there and not is_reported:
        return None
    path = ALIASED + selector.value[len(selector.reference) :]
    return device("meant", "dt_path", path, *[f"OF_ALIAS_0={selector.reference}"] * is_reported)


def device(name: str, kind: str, value: str, *properties: str) -> Device:
    """Return a device that has ``value`` as its name, in its node or in its ACPI table."""
    name = value if kind == "name" else name
    made = Device(name, "platform", f"devices/platform/{name}", f"platform:{name}")
    if kind == "dt_path":
        made.of_path = value
        made.of_properties = (f"OF_FULLNAME={value}", *properties)
    elif kind == "compatible":
        made.compatible = (value,)
        made.of_properties = ("OF_COMPATIBLE_0=acme,first", f"OF_COMPATIBLE_1={value}")
    elif kind == "acpi_path":
        made.acpi_path = value
    elif kind == "acpi_hid":
        made.acpi_path, made.hid = "\\_SB_.DEV0", value
    return made


def decoys(entry: Entry) -> Iterator[Device]:
    """Yield devices that a less strict rule would match too."""
    selector = entry.selector
    for number, value in enumerate(sorted(neighbours(selector.value))):
        if selector.reference:
            yield device(f"decoy{number}", "dt_path", f"/other@{number}", f"OF_ALIAS_0={value}")
        elif selector.kind != "name" or ("/" not in value and value not in (".", "..")):
            yield device(f"decoy{number}", selector.kind, value)
    yield device("helper.0.auto", selector.kind if selector.kind != "name" else "", selector.value)


def machine_with(entry: Entry, intended: Device | None, *, is_there: bool) -> Machine:
    machine = build(None, NO_VFIO)
    boards = entry.selector.when_board
    others = {"acme,board"}.union(*map(neighbours, boards)) - set(boards)
    names = sorted(others) + list(boards) * is_there
    machine.tree.put(f"{DEVICE_TREE}/compatible", "".join(f"{name}\0" for name in names))
    if is_there and entry.selector.reference:
        machine.tree.put(f"{DEVICE_TREE}/aliases/{entry.selector.reference}", ALIASED + "\0")
    for candidate in (intended, *decoys(entry)):
        if candidate:
            machine.kernel.add_device(candidate)
    return machine


def rules_of(machine: Machine, root: Path, entry: dict[str, Any]) -> str:
    """Return the rules that a run for the next boot writes; raise PolicyError if it refuses."""
    sysfs = SimulatedSysfs(machine)
    host = Host(
        sysfs,
        SimulatedKmod(machine, root / "etc"),
        SimulatedFiles(machine, root),
        KernelLog(str(root / "dev/kmsg")),
    )
    request = Request(parse_entries([entry]), is_whole_list=True, runtime=False, persistent=True)
    usage = Usage(sysfs, str(root / "proc"))
    lock = RunLock("host_policy", directory=str(root / "run"))
    outcome = reconcile(host, usage, lock, request, check_mode=True)
    files = {change.path: change.after for change in outcome.files}
    return files[last_applied.RULES] or ""


def matched(machine: Machine, rules: str) -> dict[str, str]:
    """Return the driver that the rules set for each device that they match."""
    udev = Udev(machine, rules)
    drivers = {}
    for candidate in machine.kernel.devices.values():
        properties = udev.properties("add", candidate)
        if "ARMFLEET_VFIO_POLICY" in properties:
            drivers[candidate.name] = properties[".armfleet_vfio_driver"]
    return drivers


def test_a_text_is_refused_or_its_rules_match_what_it_names_and_nothing_else(
    depth: str,
    examples_of_depth: Callable[[Look], Look],
    counts: Counts,
    tmp_path: Path,
) -> None:
    verifier = None if depth == "check" else Verifier(tmp_path, counts)
    refusals: list[str] = []

    def look(kind: str, text: str, is_there: bool) -> None:
        counts.add("texts")
        entry = entry_with(kind, text)
        try:
            (parsed,) = parse_entries([entry])
            intended = meant(parsed, is_there=is_there)
            machine = machine_with(parsed, intended, is_there=is_there)
            rules = rules_of(machine, tmp_path, entry)
        except PolicyError as error:
            refusals.append(str(error))
            return
        counts.add("texts accepted")
        counts_here = is_there or not parsed.selector.when_board
        assert last_applied.parse_header(rules).entries == [parsed] * counts_here
        expected = {intended.name: parsed.policy.driver} if intended else {}
        assert matched(machine, rules) == expected
        if verifier:
            verifier.take(rules)

    for kind in GOOD:
        examples = settings(
            max_examples=-(-EXAMPLES[depth] // len(GOOD)),
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        given_texts = given(st.just(kind), texts(kind), st.booleans())(look)
        examples(examples_of_depth(given_texts))()
    if verifier:
        verifier.verify()
    counts["texts refused"] = len(refusals)
    assert not [message for message in refusals if not message.isprintable()]
    assert counts["texts"] >= EXAMPLES[depth]
    assert counts["texts refused"] > counts["texts"] / 5
    assert counts["texts accepted"] > counts["texts"] / 5
