# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and lists of candidates are rendered from the answers of hosts."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from board import Board
from simulated_kernel import Driver
from test_samples import sample_board, supported

from ansible_collections.armfleet.vfio.plugins.filter.candidates import candidates
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info
from ansible_collections.armfleet.vfio.plugins.plugin_utils import _candidates
from ansible_collections.armfleet.vfio.plugins.plugin_utils._candidates import WIDTH


@pytest.fixture
def answer(board: Board) -> dict[str, Any]:
    """Return the result of device_info on a board with two engines that are not in use."""
    (board.files_root / "boot").mkdir(exist_ok=True)
    board.kernel.register(Driver("acme-eth", compatible=("acme,eth",)))
    return device_info.without_nulls(device_info.inspections(board.inspect(None)))


def lines(results: Mapping[str, Any], **options: Any) -> list[str]:
    hostvars = {host: {"result": result} for host, result in results.items()}
    rendered: list[str] = candidates(list(results), hostvars, "result", **options)["lines"]
    return rendered


def policy_list(rendered: list[str]) -> dict[str, Any]:
    """Return the parsed lines that a user copies into a list."""
    start = next(number for number, line in enumerate(rendered) if line.startswith("# For "))
    pasted: dict[str, Any] = yaml.safe_load("\n".join(rendered[start:]))
    return pasted


def rows(rendered: list[str]) -> dict[str, str]:
    """Return the verdict of each row by its selector."""
    split = [line.split() for line in rendered]
    return {words[1]: words[0] for words in split if words and words[0] in ("yes", "no")}


def test_candidates_come_first_and_others_with_their_reason(answer: dict[str, Any]) -> None:
    rendered = lines({"board-1": answer})
    assert rendered[0] == "board-1 (acme,board): 4 of 7 devices can be bound to VFIO"
    verdicts = rows(rendered)
    assert list(verdicts.values()) == ["yes"] * 4 + ["no"] * 3
    assert verdicts["crypto0"] == "yes"
    (dma,) = [line for line in rendered if "/soc/dma@b002000" in line]
    assert dma.endswith("no IOMMU group")
    assert max(map(len, rendered)) <= WIDTH


def test_the_list_is_yaml_that_names_the_devices_and_what_they_need(
    answer: dict[str, Any],
) -> None:
    assert policy_list(lines({"board-1": answer})) == {
        "passthrough_reset_required": False,
        "passthrough_devices": [
            {"compatible": "acme,crypto-v1", "expect": 2, "policy": "vfio"},
            {"dt_path": "/soc/ethernet@e0700000", "policy": "vfio"},
            {"dt_path": "/soc/blob@b008000", "policy": "vfio"},
        ],
    }


def test_texts_that_ansible_marks_are_plain_in_the_list(answer: dict[str, Any]) -> None:
    class Marked(str):
        __slots__ = ()

    for device in answer["devices"]:
        device["entry"] = {key: Marked(value) for key, value in device["entry"].items()}
        device["compatible"] = list(map(Marked, device["compatible"]))
    assert len(policy_list(lines({"board-1": answer}))["passthrough_devices"]) == 3


def test_a_compatible_of_which_one_device_is_in_use_is_listed_by_path(
    answer: dict[str, Any],
) -> None:
    (other,) = [device for device in answer["devices"] if device["name"] == "b001000.crypto"]
    other.update(candidate=False, why_not=[{"kind": "network", "message": "in use: eth0 is up"}])
    listed = policy_list(lines({"board-1": answer}))["passthrough_devices"]
    assert listed[0] == {"dt_path": "crypto0", "policy": "vfio"}


def test_the_last_applied_list_is_kept_since_a_list_is_the_whole_truth(board: Board) -> None:
    board.apply([{"dt_path": "/soc/crypto@b000000", "policy": "vfio"}], reset_required=False)
    answer = device_info.inspections(board.inspect(None))
    listed = policy_list(lines({"board-1": answer}))["passthrough_devices"]
    assert {"dt_path": "/soc/crypto@b000000", "policy": "vfio"} in listed
    assert {"dt_path": "crypto0", "policy": "vfio"} not in listed


def test_hosts_of_one_board_share_a_table_and_differences_name_the_host(
    answer: dict[str, Any],
) -> None:
    differing = copy.deepcopy(answer)
    differing["devices"][0].update(
        candidate=False, why_not=[{"kind": "network", "message": "in use: eth0 is up"}]
    )
    rendered = lines({"board-1": answer, "board-2": differing, "board-3": answer})
    assert rendered[0].startswith("board-1, board-2, board-3 (acme,board): 3 of 7")
    (crypto,) = [line for line in rendered if " crypto0 " in line]
    assert crypto.startswith("no")
    assert crypto.endswith("in use: eth0 is up (board-2)")


