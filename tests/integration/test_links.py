"""Links to nodes follow the device across renumbering and reboots; a release removes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import calls
from tests.harness.guests import released
from tests.harness.playbook import play

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

CRYPTO = {"dt_path": "crypto0", "policy": "vfio", "tag": "left"}
DMA = {"dt_path": "/soc/dma@b001000", "policy": "vfio", "tag": "right"}
ENGINE = {"dt_path": "/soc/engine@b005000", "policy": "vfio"}
# Neither device has an IOMMU, so that every binding creates its group again.
PLAIN = {"dt_path": "/soc/plain@b003000", "policy": "vfio"}
KEYS = {"dt_path": "/soc/keys", "policy": "vfio", "tag": "keys"}
LIST = [CRYPTO, DMA, ENGINE, PLAIN, KEYS]
# The names of the links to the nodes of each device, by the name of the device.
CALLED = {
    "b000000.crypto": ("by-path/soc:crypto@b000000", "by-tag/left"),
    "b001000.dma": ("by-path/soc:dma@b001000", "by-tag/right"),
    "b005000.engine": ("by-path/soc:engine@b005000",),
    "b003000.plain": ("by-path/soc:plain@b003000",),
    "soc:keys": ("by-path/soc:keys", "by-tag/keys"),
}
MOVED = ["b000000.crypto", "b001000.dma", "b003000.plain", "soc:keys"]

# Prints each link below /dev/vfio with its target, and the nodes of each device as in sysfs.
_LOOK = r"""
import json, os, stat
links, nodes = {}, {}
for directory, folders, names in os.walk("/dev/vfio"):
    for name in folders + names:
        path = directory + "/" + name
        if os.path.islink(path):
            assert stat.S_ISCHR(os.stat(path).st_mode), path
            links[path] = os.path.realpath(path)
for bus in ("platform", "amba"):
    home = "/sys/bus/%s/drivers/vfio-%s" % (bus, bus)
    for name in os.listdir(home):
        group = home + "/" + name + "/iommu_group"
        if os.path.exists(group):
            kind = "noiommu-" if os.path.exists(group + "/name") else ""
            nodes[name] = ["/dev/vfio/" + kind + os.path.basename(os.readlink(group))]
            own = home + "/" + name + "/vfio-dev"
            nodes[name] += [
                "/dev/vfio/devices/" + node
                for node in os.listdir(own)
                if os.path.exists("%s/%s/dev" % (own, node))
            ]
print(json.dumps([links, nodes]))
"""

_UNBIND = """
    cd /sys/bus/platform/devices
    for device in "$@"; do echo $device > $device/driver/unbind; done
    udevadm settle
"""
_BIND = """
    cd /sys/bus/platform
    for device in "$@"; do echo $device > drivers_probe; done
    udevadm settle
"""
_REPLAY = (
    "udevadm trigger --settle --subsystem-match=platform --subsystem-match=amba "
    "--subsystem-match=vfio --subsystem-match=vfio-dev --action="
)


@pytest.fixture(scope="module", autouse=True)
def _from_nothing_to_nothing(guest: Guest, inventory: Path) -> Iterator[None]:
    guest.run("udevadm settle")
    with released(guest, inventory):
        yield


def apply(inventory: Path, *devices: dict[str, Any]) -> dict[str, Any]:
    run = calls.apply(inventory, devices, reset_required=False, unsafe_noiommu=True)
    assert run.code == 0, run.output
    return run.of("armfleet.vfio.host_policy")


def look(guest: Guest) -> tuple[dict[str, str], dict[str, list[str]]]:
    links, nodes = json.loads(guest.run("python3 -", input=_LOOK).stdout)
    return links, nodes


def assert_linked(guest: Guest, called: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Assert that exactly these links exist, each to a node of its device; return the nodes."""
    links, nodes = look(guest)
    assert links == {
        f"{node.rpartition('/')[0]}/{name}": node
        for device, names in called.items()
        for name in names
        for node in nodes[device]
    }
    return nodes


def by_hand(guest: Guest, script: str, *names: str) -> None:
    guest.run(["bash", "-ec", script, "bash", *names])


def test_each_node_has_a_link_by_path_and_by_tag(guest: Guest, inventory: Path) -> None:
    result = apply(inventory, *LIST)
    nodes = assert_linked(guest, CALLED)
    assert {name for name, own in nodes.items() if len(own) == 2} == set(CALLED) - set(MOVED[2:])
    reported = {device["name"]: set(device["links"]) for device in result["devices"]}
    links, _nodes = look(guest)
    assert set.union(*reported.values()) == set(links)
    assert apply(inventory, *LIST)["changed"] is False


def test_links_follow_devices_that_are_bound_in_another_order(
    guest: Guest, inventory: Path
) -> None:
    before = assert_linked(guest, CALLED)
    guest.run("udevadm control --reload")
    by_hand(guest, _UNBIND, *MOVED)
    links, _nodes = look(guest)
    assert set(links.values()) == set(before["b005000.engine"])
    by_hand(guest, _BIND, *reversed(MOVED))
    after = assert_linked(guest, CALLED)
    # The kernel assigns the lowest free number.
    assert after["b000000.crypto"][1] != before["b000000.crypto"][1]
    assert after["soc:keys"] == before["b003000.plain"]
    assert apply(inventory, *LIST)["changed"] is False


def test_events_that_come_again_change_no_link(guest: Guest) -> None:
    before = look(guest)
    for action in ("add", "change"):
        guest.run(_REPLAY + action)
    assert look(guest) == before


def test_links_are_right_after_a_reboot(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    assert_linked(guest, CALLED)
    assert apply(inventory, *LIST)["changed"] is False


def test_another_tag_is_another_link_and_no_driver_is_touched(
    guest: Guest, inventory: Path
) -> None:
    events = guest.run("cat /sys/kernel/uevent_seqnum").stdout
    result = apply(inventory, {**CRYPTO, "tag": "middle"}, *LIST[1:])
    assert guest.run("cat /sys/kernel/uevent_seqnum").stdout == events
    called = {**CALLED, "b000000.crypto": ("by-path/soc:crypto@b000000", "by-tag/middle")}
    assert_linked(guest, called)
    assert [len(device["steps"]) for device in result["devices"]] == [1, 0, 0, 0, 0]
    guest.run(_REPLAY + "add")
    assert_linked(guest, called)


def test_the_link_of_a_device_that_is_given_back_is_gone(guest: Guest, inventory: Path) -> None:
    apply(inventory, DMA, PLAIN)
    guest.run("udevadm settle")
    assert_linked(guest, {name: CALLED[name] for name in ("b001000.dma", "b003000.plain")})


def test_release_leaves_no_link_and_no_folder(guest: Guest, inventory: Path) -> None:
    assert play(inventory, "armfleet.vfio.release").code == 0
    guest.run("udevadm settle")
    assert guest.run("find /dev/vfio -name 'by-*'").stdout == ""
    assert look(guest)[0] == {}
