"""The small modules, and the results of device_info, on the real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import call, info, refused
from tests.harness.playbook import Run, play, task_play
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

DMA = {"dt_path": "/soc/dma@b001000"}
DMA_PATH = DMA["dt_path"]
ALL_DMA = {"compatible": "acme,dma", "expect": 2}


def run(inventory: Path, module: str, *arguments: str, **options: Any) -> Run:
    done = call(inventory, module, *arguments, **options)
    assert done.code == 0, done.output
    return done


def twice(inventory: Path, module: str, **options: Any) -> None:
    """Run a module in check mode and then twice; assert that the second run changes nothing."""
    (tasks,) = task_play(f"armfleet.vfio.{module}", options)
    (task,) = tasks["tasks"]
    done = play(inventory, [{**tasks, "tasks": [{**task, "check_mode": True}, task, task]}])
    assert done.code == 0, done.output
    predicted, first, second = [task_result.result for task_result in done.tasks]
    assert first["changed"]
    assert first["diff"] == predicted["diff"]
    assert not second["changed"]


def test_an_override_alone_leaves_the_device_where_it_is(guest: Guest, inventory: Path) -> None:
    twice(inventory, "driver_override", devices=[DMA], driver="vfio-platform")
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", "vfio-platform")
    twice(inventory, "driver_override", devices=[DMA], state="absent")
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", None)


def test_no_autobind_keeps_drivers_off_and_is_reversible(guest: Guest, inventory: Path) -> None:
    twice(inventory, "no_autobind", devices=[ALL_DMA])
    machine = read_machine(guest)
    assert machine.at(DMA_PATH).binding == machine.at("/soc/dma@b002000").binding == (None, "none")
    guest.run("echo b001000.dma > /sys/bus/platform/drivers_probe")
    assert read_machine(guest).at(DMA_PATH).driver is None
    twice(inventory, "no_autobind", devices=[ALL_DMA], state="absent")
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", None)


def test_no_autobind_can_leave_the_driver_until_the_next_boot(
    guest: Guest, inventory: Path
) -> None:
    twice(inventory, "no_autobind", devices=[DMA], unbind=False)
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", "none")
    twice(inventory, "no_autobind", devices=[DMA], state="absent")
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", None)


def test_a_binding_to_vfio_and_back(guest: Guest, inventory: Path) -> None:
    twice(inventory, "vfio_binding", devices=[ALL_DMA], reset_required=False)
    device = read_machine(guest).at(DMA_PATH)
    assert device.binding == ("vfio-platform", "vfio-platform")
    assert device.group in read_machine(guest).nodes
    twice(inventory, "vfio_binding", devices=[ALL_DMA], state="released")
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", None)


def test_releasing_leaves_alone_what_vfio_does_not_have(guest: Guest, inventory: Path) -> None:
    guest.run("echo none > /sys/bus/platform/devices/b001000.dma/driver_override")
    done = run(inventory, "vfio_binding", devices=[DMA], state="released")
    assert done.changed == {guest.name: 0}
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", "none")
    guest.run("echo > /sys/bus/platform/devices/b001000.dma/driver_override")


def test_a_module_is_loaded_anew_for_reset_required(guest: Guest, inventory: Path) -> None:
    devices = [{"dt_path": "/soc/ethernet@e0700000"}]
    run(inventory, "vfio_binding", devices=devices, reset_required=True)
    assert guest.run("cat /sys/module/vfio_platform/parameters/reset_required").stdout == "Y\n"
    twice(inventory, "vfio_binding", devices=[*devices, DMA], reset_required=False)
    assert guest.run("cat /sys/module/vfio_platform/parameters/reset_required").stdout == "N\n"
    machine = read_machine(guest)
    assert machine.at("/soc/ethernet@e0700000").driver == "vfio-platform"
    assert machine.at(DMA_PATH).driver == "vfio-platform"
    run(inventory, "vfio_binding", devices=[*devices, DMA], state="released")


def test_an_open_device_is_not_taken(guest: Guest, inventory: Path) -> None:
    run(inventory, "vfio_binding", devices=[DMA], reset_required=False)
    group = read_machine(guest).at(DMA_PATH).group
    # The node is the standard input of the program, which keeps it open.
    holder = guest.run(
        f"sleep infinity < /dev/vfio/{group} > /dev/null 2>&1 & echo $!"
    ).stdout.strip()
    options = {"devices": [DMA], "state": "released", "timeout": 5}
    reported = call(inventory, "vfio_binding", **options).refusal
    assert f"/dev/vfio/{group} is held open by sleep (pid {holder})" in reported
    assert read_machine(guest).at(DMA_PATH).binding == ("vfio-platform", "vfio-platform")
    guest.run(["kill", holder])
    run(inventory, "vfio_binding", **options)
    assert read_machine(guest).at(DMA_PATH).binding == ("acme-ring", None)


def test_noiommu_is_taken_when_the_user_accepts_it(guest: Guest, inventory: Path) -> None:
    plain = {"dt_path": "/soc/plain@b003000"}
    twice(inventory, "vfio_binding", devices=[plain], reset_required=False, unsafe_noiommu=True)
    device = read_machine(guest).at(plain["dt_path"])
    assert device.driver == "vfio-platform"
    assert f"noiommu-{device.group}" in read_machine(guest).nodes
    run(inventory, "vfio_binding", devices=[plain], state="released")
    run(inventory, "vfio_binding", devices=[DMA], reset_required=False, unsafe_noiommu=False)
    noiommu = guest.run("cat /sys/module/vfio/parameters/enable_unsafe_noiommu_mode").stdout
    assert noiommu == "N\n"
    run(inventory, "vfio_binding", devices=[DMA], state="released")


_BIND_SLOT = """
    cd /sys/bus/platform/devices/a000400.virtio_mmio
    echo vfio-platform > driver_override
    echo a000400.virtio_mmio > /sys/bus/platform/drivers/vfio-platform/bind
