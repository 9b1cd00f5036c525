"""What the suggestions call possible works on the board, and each refusal is a run's and true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._report.candidates import ADVICE
from tests.harness.calls import call, refused
from tests.harness.playbook import play
from tests.harness.sysfs import read_machine
from tests.versal.devices import (
    CARD,
    CLOCK,
    CONSOLE,
    DMA,
    NETWORK,
    ROOT,
    SPARE_CARD,
    SPARE_NETWORK,
    SPARE_UART,
    SWAP,
    TIMER,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"
PROGRAM = "/root/read_registers.py"
NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
WITHOUT_FIRMWARE = "Fixed MDIO bus.0"
# The kernel's own answer to a device that VFIO is to take, and the device as it was.
_BIND = """
set -u
modprobe vfio-platform reset_required=0
cd "/sys/bus/platform/devices/$1"
echo vfio-platform > driver_override
printf '%s' "$1" | tee /sys/bus/platform/drivers/vfio-platform/bind > /dev/null
[ ! -e driver ] || readlink driver
echo > driver_override
"""


@pytest.fixture(scope="module")
def judged(guest: Guest, inventory: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield all devices of the board, each with whether it is a candidate without an IOMMU."""
    guest.put(EXAMPLE, PROGRAM)
    guest.run(f"modprobe vfio && echo Y > {NOIOMMU}")
    yield devices(inventory)
    guest.run(f"echo N > {NOIOMMU}")


def devices(inventory: Path) -> list[dict[str, Any]]:
    run = call(inventory, "device_info", nulls=True)
    assert run.code == 0, run.output
    shown: list[dict[str, Any]] = run.of("armfleet.vfio.device_info")["devices"]
    return shown


def kinds(device: dict[str, Any]) -> set[str]:
    return {reason["kind"] for reason in device["why_not"]}


def test_without_noiommu_no_device_is_a_candidate(guest: Guest, inventory: Path) -> None:
    """The model has no IOMMU, and a run is refused for that reason."""
    guest.run(f"[ ! -e {NOIOMMU} ] || echo N > {NOIOMMU}")
    assert all("no_iommu_group" in kinds(device) for device in devices(inventory))
    asked = [{"dt_path": DMA[0], "policy": "vfio"}]
    (task,) = refused(inventory, [("host_policy", {"devices": asked, "reset_required": False})])
    assert "IOMMU" in task.refusal


def test_what_the_machine_uses_is_no_candidate(judged: list[dict[str, Any]]) -> None:
    by_path = {device["dt_path"]: device for device in judged if device["dt_path"]}
    assert {path: kinds(by_path[path]) for path in (ROOT, SWAP, CARD, NETWORK, CLOCK)} == {
        ROOT: {"storage"},
        SWAP: {"storage"},
        CARD: {"storage"},
        NETWORK: {"network"},
        CLOCK: {"clock"},
    }
    assert kinds(by_path[CONSOLE]) == {"console", "no_unbind"}
    assert kinds(by_path[SPARE_UART]) == {"no_unbind"}
    candidates = {path for path, device in by_path.items() if device["candidate"]}
    assert candidates >= {*DMA, SPARE_CARD, SPARE_NETWORK}


def test_each_refusal_is_that_of_a_run(inventory: Path, judged: list[dict[str, Any]]) -> None:
    others = [device for device in judged if not kinds(device) <= ADVICE]
    asked = [
        ("host_policy", {"devices": [device["entry"]], **device["settings"]}) for device in others
    ]
    assert len(refused(inventory, asked, "--check")) == len(others) > len(DMA)


def test_the_kernel_binds_nothing_that_firmware_does_not_describe(
    guest: Guest, judged: list[dict[str, Any]]
) -> None:
    (device,) = [device for device in judged if device["name"] == WITHOUT_FIRMWARE]
    assert kinds(device) == {"no_firmware_id"}
    answer = guest.run(["sh", "-c", _BIND, "sh", WITHOUT_FIRMWARE], check=False)
    assert "Invalid argument" in answer.stderr
    assert answer.stdout == ""


def test_the_driver_of_the_console_has_no_unbind(
    guest: Guest, judged: list[dict[str, Any]]
) -> None:
    permanent = {device["driver"] for device in judged if "no_unbind" in kinds(device)}
    files = [f"/sys/bus/*/drivers/{driver}/unbind" for driver in permanent]
    assert guest.run(f"ls -d {' '.join(files)}", check=False).stdout == ""


def test_each_candidate_is_bound_and_opened(
    guest: Guest, inventory: Path, judged: list[dict[str, Any]]
) -> None:
    before = read_machine(guest).bindings
    candidates = [device for device in judged if device["candidate"]]
    settings = {key: value for device in candidates for key, value in device["settings"].items()}
    assert settings["unsafe_noiommu"] is True
    entries = [device["entry"] for device in candidates]
    applied = call(inventory, "host_policy", devices=entries, **settings)
    assert applied.code == 0, applied.output
    machine = read_machine(guest)
    for device in candidates:
        bound = machine.named(device["name"])
        assert bound.driver == "vfio-platform", device
        read = f"python3 {PROGRAM} /dev/vfio/noiommu-{bound.group}"
        assert guest.run(read).stdout.startswith("0x000 0x"), device
    released = play(inventory, "armfleet.vfio.release")
    assert released.code == 0, released.output
    assert read_machine(guest).bindings == before


def test_a_device_without_registers_has_none_to_open(
    guest: Guest, inventory: Path, judged: list[dict[str, Any]]
) -> None:
    (device,) = [device for device in judged if device["dt_path"] == TIMER]
    assert kinds(device) == {"no_registers"}
    applied = call(inventory, "host_policy", devices=[device["entry"]], **device["settings"])
    assert applied.code == 0, applied.output
    group = read_machine(guest).at(TIMER).group
    opened = guest.run(f"python3 {PROGRAM} /dev/vfio/noiommu-{group}", check=False)
    assert "The device has no region" in opened.stderr
    released = play(inventory, "armfleet.vfio.release")
    assert released.code == 0, released.output
