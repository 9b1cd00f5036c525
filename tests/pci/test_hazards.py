"""Functions that must not be taken, and bad input: nothing changes, and ssh keeps working."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.harness.calls import refused
from tests.harness.playbook import TaskResult, play, refused_tasks_play
from tests.harness.sysfs import state
from tests.pci.functions import (
    DISK,
    ETHERNET,
    ETHERNET_ID,
    FIRST,
    HOST_BRIDGE,
    NETWORK,
    NVME_ID,
    NVME_WHOLE_ID,
    PHYSICAL,
    PORT,
    PORT_NODE,
    ROOT_DISK,
    SCREEN,
    SECOND,
    SWITCH,
    VIRTUAL,
)
from tests.pci.nvme import bind_to_vfio, create_virtual_functions, remove_virtual_functions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.guest import Guest
    from tests.harness.sysfs import State

ON_VFIO = VIRTUAL[0]

# By address: the kind of use that `allow` accepts, and what the refusal must contain.
IN_USE = {
    ROOT_DISK: ("storage", ["disk vda: vda is mounted on /"]),
    NETWORK: (
        "network",
        ["network interface eth0 is up with 10.0.2.15", "and this run is connected through it"],
    ),
    # No driver is bound to it. vfio-pci would end the framebuffer until the next boot.
    SCREEN: ("console", ["simplefb"]),
    FIRST: ("group", [f"{SECOND} of the same IOMMU group"]),
    PHYSICAL: ("consumers", [f"its virtual function {ON_VFIO} is bound to vfio-pci"]),
}
# The header of the host bridge's function is that of an ordinary one, and vfio-pci would take it.
BRIDGES = (HOST_BRIDGE, PORT, *SWITCH)
EVERYTHING = ["clock", "console", "consumers", "group", "network", "storage", "watchdog"]

BAD = {
    "pci_address": {
        "00:01.0": "domain",
        "0000:01:00": "function",
        "0000:01:00.*": "patterns",
        "0000:0A:00.0": "lower case",
        "0000:01:00.8": "functions 0 to 7",
        "0000:01:20.0": "devices 00 to 1f",
        "0000:01:00.0\n": "digits",
        "../0000:01:00.0": "digits",
        "": "domain",
    },
    "pci_id": {
        "8086": "two or four parts",
        "8086:10d3:8086": "two or four parts",
        "8086:*": "patterns",
        "8086:10D3": "lower case",
        "8086:10d": "four digits",
        "0x8086:0x10d3": "digits",
    },
}
MISSING = {
    "pci_address": {
        "0000:01:00.1": ETHERNET,
        "0000:09:00.0": "no PCI function",
        "0001:01:00.0": "no PCI function",
        # Of a physical function that has two of its four virtual ones.
        VIRTUAL[3]: PHYSICAL,
    },
    "pci_id": {
        "15b3:101e": "no PCI function",
        f"{ETHERNET_ID}:15b3:0008": ETHERNET,
    },
}


def entries(*addresses: str, policy: str = "vfio") -> list[dict[str, Any]]:
    return [{"pci_address": address, "policy": policy} for address in addresses]


def without(kind: str) -> list[str]:
    """Return all kinds of use but one."""
    return [other for other in EVERYTHING if other != kind]


def of_values(kind: str, values: Sequence[str]) -> list[dict[str, Any]]:
    return [{kind: value, "policy": "vfio"} for value in values]


ASKED: dict[str, dict[str, Any]] = {
    "in use": {"devices": entries(*IN_USE)},
    **{
        address: {"devices": entries(address), "allow": without(kind)}
        for address, (kind, _sentences) in IN_USE.items()
    },
    "bridges": {"devices": entries(*BRIDGES), "allow": EVERYTHING},
    "bridges, no_autobind": {
        "devices": entries(*BRIDGES, policy="no_autobind"),
        "allow": EVERYTHING,
    },
    "bridge by its node": {
        "devices": [{"dt_path": PORT_NODE, "policy": "vfio"}],
        "allow": EVERYTHING,
    },
    "all behind the host bridge": {
        "devices": [{"dt_path": "/pcie@10000000", "policy": "no_autobind"}]
    },
    **{f"bad {kind}": {"devices": of_values(kind, [*values])} for kind, values in BAD.items()},
    **{
        f"missing {kind}": {"devices": of_values(kind, [*values])}
        for kind, values in MISSING.items()
    },
    "another card": {"devices": [{"pci_address": DISK, "pci_id": ETHERNET_ID, "policy": "vfio"}]},
    "a tag of many": {"devices": [{"pci_id": NVME_ID, "policy": "vfio", "tag": "disk"}]},
}
# What is asked in make test, too.
OFTEN = ("in use", "bridges", "bridge by its node", "all behind the host bridge", "another card")
# Not refused, and therefore not done either.
CHECKED = {"in use": ASKED["in use"], "both of a group": {"devices": entries(FIRST, SECOND)}}


class Answers(NamedTuple):
    """The answers to what is asked, and the guest before and after."""

    run: dict[str, TaskResult]
    checked: dict[str, TaskResult]
    before: State
    after: State


@pytest.fixture(scope="module")
def virtual_functions(guest: Guest) -> Iterator[None]:
    create_virtual_functions(guest, 2)
    bind_to_vfio(guest, ON_VFIO)
    yield
    remove_virtual_functions(guest)


@pytest.fixture(scope="module")
def answers(
    guest: Guest,
    inventory: Path,
    depth: str,
    virtual_functions: None,  # noqa: ARG001 (makes them)
) -> Answers:
    """Ask for everything in one play, and check in another."""
    before = state(guest)
    whole = ASKED if depth == "nightly" else {name: ASKED[name] for name in OFTEN}
    tasks = refused(inventory, [("host_policy", options) for options in whole.values()])
    asked = [("armfleet.vfio.host_policy", options) for options in CHECKED.values()]
    checked = play(inventory, refused_tasks_play(asked), "--check")
    assert "Traceback" not in checked.output
    return Answers(
        dict(zip(whole, tasks, strict=True)),
        dict(zip(CHECKED, checked.tasks, strict=True)),
        before,
        # Read over ssh, which shows that the network works as well.
        state(guest),
    )


def lines_about(address: str, message: str) -> list[str]:
    """Return the lines that begin with the function, or with its node."""
    starts = re.compile(rf"(/\S+ \()?pci device {address}\b")
    return [line for line in message.splitlines() if starts.match(line)]


def assert_reported(address: str, message: str) -> None:
    kind, sentences = IN_USE[address]
    for sentence in sentences:
        (line,) = [line for line in lines_about(address, message) if sentence in line]
        assert f"add '{kind}' to `allow`" in line


def test_nothing_changed(answers: Answers) -> None:
    assert answers.after == answers.before


@pytest.mark.nightly
@pytest.mark.parametrize("address", IN_USE)
def test_a_function_in_use_is_refused_whatever_else_is_allowed(
    answers: Answers, address: str
) -> None:
    assert_reported(address, answers.run[address].refusal)


def test_all_functions_in_use_are_refused_at_once_and_a_check_says_the_same(
    answers: Answers,
) -> None:
    message = answers.run["in use"].refusal
    for address in IN_USE:
        assert_reported(address, message)
    assert answers.checked["in use"].refusal == message


def test_both_functions_of_a_group_are_accepted(answers: Answers) -> None:
    assert answers.checked["both of a group"].status == "ok", answers.checked["both of a group"]


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize(
    "asked", ["bridges", pytest.param("bridges, no_autobind", marks=pytest.mark.nightly)]
)
def test_bridges_are_never_taken_whatever_is_allowed(
    answers: Answers, asked: str, bridge: str
) -> None:
    (line,) = lines_about(bridge, answers.run[asked].refusal)
    assert "bridge" in line


def test_a_bridge_is_not_taken_by_its_node_either(answers: Answers) -> None:
    (line,) = lines_about(PORT, answers.run["bridge by its node"].refusal)
    assert "bridge" in line


def test_the_platform_device_of_the_host_bridge_is_in_use_as_all_behind_it(
    answers: Answers,
) -> None:
    message = answers.run["all behind the host bridge"].refusal
    for address in (ROOT_DISK, NETWORK):
        for sentence in IN_USE[address][1]:
            assert sentence in message


@pytest.mark.nightly
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_each(answers: Answers, kind: str) -> None:
    lines = answers.run[f"bad {kind}"].refusal.splitlines()
    assert len(lines) == len(BAD[kind])
    for line, (value, part) in zip(lines, BAD[kind].items(), strict=True):
        assert line.startswith(f"{kind} {value!r} ")
        assert part in line


@pytest.mark.nightly
@pytest.mark.parametrize("kind", MISSING)
def test_a_function_that_is_not_there_is_one_sentence_each(answers: Answers, kind: str) -> None:
    lines = answers.run[f"missing {kind}"].refusal.splitlines()
    assert len(lines) == len(MISSING[kind])
    for line, (value, part) in zip(lines, MISSING[kind].items(), strict=True):
        assert f"{kind} {value!r}" in line
        assert part in line


def test_another_card_at_the_address_is_an_error(answers: Answers) -> None:
    (line,) = answers.run["another card"].refusal.splitlines()
    for part in (DISK, ETHERNET_ID, NVME_WHOLE_ID):
        assert part in line


@pytest.mark.nightly
def test_a_tag_is_that_of_one_function(answers: Answers) -> None:
    message = answers.run["a tag of many"].refusal
    assert message.startswith("Tag disk must identify one device")
    assert FIRST in message
