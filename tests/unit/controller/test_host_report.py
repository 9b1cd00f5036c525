# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's row of the report comes from the result of device_info, or from its failure."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.armfleet.vfio.plugins.filter import host_state as filter_of_host_state
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import Findings
from ansible_collections.armfleet.vfio.plugins.plugin_utils._host_report import STATES, host_state
from tests.unit.controller.test_documentation import ENTRY, INSPECTION

VFIO = {"driver": "vfio-platform", "driver_override": "vfio-platform"}
TRACEBACK = """\
Traceback (most recent call last):
  File "/root/.ansible/tmp/x/AnsiballZ_device_info.py", line 107, in <module>
    main()
OSError: [Errno 28] No space left on device: '/run/armfleet'
"""
HOST_KEY = """\
Failed to connect to the host via ssh: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Host key verification failed.
"""


def device(name: str = "b000000.crypto", **different: Any) -> dict[str, Any]:
    """Return the keys of a device in device_info's result that the report reads."""
    return {
        "name": name,
        "bus": "platform",
        "dt_path": "/soc/" + "@".join(reversed(name.split("."))),
        "acpi_path": None,
        "compatible": ["acme,crypto"],
        "driver": "vfio-platform",
        "driver_override": "vfio-platform",
        "desired": VFIO,
        "next_boot": {
            **VFIO,
            "known": True,
            "reason": "policy vfio of the last-applied configuration",
        },
        "drift": [],
        "in_use_by": [],
        **different,
    }


def read(*devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"changed": False, "devices": list(devices), "policy_list": [{"policy": "vfio"}], **more}


DRIFTING = device(driver="acme-crypto", drift=["it is bound to acme-crypto, but the list ..."])
OVERRIDDEN = device(drift=["another rule may set another override"])
KEPT = {
    **DRIFTING,
    "next_boot": {"driver": "acme", "driver_override": None, "known": True, "reason": "built in"},
}
LOSING = device(
    "c.dma",
    drift=["the next boot unbinds it from acme-dma, but disk vda: vda is mounted on /"],
    lost_at_boot=[{"kind": "storage", "accepted": False}],
)
NATIVE = {"driver": "acme-crypto", "driver_override": None, "desired": None}
ABLE = device(**NATIVE, candidate=True, why_not=[], entry={"dt_path": "/soc/crypto@b000000"})
UNABLE = device(
    **NATIVE, candidate=False, why_not=[{"kind": "no_iommu_group", "message": "no IOMMU group"}]
)
ACCEPTED = {**DRIFTING, "lost_at_boot": [{"kind": "storage", "accepted": True}]}


EMPTY = "/etc/modules-load.d/armfleet-vfio.conf is empty"


def damaged(*sentences: str) -> dict[str, Any]:
    files = [
        {"path": "/etc/udev/rules.d/70-armfleet-vfio.rules", "state": "present", "drift": None},
        {"path": "/etc/modprobe.d/armfleet-vfio.conf", "state": "present", "drift": []},
        {"path": "/etc/x", "state": "present", "drift": list(sentences)},
    ]
    return {"boot_files": files}


DAMAGED = "/var/lib/armfleet-vfio/previous.json is damaged"


@pytest.mark.parametrize("more", [{}, {"warnings": [DAMAGED]}, {"rollouts_problem": None}])
def test_a_history_of_an_earlier_version_is_a_note_without_a_reason(more: dict[str, Any]) -> None:
    state = host_state("board", read(device(), rollouts=None, **more))
    assert state["notes"] == ["Its history cannot be read: device_info warns why."]


@pytest.mark.parametrize(
    ("reason", "shown"), [(DAMAGED, DAMAGED), ("\x1b[31m\nlocked", r"\x1b[31m\nlocked")]
)
def test_the_reason_that_device_info_returns_is_in_the_note(reason: str, shown: str) -> None:
    state = host_state("board", read(device(), rollouts=None, rollouts_problem=reason))
    assert state["notes"] == [f"Its history cannot be read: {shown}."]


