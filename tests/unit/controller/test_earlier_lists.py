# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second list for a host in a play is refused, and in a run reported; the same one is neither."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils._earlier_lists import (
    KEY,
    Application,
    application,
    earlier,
    refusal,
    to_result,
    warning,
)

NET = {"dt_path": "/net@1000", "policy": "vfio"}
DMA = {"policy": "no_autobind", "dt_path": "/dma@2000"}


def applied(*devices: Any, play: str = "p", host: str = "board", **options: Any) -> Any:
    return application({"devices": list(devices), **options}, play, host)


def verdict(now: Any, before: Any) -> str:
    if refusal(now, before):
        return "refused"
    return "warned" if warning(now, before) else ""


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (applied(NET), applied(DMA), "refused"),
        (applied(NET), applied(NET, DMA), "refused"),
        (applied(NET), applied(), "refused"),
        (applied(), applied(NET), "refused"),
        (applied(NET), applied(NET, vfio_mode="0660"), "refused"),
        (applied(NET), applied({**NET, "when_board": "x"}), "refused"),
        (applied(NET), applied(NET), ""),
        (applied(NET, DMA), applied(DMA, NET), "refused"),
        (applied(NET, DMA), applied(dict(reversed(NET.items())), DMA), ""),
        (applied(), applied(reset_required=False), ""),
        (applied(NET), applied(NET, allow=["group"], timeout=5, rollout="x", plan="y"), ""),
        (applied(NET), applied(DMA, host="other"), ""),
        (applied(NET), applied(DMA, play="q"), "warned"),
        (applied(NET), applied(NET, play="q"), ""),
        (applied(NET), applied(play="q"), ""),
        (applied(), applied(NET, play="q"), ""),
        (applied(NET), applied(DMA, play="q", host="other"), ""),
        (None, applied(NET), ""),
        (applied(NET), None, ""),
    ],
)
def test_a_list_that_replaces_another_one_of_its_play_is_refused(
    before: Any, now: Any, expected: str
) -> None:
    assert verdict(now, before) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"state": "absent"},
        {"state": "previous", "rollout": "x"},
        {"state": "finished", "rollout": "x"},
        {"persistent": False},
        {"persistent": "no"},
        {"devices": "text"},
    ],
)
def test_what_keeps_no_list_is_not_compared(options: dict[str, Any]) -> None:
    assert application({"devices": [NET], **options}, "p", "board") is None


def test_a_refusal_names_the_host_and_what_to_do() -> None:
    sentence = refusal(applied(DMA), applied(NET))
    assert sentence is not None
    assert "has applied another list or other options to board already" in sentence
    assert "Merge both into one list in `devices`, and apply it once" in sentence
    replaced = warning(applied(DMA, play="q"), applied(NET))
    assert replaced is not None
    assert replaced.startswith("An earlier play of this run has applied another list or other ")


def test_what_a_result_has_is_read_back() -> None:
    done = applied(NET)
    assert earlier({"changed": True, KEY: done._asdict()}) == done


def test_a_result_has_these_keys_of_a_list() -> None:
    done = Application("p", "board", digest="0a", is_empty=False)
    content = {"play": "p", "host": "board", "digest": "0a", "is_empty": False}
    assert to_result(done) == {"application": content}
    assert earlier(to_result(done)) == done
    assert earlier({"application": {**content, "more": 1}}) is None
    assert to_result(None) == {}


@pytest.mark.parametrize(
    "result", [None, "", {}, {KEY: None}, {KEY: "x"}, {KEY: {"play": "p"}}, {"skipped": True}]
)
def test_a_result_without_a_list_has_none(result: Any) -> None:
    assert earlier(result) is None


def test_a_list_with_texts_that_are_no_utf_8_is_compared() -> None:
    odd = {"name": "\ud800", "policy": "vfio"}
    assert isinstance(applied(odd), Application)
