"""Functions that must not be taken, and bad input: nothing changes, and ssh keeps working."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.calls import apply, refused
from tests.pci.functions import (
    DISK,
    ETHERNET,
    ETHERNET_ID,
    FIRST,
    HOST_BRIDGE,
    NETWORK,
    PHYSICAL,
    PORT,
    PORT_NODE,
    ROOT_DISK,
    SCREEN,
    SECOND,
    SWITCH,
    VIRTUAL,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guest import Guest

ON_VFIO, IDLE = VIRTUAL[:2]
# The second is bound to no driver: that of the first is not to be loaded for it.
_MAKE_VIRTUAL_FUNCTIONS = f"""
    cd /sys/bus/pci/devices
    modprobe vfio-pci
    echo 0 > {PHYSICAL}/sriov_drivers_autoprobe
    echo 2 > {PHYSICAL}/sriov_numvfs
    echo vfio-pci > {ON_VFIO}/driver_override
    echo {ON_VFIO} > /sys/bus/pci/drivers_probe
    udevadm settle
"""

# By address: each kind of use that `allow` accepts, and what the refusal must contain.
IN_USE: dict[str, list[tuple[str, str]]] = {
    ROOT_DISK: [("storage", "disk vda: vda is mounted on /")],
    NETWORK: [
        ("network", "network interface eth0 is up with 10.0.2.15"),
        ("network", "and this run is connected through it"),
    ],
    FIRST: [("group", f"{SECOND} of the same IOMMU group")],
    PHYSICAL: [("consumers", f"its virtual function {ON_VFIO} is bound to vfio-pci")],
}
BRIDGES = (PORT, *SWITCH)
EVERYTHING = ["clock", "console", "consumers", "group", "network", "storage", "watchdog"]


@pytest.fixture(scope="module")
def guest(guest: Guest) -> Guest:
    """Return the guest with two virtual functions, one of them on VFIO."""
    guest.run(_MAKE_VIRTUAL_FUNCTIONS)
    return guest


@pytest.fixture(autouse=True)
def _nothing_changes(unchanged_guest: None) -> None:
    """No test changes the guest."""


def to_vfio(*addresses: str) -> list[dict[str, Any]]:
    return [{"pci_address": address, "policy": "vfio"} for address in addresses]


def lines_about(address: str, message: str) -> list[str]:
    """Return the lines that begin with the function, or with its node."""
    starts = re.compile(rf"(/\S+ \()?pci device {address}\b")
    return [line for line in message.splitlines() if starts.match(line)]


def test_functions_in_use_are_refused_at_once_and_a_check_says_the_same(inventory: Path) -> None:
    message = apply(inventory, to_vfio(*IN_USE)).refusal
    for address, hazards in IN_USE.items():
        for kind, sentence in hazards:
            (line,) = [line for line in lines_about(address, message) if sentence in line]
            assert f"add '{kind}' to `allow`" in line
    assert apply(inventory, to_vfio(*IN_USE), "--check").refusal == message


def test_the_uses_that_others_may_lose_do_not_help(inventory: Path) -> None:
    kinds = sorted({kind for hazards in IN_USE.values() for kind, _sentence in hazards})
    asked = [
        {"devices": to_vfio(address), "allow": [kind for kind in kinds if kind != own]}
        for address, [(own, _sentence), *_more] in IN_USE.items()
    ]
    tasks = refused(inventory, [("host_policy", options) for options in asked])
    for (address, hazards), task in zip(IN_USE.items(), tasks, strict=True):
        for _kind, sentence in hazards:
            assert any(sentence in line for line in lines_about(address, task.refusal))


def test_a_function_of_a_group_is_accepted_with_the_other_one(inventory: Path) -> None:
    run = apply(inventory, to_vfio(FIRST, SECOND), "--check")
    assert run.code == 0, run.output


def test_the_screen_of_the_firmware_is_in_use_though_no_driver_is_bound(inventory: Path) -> None:
    """vfio-pci would end it until the next boot."""
    asked = [
        ("host_policy", {"devices": to_vfio(SCREEN), "allow": allowed})
        for allowed in ([], [kind for kind in EVERYTHING if kind != "console"])
    ]
    for task in refused(inventory, asked):
        (line,) = lines_about(SCREEN, task.refusal)
        assert "simplefb" in line
        assert "add 'console' to `allow`" in line


def test_bridges_are_never_taken_whatever_is_allowed(inventory: Path) -> None:
    asked = [
        {"devices": [{**entry, "policy": policy} for entry in to_vfio(*BRIDGES)]}
        for policy in ("vfio", "no_autobind")
    ]
    asked.append({"devices": [{"dt_path": PORT_NODE, "policy": "vfio"}]})
    options = [("host_policy", {**each, "allow": EVERYTHING}) for each in asked]
    *by_address, by_node = [task.refusal for task in refused(inventory, options)]
    for message in by_address:
        for bridge in BRIDGES:
            assert any("bridge" in line for line in lines_about(bridge, message)), message
    assert "bridge" in by_node


def test_the_function_of_the_host_bridge_is_never_taken(inventory: Path) -> None:
    """Its header is that of an ordinary function, and vfio-pci would take it."""
    message = apply(inventory, to_vfio(HOST_BRIDGE), allow=EVERYTHING).refusal
    assert "bridge" in message


def test_the_platform_device_of_the_host_bridge_is_in_use_as_all_behind_it(
    inventory: Path,
) -> None:
    message = apply(inventory, [{"dt_path": "/pcie@10000000", "policy": "no_autobind"}]).refusal
    for sentence in ("vda is mounted on /", "this run is connected through it"):
        assert sentence in message


NO_ADDRESS = {
    "00:01.0": "domain",
    "0000:01:00": "function",
    "0000:01:00.*": "patterns",
    "0000:0A:00.0": "lower case",
    "0000:01:00.8": "functions 0 to 7",
    "0000:01:20.0": "devices 00 to 1f",
    "0000:01:00.0\n": "digits",
    "../0000:01:00.0": "digits",
    "": "domain",
}
NO_ID = {
    "8086": "two or four parts",
    "8086:10d3:8086": "two or four parts",
    "8086:*": "patterns",
    "8086:10D3": "lower case",
    "8086:10d": "four digits",
    "0x8086:0x10d3": "digits",
}
NOT_THERE = {
    "pci_address": {
        "0000:01:00.1": ETHERNET,
        "0000:09:00.0": "no PCI function",
        "0001:01:00.0": "no PCI function",
        # Of a physical function with two of its four virtual ones.
        VIRTUAL[3]: PHYSICAL,
    },
    "pci_id": {
        "15b3:101e": "no PCI function",
        f"{ETHERNET_ID}:15b3:0008": ETHERNET,
    },
}


def test_bad_input_is_one_sentence_each(inventory: Path) -> None:
    asked = [
        (kind, value, part)
        for kind, values in {"pci_address": NO_ADDRESS, "pci_id": NO_ID}.items()
        for value, part in values.items()
    ]
    entries = [{kind: value, "policy": "vfio"} for kind, value, _part in asked]
    lines = apply(inventory, entries).refusal.splitlines()
    assert len(lines) == len(asked)
    for line, (kind, value, part) in zip(lines, asked, strict=True):
        assert line.startswith(f"{kind} {value!r} ")
        assert part in line


def test_a_function_that_is_not_there_is_one_sentence_each(inventory: Path) -> None:
    asked = [
        (kind, value, part) for kind, values in NOT_THERE.items() for value, part in values.items()
    ]
    entries = [{kind: value, "policy": "vfio"} for kind, value, _part in asked]
    lines = apply(inventory, entries).refusal.splitlines()
    assert len(lines) == len(asked)
    for line, (kind, value, part) in zip(lines, asked, strict=True):
        assert f"{kind} {value!r}" in line
        assert part in line


def test_another_card_at_the_address_is_an_error(inventory: Path) -> None:
    entry = {"pci_address": DISK, "pci_id": ETHERNET_ID, "policy": "vfio"}
    (line,) = apply(inventory, [entry]).refusal.splitlines()
    for part in (DISK, ETHERNET_ID, "1b36:0010:1af4:1100"):
        assert part in line


def test_a_tag_is_that_of_one_function(inventory: Path) -> None:
    entry = {"pci_id": "1b36:0010", "policy": "vfio", "tag": "disk"}
    message = apply(inventory, [entry]).refusal
    assert message.startswith("Tag disk must identify one device")
    assert FIRST in message
