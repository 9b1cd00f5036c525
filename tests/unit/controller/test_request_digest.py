# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A request has the same digest if and only if a run would do the same on the same host."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _request_digest
from ansible_collections.armfleet.vfio.plugins.plugin_utils._request_digest import request_digest

POLICY: dict[str, Any] = {"devices": [{"dt_path": "/soc/dma@1", "policy": "vfio"}], "timeout": 9}
INSPECTION = {"candidates": False, "in_use": False}


def policy(**options: Any) -> str | None:
    return request_digest("host_policy", {**POLICY, **options})


def test_the_same_options_in_any_order_have_one_digest() -> None:
    digest = policy()
    assert digest == request_digest("host_policy", dict(reversed(POLICY.items())))
    assert digest
    assert len(digest) == 64


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 8},
        {"devices": []},
        {"devices": [{"dt_path": "/soc/dma@1", "policy": "no_autobind"}]},
        {"state": "absent"},
        {"rollout": "r1"},
        {"plan": "0" * 32},
        {"allow": ["network"]},
    ],
    ids=str,
)
def test_other_options_have_another_digest(options: dict[str, Any]) -> None:
    assert policy(**options) != policy()


def test_another_module_has_another_digest() -> None:
    assert request_digest("device_info", INSPECTION) != request_digest("host_policy", INSPECTION)


def test_a_rollout_that_has_nothing_to_do_is_the_same_by_any_name_and_user() -> None:
    assert policy(rollout="r1", rollout_by="a") == policy(rollout="r2", rollout_by="b")
    assert policy(rollout="r1", state="present") == policy(rollout="r2", state="present")


@pytest.mark.parametrize("state", ["previous", "finished", "absent"])
def test_what_concerns_one_rollout_has_its_name(state: str) -> None:
    assert policy(rollout="r1", state=state) != policy(rollout="r2", state=state)


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "r1\n", None, 1, ["r1"]])
def test_a_name_that_is_refused_is_not_one_that_is_not(name: object) -> None:
    assert policy(rollout=name) != policy(rollout="r1")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("device_info", {}),
        ("device_info", {"candidates": False}),
        ("device_info", {"candidates": True, "in_use": False}),
        ("device_info", {"candidates": "no", "in_use": "no"}),
        ("initramfs", {}),
        ("vfio_binding", {"devices": []}),
        ("last_answer", {"request_digest": "0" * 64}),
    ],
)
def test_what_no_host_keeps_has_no_digest(module: str, options: dict[str, Any]) -> None:
    assert request_digest(module, options) is None


@pytest.mark.parametrize("value", [{1, 2}, object(), {1: 2, "b": 3}, b"x"], ids=str)
def test_options_that_no_json_has_have_no_digest(value: object) -> None:
    assert policy(devices=value) is None


def test_any_other_code_has_another_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def digest() -> str | None:
        _request_digest.code_digest.cache_clear()
        return policy()

    plugins = tmp_path / "plugins"
    for name in ("modules", "module_utils"):
        shutil.copytree(_request_digest._PLUGINS / name, plugins / name)
    before = digest()
    monkeypatch.setattr(_request_digest, "_PLUGINS", plugins)
    assert digest() == before
    path = plugins / "module_utils/_boot/udev_rules.py"
    path.write_bytes(path.read_bytes().replace(b"udev", b"uvec", 1))
    changed = digest()
    assert changed != before
    path.rename(path.with_name("other.py"))
    assert digest() not in (before, changed)
    _request_digest.code_digest.cache_clear()
