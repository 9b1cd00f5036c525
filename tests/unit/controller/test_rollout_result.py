# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The message for a host of a rollout comes from the results that its tasks registered."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._rollout_result import (
    not_started,
    rollout_state,
    table,
)

BINDING = {"driver": "vfio-platform", "driver_override": "vfio-platform"}
NATIVE = {"driver": "acme", "driver_override": None}


def device(name: str, *drift: str, **more: Any) -> Any:
    return {
        "name": name,
        "bus": "platform",
        "dt_path": f"/soc/{name}",
        "acpi_path": None,
        "compatible": [],
        **BINDING,
        "desired": BINDING,
        "next_boot": {**BINDING, "known": True, "reason": "policy vfio"},
        "drift": list(drift),
        "in_use_by": [],
        **more,
    }


def info(*devices: Any, **more: Any) -> dict[str, Any]:
    return {"devices": list(devices), "policy_list": [{"dt_path": "/x"}], **more}


def result_of(applied: Any, checked: Any = None, failure: Any = None, unchanged: Any = None) -> Any:
    state = rollout_state("board", 2, applied, checked, failure, unchanged)
    assert (state["host"], state["wave"]) == ("board", 2)
    return state["outcome"], state["message"]


@pytest.mark.parametrize(
    ("applied", "checked", "failure", "outcome", "words"),
    [
        ({"changed": True}, info(device("a")), None, "changed", "is in sync: one device"),
        ({"changed": False}, info(device("a"), device("b")), None, "unchanged", "in sync: 2 dev"),
        ({"changed": True}, None, None, "changed", "check mode"),
        ({"changed": True}, info(), None, "changed", "No device of it is in a list"),
        (
            {"changed": True},
            info(device("a", "its driver is gone", **NATIVE)),
            None,
            "failed",
            "/soc/a is not in sync: its driver is gone",
        ),
        (
            {"changed": True},
            info(device("a"), device("b", "set by hand", desired=None)),
            None,
            "changed",
            "is in sync: one device",
        ),
        (
            {"changed": True},
            info(device("a"), boot_files=[{"drift": []}, {"drift": ["/etc is nobody's"]}]),
            None,
            "failed",
            "/etc is nobody's",
        ),
        (
            {"changed": True},
            info(device("a", "a boot brings it"), reboot_required=True),
            None,
            "changed",
            "Reboot it to finish",
        ),
        ({"failed": True, "msg": "b: no group"}, None, {"task": "x"}, "failed", "b: no group"),
        (
            {"unreachable": True, "msg": "ssh: connect: Connection refused"},
            None,
            {"task": "x", "msg": "undefined"},
            "unreachable",
            "It cannot be reached: ",
        ),
        (
            {"changed": True},
            {"unreachable": True, "msg": "ssh: connect: Connection refused"},
            None,
            "unreachable",
            "It was changed, and does not answer anymore: ",
        ),
        (
            {"changed": True},
            None,
            {"task": "Rebuild the initramfs", "msg": "non-zero return code"},
            "failed",
            "Rebuild the initramfs: non-zero return code",
        ),
        (None, None, {"task": "Validate", "msg": "missing"}, "failed", "Validate: missing"),
    ],
)
def test_an_outcome_has_a_sentence(
    applied: Any, checked: Any, failure: Any, outcome: str, words: str
) -> None:
    actual, sentence = result_of(applied, checked, failure)
    assert actual == outcome
    assert words in sentence
    assert "\n" not in sentence


def test_a_host_that_was_left_alone_has_a_sentence_of_its_own() -> None:
    arguments = ({"changed": False}, info(device("a", "drifts")), None, "No reboot was required.")
    assert result_of(*arguments) == ("unchanged", "No reboot was required.")


def test_a_table_has_what_stops_a_rollout_first_and_its_columns_in_line() -> None:
    good = rollout_state("a-long-name", 1, {"changed": True}, info(device("a")), None, None)
    bad = rollout_state("b", 12, {"failed": True, "msg": "broken"}, None, None, None)
    header, *lines = table([good, not_started("c"), bad])
    assert [line.split()[0] for line in lines] == ["b", "a-long-name", "c"]
    starts = [header.index(word) for word in ("WAVE", "OUTCOME", "DETAILS")]
    assert [lines[0][start:].split()[0] for start in starts] == ["12", "failed", "broken."]
    assert lines[2].split() == ["c", "-", "not", "started"]
