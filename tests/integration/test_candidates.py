# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list from the suggestions for a board works, and a device that is no candidate is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ansible_collections.armfleet.vfio.plugins.module_utils._report.candidates import (
    ADVICE,
    NOT_COHERENT,
)
from tests.guest import write_inventory
from tests.harness.calls import call, refused
from tests.harness.playbook import Run, play
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

VFIO = ("vfio-platform", "vfio-amba")
WIDTH = 120


def judged(inventory: Path) -> list[dict[str, Any]]:
    """Return all devices of the host, each with whether it is a candidate."""
    run = call(inventory, "device_info", nulls=True)
    assert run.code == 0, run.output
    devices: list[dict[str, Any]] = run.of("armfleet.vfio.device_info")["devices"]
    return devices


def suggestion(run: Run) -> dict[str, Any]:
    """Return the variables that the playbook prints to be pasted."""
    lines = run.output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("# For "))
    end = next(number for number in range(start, len(lines)) if not lines[number].strip())
    variables: dict[str, Any] = yaml.safe_load("\n".join(lines[start:end]))
    return variables


def test_the_suggested_list_binds_each_candidate(guest: Guest, inventory: Path) -> None:
    candidates = [device for device in judged(inventory) if device["candidate"]]
    assert {"/soc/crypto@b000000", "/soc/engine@b005000"} <= {
        device["dt_path"] for device in candidates
    }
    shown = play(inventory, "armfleet.vfio.candidates")
    assert shown.code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= WIDTH
    applied = play(inventory, "armfleet.vfio.apply", variables=suggestion(shown))
    assert applied.code == 0, applied.output
    machine = read_machine(guest)
    for device in candidates:
        assert machine.at(device["dt_path"]).driver in VFIO, device


def test_each_kind_of_refusal_is_that_of_a_run(inventory: Path) -> None:
    by_kinds = {
        tuple(reason["kind"] for reason in device["why_not"]): device
        for device in judged(inventory)
        if not {reason["kind"] for reason in device["why_not"]} <= ADVICE
    }
    assert ("no_iommu_group",) in by_kinds
    assert any("console" in kinds for kinds in by_kinds)
    asked = [
        ("host_policy", {"devices": [device["entry"]], **device["settings"]})
        for device in by_kinds.values()
    ]
    refused(inventory, asked, "--check")


def test_the_kernel_refuses_what_is_behind_an_iommu_that_is_not_cache_coherent(
    start: Callable[[str, str], Guest], tmp_path: Path
) -> None:
    guest = start("test-h", "h")
    inventory = tmp_path / "hosts.yml"
    write_inventory(inventory, [guest])
    devices = [
        device
        for device in judged(inventory)
        if [reason["kind"] for reason in device["why_not"]] == [NOT_COHERENT]
    ]
    assert {"/soc/ring@b100000", "/soc/ring@b101000"} == {device["dt_path"] for device in devices}
    before = read_machine(guest).bindings
    for device in devices:
        run = call(inventory, "host_policy", devices=[device["entry"]], reset_required=False)
        assert "EINVAL" in run.refusal
        assert "not cache coherent" in run.refusal
    assert read_machine(guest).bindings == before