def test_a_reason_that_is_no_text_is_malformed() -> None:
    state = host_state("board", read(device(), rollouts=None, rollouts_problem=[1]))
    assert (state["state"], state["notes"]) == ("failed", [])
    assert "rollouts_problem is not a string" in state["message"]


USE = {"kind": "network", "subject": "eth0", "message": "network interface eth0 is up"}


@pytest.mark.parametrize(
    ("obstacle", "shown"),
    [
        # The message does not matter.
        ({"kind": "network", "subject": "eth0", "message": "it is up"}, ("in_use", "in use")),
        ({"kind": "network", "subject": "eth1", "message": "it is up"}, ("network", "it is up")),
        ({"kind": "console", "subject": "eth0", "message": "it is up"}, ("console", "it is up")),
        # As an earlier version returns it.
        (
            {"kind": "network", "message": "in use: network interface eth0 is up"},
            ("network", "in use: network interface eth0 is up"),
        ),
    ],
)
def test_a_use_is_an_obstacle_without_its_message(
    obstacle: dict[str, str], shown: tuple[str, str]
) -> None:
    returned = device(in_use_by=[USE], candidate=False, why_not=[obstacle])
    (state,) = host_state("board", read(returned))["devices"]
    assert [tuple(reason.values()) for reason in state["why_not"]] == [shown]
    assert state["in_use_by"] == [{"kind": USE["kind"], "message": USE["message"]}]


@pytest.mark.parametrize(
    ("returned", "in_drift"),
    [({}, False), ({"in_drift": False}, False), ({"in_drift": True}, True)],
)
def test_an_earlier_version_does_not_return_whether_the_next_boot_is_in_the_drift(
    returned: dict[str, bool], in_drift: bool
) -> None:
    after = {**VFIO, "known": True, "reason": "policy vfio"}
    (state,) = host_state("board", read(device(next_boot={**after, **returned})))["devices"]
    assert state["next_boot"] == {**after, "in_drift": in_drift}


