"""One list for platform, AMBA and PCI: each test continues where the previous one ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import info, list_applier
from tests.harness.playbook import Run, play
from tests.harness.sysfs import files, read_machine
from tests.harness.tracing import TRACED, state_writes
from tests.pci.functions import (
    DISK,
    EDU,
    EDU_ID,
    ETHERNET,
    ETHERNET_NODE,
    ETHERNET_WHOLE_ID,
    FIRST,
    NVME_ID,
    NVME_WHOLE_ID,
    PHYSICAL,
    PORT,
    SECOND,
    VARIANT,
    VFIO,
    VIRTUAL,
)

if TYPE_CHECKING:
    from tests.guest import Guest
    from tests.harness.sysfs import Binding

HOST_POLICY = "armfleet.vfio.host_policy"
EXAMPLE = Path(__file__).parents[2] / "docs/examples/user-space/read_registers.py"
PROGRAM = "/root/read_registers.py"

LIST: list[dict[str, Any]] = [
    {"dt_path": "/soc/crypto@b000000", "policy": "vfio"},
    {"compatible": "acme,dma", "expect": 2, "policy": "no_autobind"},
    {"dt_path": "/soc/engine@b005000", "policy": "vfio"},
    {"dt_path": ETHERNET_NODE, "policy": "vfio", "tag": "ethernet"},
    {"pci_address": DISK, "pci_id": NVME_ID, "policy": "vfio", "tag": "disk"},
    {"pci_id": EDU_ID, "expect": 1, "policy": "vfio", "tag": "edu"},
    {"pci_address": FIRST, "pci_id": NVME_WHOLE_ID, "policy": "no_autobind"},
    {"name": SECOND, "bus": "pci", "policy": "driver", "driver": "nvme"},
    {"pci_address": PHYSICAL, "pci_id": NVME_ID, "policy": "default", "sriov_numvfs": 4},
    {"pci_address": VIRTUAL[0], "policy": "vfio", "tag": "queue"},
    {"pci_address": VIRTUAL[1], "policy": "vfio"},
    {"pci_address": VIRTUAL[2], "policy": "no_autobind"},
    {"name": VIRTUAL[3], "bus": "pci", "policy": "no_autobind"},
    {"pci_id": "15b3:101e", "required": False, "policy": "vfio"},
]
SETTINGS = {"passthrough_reset_required": False}
WANTED: dict[str, Binding] = {
    "platform/b000000.crypto": ("vfio-platform", "vfio-platform"),
    "platform/b001000.dma": (None, "none"),
    "platform/b002000.dma": (None, "none"),
    "amba/b005000.engine": ("vfio-amba", "vfio-amba"),
    f"pci/{ETHERNET}": VFIO,
    f"pci/{DISK}": VFIO,
    f"pci/{EDU}": VARIANT,
    f"pci/{FIRST}": (None, "none"),
    f"pci/{SECOND}": ("nvme", "nvme"),
    f"pci/{VIRTUAL[0]}": VFIO,
    f"pci/{VIRTUAL[1]}": VFIO,
    f"pci/{VIRTUAL[2]}": (None, "none"),
    f"pci/{VIRTUAL[3]}": (None, "none"),
}
# By tag: a register of region 0, and which of its bits are fixed to what.
REGISTERS = {
    # STATUS: full duplex, 1000 Mb/s.
    "ethernet": (ETHERNET, 0x8, 0xC1, 0x81),
    # VS: NVMe 1.4.
    "disk": (DISK, 0x8, 0xFFFFFFFF, 0x00010400),
    "edu": (EDU, 0x0, 0xFFFFFFFF, 0x010000ED),
}
apply = list_applier(LIST, SETTINGS)


def assert_in_sync(guest: Guest) -> None:
    """Assert that each device of the list is as wanted, and each other one as before."""
    assert read_machine(guest).bindings == Story.untouched | WANTED


class Story:
    """What later tests compare with."""

    untouched: dict[str, Binding]
    predicted: Run
    first: Run


def test_a_check_touches_nothing(guest: Guest, inventory: Path) -> None:
    Story.untouched = read_machine(guest).bindings
    Story.predicted = apply(inventory, "--check", "--diff")
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}


def test_the_first_run_does_what_the_check_predicted(guest: Guest, inventory: Path) -> None:
    run = Story.first = apply(inventory, "--diff")
    predicted, done = Story.predicted.of(HOST_POLICY), run.of(HOST_POLICY)
    assert predicted["diff"] == done["diff"]
    assert predicted["boot_files"] == done["boot_files"]
    assert predicted["host_steps"] == done["host_steps"]
    assert predicted["changed"] is done["changed"] is True
    for before, after in zip(predicted["devices"], done["devices"], strict=True):
        # A group and its node are created when the driver is bound: check mode cannot know them.
        born = ("iommu_group", "vfio_nodes", "links")
        assert {key: before[key] for key in before if key not in born} == {
            key: after[key] for key in after if key not in born
        }
    assert_in_sync(guest)


def test_the_result_has_the_id_of_each_function(guest: Guest) -> None:
    machine = read_machine(guest)
    reported = {device["name"]: device for device in Story.first.of(HOST_POLICY)["devices"]}
    assert {name: device["pci_id"] for name, device in reported.items()} == {
        name: machine.named(name).pci_id for name in reported
    }
    assert reported[ETHERNET]["pci_id"] == ETHERNET_WHOLE_ID
    assert reported[ETHERNET]["dt_path"] == ETHERNET_NODE
    assert reported[EDU]["pci_id"].startswith(EDU_ID)


def test_functions_that_cannot_be_reset_are_warned_of(guest: Guest) -> None:
    resettable = guest.run("cd /sys/bus/pci/devices; ls -d */reset").stdout
    shown = " ".join(Story.first.output.split())
    warned = {name: f"cannot reset pci device {name}" in shown for name in (ETHERNET, DISK, EDU)}
    assert warned == {name: f"{name}/reset" not in resettable for name in warned}
    assert warned[EDU]


def test_every_vfio_device_has_the_node_that_was_reported(guest: Guest) -> None:
    machine = read_machine(guest)
    reported = Story.first.of(HOST_POLICY)["devices"]
    given = [device for device in reported if "vfio" in (device["driver"] or "")]
    assert len(given) == 7
    for device in given:
        group = machine.named(device["name"]).group
        assert group in machine.nodes
        assert device["iommu_group"] == group
        assert f"/dev/vfio/{group}" in device["vfio_nodes"]


def test_the_plan_says_why_a_function_is_bound_to_another_vfio_driver() -> None:
    shown = Story.predicted.output
    (line,) = [line for line in shown.splitlines() if f"bind to {VARIANT[0]}" in line]
    assert EDU_ID in line


def test_the_port_above_keeps_its_driver(guest: Guest, kernel: str) -> None:
    port = read_machine(guest).named(PORT)
    assert port.binding == ("pcieport", None)
    if kernel == "debian":
        # With a device tree, this kernel knows too late that the port is to isolate.
        assert read_machine(guest).group_of(ETHERNET) == {PORT, ETHERNET}


@pytest.mark.parametrize("tag", REGISTERS)
def test_user_space_reads_a_register_through_the_tag(guest: Guest, tag: str) -> None:
    function, offset, mask, value = REGISTERS[tag]
    guest.put(EXAMPLE, PROGRAM)
    guest.run("udevadm settle")
    command = f"python3 {PROGRAM} /dev/vfio/by-tag/{tag} --device {function} --offset {offset}"
    _offset, word = guest.run(command).stdout.split()
    assert int(word, 16) & mask == value


def test_the_second_run_writes_nothing(guest: Guest, inventory: Path) -> None:
    run = apply(inventory, *TRACED)
    assert run.changed == {guest.name: 0}
    assert "/sys/bus/pci/devices" in guest.run("cat /root/trace").stdout
    assert state_writes(guest) == []


def test_device_info_shows_why_each_function_is_bound(inventory: Path) -> None:
    devices = {f"{device['bus']}/{device['name']}": device for device in info(inventory)}
    names = (ETHERNET, EDU, PORT, PHYSICAL, VIRTUAL[0])
    ethernet, edu, port, physical, virtual = [devices[f"pci/{name}"] for name in names]
    assert (physical["sriov_numvfs"], physical["sriov_totalvfs"]) == (4, 4)
    assert virtual["next_boot"]["driver"] == "vfio-pci"
    assert [device["drift"] for device in (ethernet, edu, physical, virtual)] == [[]] * 4
    assert (ethernet["driver"], ethernet["driver_override"]) == VFIO
    assert (edu["driver"], edu["driver_override"]) == VARIANT
    assert (port["driver"], port["driver_override"]) == ("pcieport", None)
    assert [device["bus"] for device in (ethernet, edu, port)] == ["pci"] * 3
    forecasts = {name: device["next_boot"] for name, device in devices.items()}
    # The state that assert_in_sync finds after the reboot.
    known = {
        name: (forecast["driver"], forecast["driver_override"])
        for name, forecast in forecasts.items()
        if forecast["known"] and name in Story.untouched | WANTED
    }
    assert known == {name: (Story.untouched | WANTED)[name] for name in known}
    assert known.keys() >= WANTED.keys()
    assert len(known) > len(devices) / 2


def test_udev_replays_the_rules_and_nothing_changes(guest: Guest) -> None:
    guest.run("udevadm trigger --action=add --settle --subsystem-match=pci")
    assert_in_sync(guest)


def test_a_function_that_is_found_again_is_bound_as_listed(guest: Guest) -> None:
    """As a card that is plugged in: it comes without an override."""
    guest.run(f"""
        echo 1 > /sys/bus/pci/devices/{DISK}/remove
        [ ! -e /sys/bus/pci/devices/{DISK} ]
        echo 1 > /sys/bus/pci/rescan
        udevadm settle
    """)
    assert_in_sync(guest)


def test_what_somebody_changes_manually_is_seen_by_the_next_run(
    guest: Guest, inventory: Path
) -> None:
    guest.run(f"""
        echo {ETHERNET} > /sys/bus/pci/drivers/vfio-pci/unbind
        echo > /sys/bus/pci/devices/{FIRST}/driver_override
    """)
    assert apply(inventory, "--check").changed == {guest.name: 1}
    assert apply(inventory).changed == {guest.name: 1}
    assert_in_sync(guest)


def test_after_a_reboot_everything_is_as_it_was(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert_in_sync(guest)
    assert apply(inventory).changed == {guest.name: 0}
    assert guest.run("systemctl is-system-running").stdout.strip() == "running"
    links = guest.run("readlink /dev/vfio/by-tag/*").stdout.split()
    tagged = (DISK, EDU, ETHERNET, VIRTUAL[0])
    groups = [read_machine(guest).named(name).group for name in tagged]
    assert links == [f"../{group}" for group in groups]


@pytest.mark.nightly
def test_the_users_choice_of_a_vfio_driver_wins(guest: Guest, inventory: Path) -> None:
    chosen = [
        {**entry, "vfio_driver": "vfio-pci"} if entry.get("pci_id") == EDU_ID else entry
        for entry in LIST
    ]
    apply(inventory, devices=chosen)
    assert read_machine(guest).named(EDU).binding == VFIO
    assert apply(inventory, devices=chosen).changed == {guest.name: 0}
    apply(inventory)
    assert_in_sync(guest)


def test_what_is_taken_off_the_list_is_released(guest: Guest, inventory: Path) -> None:
    shorter = [entry for entry in LIST if entry.get("pci_address") != DISK]
    run = apply(inventory, "--diff", devices=shorter)
    machine = read_machine(guest)
    assert machine.named(DISK).binding == ("nvme", None)
    assert machine.named(ETHERNET).binding == VFIO
    assert re.search(rf"{DISK}.*\(released\)", run.output)
    assert apply(inventory, devices=shorter).changed == {guest.name: 0}


def test_release_restores_everything(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert read_machine(guest).bindings == Story.untouched
    assert files(guest) == {}
    assert guest.run("find /etc /boot -name '*armfleet*'").stdout == ""
    assert play(inventory, "armfleet.vfio.release").changed == {guest.name: 0}
