# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices on the buses fsl-mc and cdx of a real kernel, for which QEMU has no hardware.

Two modules of tests/guest answer in its place, one as the firmware of an fsl-mc bus and the other
as the controller of a CDX bus. Each test continues where the previous one ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply, info, refused
from tests.harness.playbook import play
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest
    from tests.harness.sysfs import Binding

pytestmark = pytest.mark.nightly
HOST_POLICY = "armfleet.vfio.host_policy"
# Nothing loads these by itself. Events of the bus cdx have no MODALIAS, by which udev would load
# the native driver.
ADD_DEVICES = "modprobe acme_mc && modprobe acme_cdx && modprobe acme_fabric && udevadm settle"

CDX_BUS, FABRIC, OTHER_FABRIC = "cdx-00", "cdx-00:00", "cdx-00:01"
# The root has an object and two containers; one of these has an object.
ROOT, CONTAINER, EMPTY_CONTAINER = "dprc.1", "dprc.2", "dprc.3"
OBJECT, INNER_OBJECT = "dpni.1", "dpni.2"
CDX_NATIVE, DPNI_NATIVE, DPRC_NATIVE = "acme-fabric", "acme-dpni", "fsl_mc_dprc"
UNTOUCHED: dict[str, Binding] = {
    CDX_BUS: (None, None),
    FABRIC: (CDX_NATIVE, None),
    OTHER_FABRIC: (CDX_NATIVE, None),
    ROOT: (DPRC_NATIVE, None),
    CONTAINER: (DPRC_NATIVE, None),
    EMPTY_CONTAINER: (DPRC_NATIVE, None),
    OBJECT: (DPNI_NATIVE, None),
    INNER_OBJECT: (DPNI_NATIVE, None),
}
ON_VFIO_CDX, ON_VFIO_FSL_MC = ("vfio-cdx", "vfio-cdx"), ("vfio-fsl-mc", "vfio-fsl-mc")


def on_cdx(name: str, policy: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "bus": "cdx", "policy": policy, **keys}


def on_fsl_mc(name: str, policy: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "bus": "fsl-mc", "policy": policy, **keys}


LIST = [
    on_cdx(FABRIC, "vfio", tag="fabric"),
    on_cdx(OTHER_FABRIC, "no_autobind"),
    on_fsl_mc(CONTAINER, "vfio", tag="network"),
    on_fsl_mc(OBJECT, "no_autobind"),
]
WANTED = {
    **UNTOUCHED,
    FABRIC: ON_VFIO_CDX,
    OTHER_FABRIC: (None, "none"),
    CONTAINER: ON_VFIO_FSL_MC,
    # The kernel sets this override: vfio_fsl_mc_bus_notifier in drivers/vfio/fsl-mc.
    INNER_OBJECT: ON_VFIO_FSL_MC,
    OBJECT: (None, "none"),
}


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str) -> Guest:
    guest = start("test-buses", "buses", kernel)
    guest.run(ADD_DEVICES)
    return guest


def bindings(guest: Guest) -> dict[str, Binding]:
    """Return driver and override of each device on the two buses, by its name."""
    return {
        device.name: device.binding
        for device in read_machine(guest).devices
        if device.bus in ("fsl-mc", "cdx")
    }


def run_list(inventory: Path, devices: list[dict[str, Any]], *arguments: str) -> dict[str, Any]:
    run = apply(inventory, devices, *arguments)
    assert run.code == 0, run.output
    return run.of(HOST_POLICY)


def test_the_devices_are_on_the_buses_of_the_kernel_with_its_own_drivers(guest: Guest) -> None:
    assert bindings(guest) == UNTOUCHED
    for driver in (DPRC_NATIVE, "fsl_mc_allocator"):
        assert guest.run(f"ls /sys/bus/fsl-mc/drivers/{driver}/bind").stdout


def test_device_info_shows_them_by_bus_and_name(inventory: Path) -> None:
    shown = info(inventory, {"name": FABRIC, "bus": "cdx"}, {"name": CONTAINER, "bus": "fsl-mc"})
    assert [(device["bus"], device["name"], device["driver"]) for device in shown] == [
        ("cdx", FABRIC, CDX_NATIVE),
        ("fsl-mc", CONTAINER, DPRC_NATIVE),
    ]


@pytest.mark.parametrize(
    ("entry", "during"),
    [
        (on_cdx(FABRIC, "no_autobind"), {FABRIC: (None, "none")}),
        (on_cdx(FABRIC, "driver", driver=CDX_NATIVE), {FABRIC: (CDX_NATIVE, CDX_NATIVE)}),
        (on_cdx(FABRIC, "default"), {}),
        (on_fsl_mc(OBJECT, "no_autobind"), {OBJECT: (None, "none")}),
        (on_fsl_mc(OBJECT, "driver", driver=DPNI_NATIVE), {OBJECT: (DPNI_NATIVE, DPNI_NATIVE)}),
        (on_fsl_mc(OBJECT, "default"), {}),
    ],
    ids=lambda value: "-".join(value.values()) if "policy" in value else "",
)
def test_each_policy_without_vfio_holds_and_is_reversible(
    guest: Guest, inventory: Path, entry: dict[str, Any], during: dict[str, Binding]
) -> None:
    run_list(inventory, [entry])
    assert bindings(guest) == {**UNTOUCHED, **during}
    assert not run_list(inventory, [entry])["changed"]
    run_list(inventory, [])
    assert bindings(guest) == UNTOUCHED