def test_a_use_without_a_subject_is_no_other_obstacle() -> None:
    use = {"kind": "other", "message": "in use"}
    obstacle = {"kind": "other", "message": "no driver"}
    returned = device(in_use_by=[use], candidate=False, why_not=[obstacle])
    (state,) = host_state("board", read(returned))["devices"]
    assert state["why_not"] == [obstacle]


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        (read(device(), **damaged(EMPTY)), "drift", f"{EMPTY}. Apply its list again"),
        (
            read(device(), **damaged(EMPTY, "x")),
            "drift",
            "Boot files have one more difference",
        ),
        (read(DRIFTING, **damaged(EMPTY)), "drift", f"{EMPTY}. One device has drift as well."),
        (
            read(DRIFTING, device(), DRIFTING, **damaged(EMPTY)),
            "drift",
            "2 devices have drift as well.",
        ),
        (read(policy_list=[], **damaged(EMPTY)), "drift", EMPTY),
        (read(device(), reboot_required=True, **damaged(EMPTY)), "drift", EMPTY),
        (
            read(device(), reboot_required=True, **damaged()),
            "reboot_required",
            "Reboot it to finish",
        ),
        (read(device(), **damaged()), "in_sync", "in sync"),
        (read(device()), "in_sync", "One device of its list is in sync"),
        (read(device(), device("c.dma")), "in_sync", "2 devices of its list are in sync"),
        (
            read(device(desired=None), policy_list=[]),
            "unmanaged",
            "No list is applied to it. The next boot will not change its one device.",
        ),
        (
            read(ABLE, UNABLE, UNABLE, policy_list=[]),
            "unmanaged",
            "No list is applied to it. One of its 3 devices can be bound to VFIO.",
        ),
        (
            read(UNABLE, UNABLE, policy_list=[]),
            "unmanaged",
            "None of its 2 devices can be bound to VFIO: no IOMMU group (2 devices).",
        ),
        (
            read(UNABLE, policy_list=[], vfio_support={"missing": ["No IOMMU is active"]}),
            "unmanaged",
            "None of its one device can be bound to VFIO. No IOMMU is active.",
        ),
        (
            read(DRIFTING),
            "drift",
            "/soc/crypto@b000000 is bound to acme-crypto instead of vfio-platform. Apply",
        ),
        (read(OVERRIDDEN), "drift", "/soc/crypto@b000000: another rule may set another override."),
        (
            read({**OVERRIDDEN, "next_boot": KEPT["next_boot"]}),
            "drift",
            "is bound to vfio-platform, but will be bound to acme after the next boot: built in.",
        ),
        (
            read({**DRIFTING, "driver": None, "desired": None}, policy_list=[]),
            "drift",
            "is bound to no driver, but will be bound to vfio-platform after the next boot: policy",
        ),
        (read(DRIFTING), "drift", "Apply its list again, or change the list."),
        (read(KEPT), "drift", "Change the list, or remove what prevents the driver"),
        (read(DRIFTING, DRIFTING), "drift", "The same applies to one more of its devices."),
        (read(*[DRIFTING] * 3), "drift", "The same applies to 2 more of its devices."),
        (read(DRIFTING, policy_list=[]), "drift", "revert the manual change"),
        (read(DRIFTING, reboot_required=True), "reboot_required", "Reboot it to finish"),
        (read(ACCEPTED, reboot_required=True), "reboot_required", "Reboot it to finish"),
        (
            read(DRIFTING, LOSING, reboot_required=True),
            "drift",
            "/soc/dma@c: the next boot unbinds",
        ),
        (
            read(LOSING, LOSING),
            "drift",
            "The same applies to one more of its devices. Do not reboot it until",
        ),
        (read(device(), reboot_required=True), "reboot_required", "which has not happened yet"),
        (read(device(), reboot_required=False), "in_sync", "in sync"),
        (None, "failed", "It was not read"),
        ({}, "failed", "It was not read"),
        ({"failed": True, "msg": "no /sys here"}, "failed", "cannot be read: no /sys here."),
        ({"failed": True}, "failed", "no reason was reported"),
        ({"changed": False}, "failed", "no reason was reported"),
    ],
)
def test_a_host_has_one_state_and_a_sentence(
    result: dict[str, Any] | None, state: str, words: str
) -> None:
    host = host_state("board-7", result)
    assert host["host"] == "board-7"
    assert host["state"] == state
    assert words in host["message"]
    assert state in STATES


@pytest.mark.parametrize(
    ("result", "message", "advice"),
    [
        (
            {
                "unreachable": True,
                "msg": "Task failed: Failed to connect to the host via ssh: Warning: Permanently "
                "added '192.0.2.1' to the list of known hosts.\r\nssh: connect to host 192.0.2.1 "
                "port 22: Connection timed out\r\n",
            },
            "It cannot be reached: connect to host 192.0.2.1 port 22: Connection timed out. ",
            "ansible_host",
        ),
        (
            {"unreachable": True, "msg": HOST_KEY},
            "It cannot be reached: Host key verification failed. ",
            "ssh-keygen -R",
        ),
        (
            {
                "unreachable": True,
                "msg": "Failed to create temporary directory. In some cases, you may have been "
                "able to authenticate. Failed command was: ( umask 77 && mkdir -p x ), exited with "
                "result 1, stderr output: mkdir: cannot create directory 'x': No space left on "
                "device\n",
            },
            "mkdir: cannot create directory 'x': No space left on device. ",
            "Its disk is full",
        ),
        (
            {
                "failed": True,
                "msg": "MODULE FAILURE\nSee stdout/stderr for the exact error",
                "module_stderr": TRACEBACK,
            },
            "cannot be read: OSError: [Errno 28] No space left on device: '/run/armfleet'. ",
            "Its disk is full",
        ),
        (
            {
                "failed": True,
                "msg": "The module failed to execute correctly, you probably need to set the "
                "interpreter.\nSee stdout/stderr for the exact error",
                "module_stderr": "/bin/sh: 1: /usr/bin/python3: not found\n",
                "rc": 127,
            },
            "/usr/bin/python3: not found. ",
            "Install Python 3.8 or later",
        ),
        (
            {"failed": True, "msg": "Task failed: Missing sudo password"},
            "cannot be read: Missing sudo password. ",
            "--ask-become-pass",
        ),
    ],
)
def test_a_host_that_cannot_be_read_gets_one_line_that_tells(
    result: dict[str, Any], message: str, advice: str
) -> None:
    sentence = host_state("board-7", result)["message"]
    assert message in sentence
    assert advice in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence


def test_what_a_device_carries_may_not_be_known() -> None:
    (shown,) = host_state("board-7", read(device(in_use_by=None)))["devices"]
    assert shown["in_use_by"] is None


def test_what_other_kernels_lack_is_a_note_and_no_state() -> None:
    kernels = [{"release": "6.1", "note": "Kernel 6.1 lacks it"}, {"release": "6.2", "note": None}]
    host = host_state("board-7", read(device(), kernels=kernels))
    assert host["state"] == "in_sync"
    assert host["message"].endswith(" Note: Kernel 6.1 lacks it")
    assert host["notes"] == ["Kernel 6.1 lacks it"]


def test_a_message_is_one_line_without_control_characters_and_not_too_long() -> None:
    sentence = host_state("x", {"failed": True, "msg": "a\tb\x1b[31m" + "c" * 5000})["message"]
    assert "a b[31mccc" in sentence
    assert len(sentence) < 400


def test_what_device_info_returns_is_what_is_read_here() -> None:
    host = host_state("board-7", device_info.inspections(Findings([INSPECTION], [ENTRY])))
    (shown,) = host["devices"]
    assert shown["in_use_by"] == [{"kind": "network", "message": "network interface eth0 is up"}]
    assert shown["device"] == "b000000.crypto"
    assert host["state"] == "drift"


def test_the_filter_returns_what_its_documentation_says() -> None:
    described = yaml.safe_load(filter_of_host_state.RETURN)["_value"]["contains"]
    host = host_state("board-7", read(DRIFTING))
    assert set(described) == set(host)
    assert set(described["devices"]["contains"]) == set(host["devices"][0])


def test_the_filter_says_what_it_takes() -> None:
    (apply,) = filter_of_host_state.FilterModule().filters().values()
    assert apply(read(device()), "board-7") == host_state("board-7", read(device()))
    with pytest.raises(AnsibleFilterError, match="registered result"):
        apply("text", "board-7")


def losing_entries(*messages: str) -> dict[str, Any]:
    entries = [{"entry": {}, "former": [], "now": [], "message": text} for text in messages]
    return {"lost_entries": entries}


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        (["a matches nothing. Correct it"], "a matches nothing. Correct it."),
        (
            ["a matches nothing", "b"],
            "a matches nothing. The same applies to one more of its entries.",
        ),
        (["a", "b", "c"], "a. The same applies to 2 more of its entries."),
    ],
)
def test_an_entry_that_matches_nothing_any_more_is_drift(
    messages: list[str], sentence: str
) -> None:
    for more in ({}, {"reboot_required": True}, damaged(EMPTY)):
        host = host_state("board-7", read(device(), **losing_entries(*messages), **more))
        assert host["state"] == "drift"
        assert host["message"] == sentence
        assert host["lost_entries"] == messages


def test_what_the_next_boot_takes_is_more_urgent_than_an_entry_that_matches_nothing() -> None:
    host = host_state("board-7", read(LOSING, **losing_entries("a matches nothing")))
    assert "Do not reboot it" in host["message"]
    assert host["lost_entries"] == ["a matches nothing"]


def test_a_result_without_lost_entries_has_none() -> None:
    assert host_state("board-7", read(device()))["lost_entries"] == []
    assert host_state("board-7", {"unreachable": True, "msg": "x"})["lost_entries"] == []
