# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the modules as Ansible starts them, on a machine of the tests."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._report import state_module

NAMES = (
    "device_info",
    "driver_override",
    "host_policy",
    "initramfs",
    "last_answer",
    "no_autobind",
    "vfio_binding",
)
MODULES: dict[str, ModuleType] = {
    name: importlib.import_module("ansible_collections.armfleet.vfio.plugins.modules." + name)
    for name in NAMES
}


def run_on(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules run on ``board``, a Board of the unit tests, instead of this machine."""
    host = board.host
    for module in (MODULES["device_info"], state_module):
        monkeypatch.setattr(module, "open_host", lambda _timeout: host)
    monkeypatch.setattr(MODULES["device_info"], "open_usage", lambda _host: board.usage)
    monkeypatch.setattr(state_module, "Usage", lambda _sysfs: board.usage)
    monkeypatch.setattr(state_module, "RunLock", lambda _name, _timeout: board.run_lock())
    for module in (MODULES["device_info"], MODULES["last_answer"]):
        monkeypatch.setattr(module, "HostLock", lambda *_arguments: board.run_lock())
    monkeypatch.setattr(MODULES["last_answer"], "Sysfs", lambda **_options: host.sysfs)
    monkeypatch.setattr(MODULES["last_answer"], "FileReader", lambda: host.files)


def spec(module: str) -> dict[str, Any]:
    """Return the arguments of AnsibleModule."""
    arguments: dict[str, Any] = MODULES[module].SPEC
    return arguments