def test_a_list_binds_devices_of_both_buses_to_vfio_as_its_check_predicts(
    guest: Guest, inventory: Path
) -> None:
    predicted = run_list(inventory, LIST, "--check", "--diff")
    assert bindings(guest) == UNTOUCHED
    done = run_list(inventory, LIST, "--diff")
    assert bindings(guest) == WANTED
    assert predicted["changed"]
    assert predicted["diff"] == done["diff"]


def test_vfio_has_a_node_for_each_and_a_tag_leads_to_it(guest: Guest) -> None:
    machine = read_machine(guest)
    for name, tag in ((FABRIC, "fabric"), (CONTAINER, "network")):
        group = machine.named(name).group
        assert group in machine.nodes
        link = guest.run(f"readlink -f /dev/vfio/by-tag/{tag}").stdout.strip()
        assert link == f"/dev/vfio/{group}"
    # A container and its objects are given away together.
    assert machine.group_of(CONTAINER) == {CONTAINER, INNER_OBJECT}


def test_a_second_run_changes_nothing(inventory: Path) -> None:
    assert not run_list(inventory, LIST)["changed"]


def test_devices_that_are_found_again_are_bound_by_the_rules(guest: Guest) -> None:
    """They come without an override, as at boot."""
    guest.run("echo 1 > /sys/bus/cdx/rescan && modprobe -r acme_mc && modprobe acme_mc")
    guest.run("udevadm settle")
    assert bindings(guest) == WANTED


def test_the_list_holds_after_a_reboot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    guest.run(ADD_DEVICES)
    assert bindings(guest) == WANTED
    assert not run_list(inventory, LIST)["changed"]


def test_release_gives_everything_back(guest: Guest, inventory: Path) -> None:
    run = play(inventory, "armfleet.vfio.release")
    assert run.code == 0, run.output
    assert bindings(guest) == UNTOUCHED
    assert files(guest) == {}


def test_an_object_is_refused_and_the_message_names_its_container(
    guest: Guest, inventory: Path
) -> None:
    containers = {OBJECT: ROOT, INNER_OBJECT: CONTAINER}
    asked = [("host_policy", {"devices": [on_fsl_mc(name, "vfio")]}) for name in containers]
    for task, (name, container) in zip(refused(inventory, asked), containers.items(), strict=True):
        assert task.refusal.startswith(f"fsl-mc device {name} cannot be bound to VFIO by itself")
        assert f"it is in {container}." in task.refusal
    assert bindings(guest) == UNTOUCHED


@pytest.mark.parametrize("options", [{}, {"runtime": False}], ids=["now", "next-boot"])
@pytest.mark.parametrize("policy", ["vfio", "no_autobind"])
def test_an_object_cannot_be_in_the_list_with_its_container(
    guest: Guest, inventory: Path, policy: str, options: dict[str, Any]
) -> None:
    devices = [on_fsl_mc(CONTAINER, policy), on_fsl_mc(INNER_OBJECT, "no_autobind")]
    (task,) = refused(inventory, [("host_policy", {"devices": devices, **options})])
    assert task.refusal == (
        f"fsl-mc device {INNER_OBJECT} is in {CONTAINER}, which the list takes from its driver: "
        "the kernel then removes all devices in it, and only VFIO adds them again, for itself. "
        "Remove one of the two entries"
    )
    assert bindings(guest) == UNTOUCHED


def test_the_device_of_a_cdx_bus_is_refused(guest: Guest, inventory: Path) -> None:
    message = apply(inventory, [on_cdx(CDX_BUS, "vfio")]).refusal
    assert message.startswith(f"cdx device {CDX_BUS} cannot be bound to VFIO by itself")
    assert bindings(guest) == UNTOUCHED


def test_the_kernels_own_vfio_cdx_without_detach_ioas_is_explained(
    guest: Guest, inventory: Path
) -> None:
    """modprobe prefers the repaired one of tests/guest/modules.py."""
    guest.run("modprobe -r vfio-cdx; modprobe vfio")
    guest.run("insmod /lib/modules/$(uname -r)/kernel/drivers/vfio/cdx/vfio-cdx.ko")
    message = apply(inventory, [on_cdx(FABRIC, "vfio")]).refusal
    assert "lacks detach_ioas, which kernels with CONFIG_IOMMUFD require" in message
    assert "all changes of this run were rolled back" in message
    assert bindings(guest) == UNTOUCHED
    guest.run("rmmod vfio-cdx")


def test_a_list_that_fails_is_rolled_back_on_both_buses(guest: Guest, inventory: Path) -> None:
    """The kernel rejects the last device: its driver is not for containers."""
    failing = [*LIST, on_fsl_mc(EMPTY_CONTAINER, "driver", driver=DPNI_NATIVE)]
    message = apply(inventory, failing).refusal
    assert EMPTY_CONTAINER in message
    assert "Not everything could be rolled back" not in message
    assert bindings(guest) == UNTOUCHED
    assert files(guest) == {}