def test_only_what_is_asked_for_is_shown_and_counts_stay_those_of_the_board(
    answer: dict[str, Any],
) -> None:
    assert set(rows(lines({"board-1": answer}, only=["CRYPTO"]))) == {
        "crypto0",
        "/soc/crypto@b001000",
    }
    alone = policy_list(lines({"board-1": answer}, only=["b000000"]))["passthrough_devices"]
    assert alone == [{"dt_path": "crypto0", "policy": "vfio"}]
    assert set(rows(lines({"board-1": answer}, only="dma, keys"))) == {
        "/soc/dma@b002000",
        "dma1",
        "/soc/keys",
    }
    assert "No device matches candidates_only." in lines({"board-1": answer}, only=["nothing"])


def test_devices_without_an_iommu_are_shown_how_to_be_included(answer: dict[str, Any]) -> None:
    answer["vfio_support"]["noiommu"] = True
    (advice,) = [line for line in lines({"board-1": answer}) if "candidates_unsafe" in line]
    assert advice.startswith("2 devices lack only an IOMMU.")
    listed = policy_list(lines({"board-1": answer}, unsafe_noiommu=True))
    assert listed["passthrough_unsafe_noiommu"] is True
    assert {"compatible": "acme,dma", "expect": 2, "policy": "vfio"} in listed[
        "passthrough_devices"
    ]


def test_where_it_is_unknown_whether_vfio_does_without_an_iommu_a_run_finds_out(
    answer: dict[str, Any],
) -> None:
    answer["vfio_support"]["noiommu"] = None
    assert any("candidates_unsafe" in line for line in lines({"board-1": answer}))
    assert rows(lines({"board-1": answer}, unsafe_noiommu=True))["/soc/dma@b002000"] == "yes"


OPTION = "#passthrough_unsafe_interrupts: true"


def test_the_choice_of_unsafe_interrupts_is_left_to_the_user(answer: dict[str, Any]) -> None:
    rendered = lines({"board-1": answer})
    number = rendered.index(OPTION)
    assert rendered[number - 1].endswith("remove the first character of the next line.")
    assert "passthrough_unsafe_interrupts" not in policy_list(rendered)
    chosen = [line[1:] if line == OPTION else line for line in rendered]
    assert policy_list(chosen)["passthrough_unsafe_interrupts"] is True


@pytest.mark.parametrize(("isolated", "is_said"), [(True, False), (None, True)])
def test_of_isolated_interrupts_nothing_is_said(
    answer: dict[str, Any], isolated: bool | None, is_said: bool
) -> None:
    for device in answer["devices"]:
        device["isolated_interrupts"] = isolated
        device["settings"].pop("unsafe_interrupts", None)
    rendered = lines({"board-1": answer})
    assert OPTION not in rendered
    assert any("If user space gets EPERM" in line for line in rendered) is is_said


def test_a_long_selector_has_a_line_of_its_own(answer: dict[str, Any]) -> None:
    path = "/bus@8000000/motherboard-bus@8000000/iofpga-bus@300000000/led@8,0"
    answer["devices"][2]["entry"] = {"dt_path": path}
    rendered = lines({"board-1": answer})
    number = rendered.index("no    " + path)
    assert rendered[number + 1].split(maxsplit=3)[3] == "no IOMMU group"


def test_a_kernel_without_noiommu_is_not_talked_into_it(answer: dict[str, Any]) -> None:
    answer["vfio_support"]["noiommu"] = False
    rendered = lines({"board-1": answer}, unsafe_noiommu=True)
    assert rows(rendered)["/soc/dma@b002000"] == "no"
    assert not any("candidates_unsafe" in line for line in rendered)


def test_a_host_that_cannot_be_read_is_a_line(answer: dict[str, Any]) -> None:
    unreachable = {"unreachable": True, "msg": "ssh: connect to host x port 22: timed out"}
    rendered = lines({"board-1": answer, "gone": unreachable, "skipped": None})
    assert any(line.startswith("gone: It cannot be reached: ") for line in rendered)
    assert "skipped: It was not read: the run ended before it or skipped it." in rendered


def test_an_unprivileged_answer_is_no_promise(answer: dict[str, Any]) -> None:
    del answer["devices"][0]["candidate"]
    (crypto,) = [line for line in lines({"board-1": answer}) if " crypto0 " in line]
    assert crypto.startswith("no")
    assert "unknown: it was read without root" in crypto


def test_get_started_shows_the_output(tmp_path: Path) -> None:
    """The page has the output for the samples' board, on a host that meets VFIO's requirements."""
    board = sample_board(tmp_path)
    rendered = lines({"board-1": supported(board)})
    page = (Path(__file__).parents[3] / "docs/get-started.md").read_text()
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert shown.splitlines() == rendered[:-1], "\n".join(rendered)


HOSTILE = "\x1b[2J\n- hosts: localhost #{{ lookup('pipe', 'id') }}\u202e"


def test_a_hosts_texts_neither_leave_their_line_nor_their_yaml(answer: dict[str, Any]) -> None:
    """A host may answer with terminal escapes, a play and a template."""
    for device in answer["devices"]:
        device.update(driver=HOSTILE)
        device["compatible"] = [HOSTILE]
        device["why_not"] = [{"kind": HOSTILE, "message": HOSTILE}] * (not device["candidate"])
    answer["board"]["compatible"] = [HOSTILE]
    rendered = lines({"board-1": answer})
    assert all(line.isprintable() for line in rendered)
    pasted = policy_list(rendered)
    assert set(pasted) == {"passthrough_reset_required", "passthrough_devices"}
    assert [set(entry) for entry in pasted["passthrough_devices"]] == [{"dt_path", "policy"}] * 4


