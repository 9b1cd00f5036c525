# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the modules as Ansible starts them, on a machine of the tests."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._report import (
    module_run,
    state_module,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Readers

NAMES = (
    "device_info",
    "driver_override",
    "host_policy",
    "initramfs",
    "no_autobind",
    "vfio_binding",
)
MODULES: dict[str, ModuleType] = {
    name: importlib.import_module("ansible_collections.armfleet.vfio.plugins.modules." + name)
    for name in NAMES
}


def run_on(board: Any, monkeypatch: pytest.MonkeyPatch, code: str | None = None) -> None:
    """Let the modules run on ``board``, a Board of the unit tests, instead of this machine.

    ``code`` is the digest of their code: without one, no answer is kept.
    """
    readers = board.host.sysfs, board.host.files
    monkeypatch.setattr(MODULES["device_info"], "open_host", lambda _timeout: board.host)
    monkeypatch.setattr(module_run, "open_readers", lambda _timeout: Readers(*readers))
    monkeypatch.setattr(
        state_module, "open_modules", lambda _timeout: (board.host.kmod, board.host.log)
    )
    monkeypatch.setattr(MODULES["device_info"], "open_usage", lambda _host: board.usage)
    monkeypatch.setattr(state_module, "Usage", lambda _sysfs: board.usage)
    monkeypatch.setattr(module_run, "RunLock", lambda _name, _timeout: board.run_lock())
    monkeypatch.setattr(module_run, "code_digest", lambda: code)


def spec(module: str) -> dict[str, Any]:
    """Return the arguments of AnsibleModule."""
    arguments: dict[str, Any] = MODULES[module].SPEC
    return arguments