"""
_RELEASE_SLOT = """
    cd /sys/bus/platform/devices/a000400.virtio_mmio
    echo a000400.virtio_mmio > driver/unbind
    echo > driver_override
    echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
"""


def test_noiommu_goes_with_the_list_that_turned_it_on(guest: Guest, inventory: Path) -> None:
    """A slot without a native driver does not drift after it was bound to VFIO and released."""
    slot = "a000200.virtio_mmio"
    parameter = "cat /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    devices = [
        {"name": slot, "policy": "vfio"},
        {"dt_path": "/soc/plain@b003000", "policy": "vfio"},
    ]
    options = {"devices": devices, "reset_required": False, "unsafe_noiommu": True}
    run(inventory, "host_policy", **options)
    assert guest.run(parameter).stdout == "Y\n"
    released = run(inventory, "host_policy", state="absent").of("armfleet.vfio.host_policy")
    assert guest.run(parameter).stdout == "N\n"
    assert any("enable_unsafe_noiommu_mode to N" in step for step in released["host_steps"])
    (device,) = info(inventory, {"name": slot})
    assert (device["driver"], device["driver_override"], device["drift"]) == (None, None, [])
    assert device["next_boot"]["known"] is False
    run(inventory, "host_policy", **options)
    guest.run("bash -s", input=_BIND_SLOT)
    released = run(inventory, "host_policy", state="absent").of("armfleet.vfio.host_policy")
    stays = "stays Y: platform/a000400.virtio_mmio is bound to VFIO without an IOMMU"
    assert any(kept.endswith(stays) for kept in released["kept_settings"])
    assert guest.run(parameter).stdout == "Y\n"
    assert read_machine(guest).named("a000400.virtio_mmio").driver == "vfio-platform"
    guest.run("bash -s", input=_RELEASE_SLOT)


def test_what_others_need_is_not_taken(guest: Guest, inventory: Path) -> None:
    before = read_machine(guest).bindings
    words = {"9000000.pl011": "console", "9050000.smmuv3": "consumers"}
    common = {"driver": "none", "rebind": True}
    asked = [("driver_override", {"devices": [{"name": name}], **common}) for name in words]
    for word, task in zip(words.values(), refused(inventory, asked), strict=True):
        assert word in task.refusal or "suppress_bind_attrs" in task.refusal
    assert read_machine(guest).bindings == before


def test_the_next_boot_alone_can_be_prepared(guest: Guest, inventory: Path) -> None:
    before = read_machine(guest).bindings
    devices = [dict(DMA, policy="vfio"), {"dt_path": "crypto0", "policy": "no_autobind"}]
    options = {"devices": devices, "reset_required": False}
    twice(inventory, "host_policy", **options, runtime=False)
    assert read_machine(guest).bindings == before
    verified = guest.run("udevadm verify /etc/udev/rules.d/70-armfleet-vfio.rules").stdout
    assert "Fail:    0" in verified
    (shown,) = info(inventory, DMA)
    assert shown["driver"] == "acme-ring"
    assert shown["next_boot"]["driver"] == "vfio-platform"
    twice(inventory, "host_policy", state="absent")
    assert read_machine(guest).bindings == before
    assert files(guest) == {}


def test_device_info_shows_every_device_as_sys_does(guest: Guest, inventory: Path) -> None:
    shown = info(inventory)
    machine = read_machine(guest)
    lasting = [device for device in shown if not device["name"].endswith(".auto")]
    assert len(lasting) == len(machine.devices) >= 70
    for device in lasting:
        seen = next(
            candidate
            for candidate in machine.devices
            if (candidate.bus, candidate.name) == (device["bus"], device["name"])
        )
        assert (device["driver"], device["driver_override"]) == seen.binding
        assert device["iommu_group"] == seen.group
    console = next(device for device in shown if device["name"] == "9000000.pl011")
    assert [hazard["kind"] for hazard in console["in_use_by"]] == ["console"]
    crypto = next(device for device in shown if device["dt_path"] == "/soc/crypto@b000000")
    assert crypto["compatible"] == ["acme,crypto-v1", "acme,crypto"]