@pytest.mark.parametrize(
    "selector",
    [
        *(
            {"dt_path": HOSTILE},
            {"dt_path": "/soc/{{ 7 * 7 }}"},
            {"name": "{% if 1 %}x{% endif %}"},
        ),
        *({"dt_path": 1}, {"dt_path": ["/soc"]}, {"dt_path": "/x", "compatible": "x"}, {}),
        *({"name": "x", "bus": "{{ 7 * 7 }}"}, {"compatible": "x", "bus": "platform"}),
    ],
)
def test_a_selector_that_no_module_accepts_is_not_in_the_list(
    answer: dict[str, Any], selector: dict[str, Any]
) -> None:
    """Variables of the inventory, into which the list is pasted, are templates."""
    able = [device for device in answer["devices"] if device["candidate"]]
    for device in able:
        device.update(entry={**selector, "policy": "vfio"}, compatible=["{{ 7 * 7 }}"])
    rendered = lines({"board-1": answer})
    assert rows(rendered)
    assert not [line for line in rendered if line.startswith("# For ")]


def test_a_host_suggests_no_entry_but_of_a_device_and_vfio(answer: dict[str, Any]) -> None:
    entry = {"dt_path": "/soc/x", "policy": "driver", "driver": "acme", "when_board": "other"}
    answer["devices"][0]["entry"] = entry
    listed = policy_list(lines({"board-1": answer}, only=["b000000"]))["passthrough_devices"]
    assert listed == [{"dt_path": "/soc/x", "policy": "vfio"}]


@pytest.mark.parametrize("key", ["devices", "vfio_support", "board"])
def test_a_malformed_answer_is_that_hosts_failure_alone(answer: dict[str, Any], key: str) -> None:
    rendered = lines({"bad": {**answer, key: "x"}, "board-1": answer})
    assert any(line.startswith("bad: Its devices cannot be read: ") for line in rendered)
    assert rows(rendered)["crypto0"] == "yes"


def test_programs_get_why_a_host_was_not_read() -> None:
    message = "It was not read: the run ended before it or skipped it."
    data = _candidates.data(*_candidates.tables({"gone": None}))
    assert data == {"boards": [], "unread": [{"host": "gone", "message": message}]}


def test_programs_get_the_same(answer: dict[str, Any]) -> None:
    boards, unread = _candidates.tables({"board-1": answer, "gone": None})
    data = _candidates.data(boards, unread)
    (board,) = data["boards"]
    assert (board["hosts"], data["unread"][0]["host"]) == (["board-1"], "gone")
    crypto = board["devices"][0]
    assert crypto["entry"] == {"dt_path": "crypto0", "policy": "vfio"}
    assert crypto["candidate"] is True
    assert crypto["settings"] == {"reset_required": False, "unsafe_interrupts": True}
    assert crypto["isolated_interrupts"] is False


def test_names_of_the_kernel_and_of_boards_are_shown_and_pasted_as_they_are(
    answer: dict[str, Any],
) -> None:
    answer = copy.deepcopy(answer)
    able = [device for device in answer["devices"] if device.get("candidate")]
    odd = [
        {"name": "Fixed MDIO bus.0", "bus": "platform"},
        {"name": "a!b: #c", "bus": "platform"},
        {"acpi_hid": "ACME0001", "acpi_uid": "010"},
        {"acpi_hid": "ACME0001", "acpi_uid": "CPU 0"},
    ]
    for device, entry in zip(able, odd, strict=True):
        device.update(entry=entry, compatible=[], acpi_hid=entry.get("acpi_hid"))
    name = 'ProLiant™ [Gen10] "x"'
    answer["board"] = {"compatible": [], "product_name": name, "board_name": None}
    rendered = lines({"board-1": answer})
    assert rendered[0].startswith(f"board-1 ({name}): 4 of 7 devices")
    pasted = policy_list(rendered)["passthrough_devices"]
    assert pasted == [{**entry, "policy": "vfio"} for entry in odd]
    table = "\n".join(rendered)
    for selector in ("Fixed MDIO bus.0", "a!b: #c", "ACME0001, acpi_uid 010"):
        assert f"yes   {selector} " in table


@pytest.mark.parametrize("nasty", ["{{ x }}", "{% x %}", "a\nb", "a*b", "x\x1b[1m"])
def test_a_name_that_is_no_data_is_never_suggested(answer: dict[str, Any], nasty: str) -> None:
    answer = copy.deepcopy(answer)
    for device in answer["devices"]:
        device.update(entry={"name": nasty, "bus": "platform"}, compatible=[])
    assert not any(line.startswith("# For ") for line in lines({"board-1": answer}))
    for device in answer["devices"]:
        device.update(entry={"acpi_hid": "ACME0001", "acpi_uid": nasty})
    assert not any(line.startswith("# For ") for line in lines({"board-1": answer}))
