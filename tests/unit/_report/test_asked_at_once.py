# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""device_info asks modprobe about all devices at once: each call starts a process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from board import LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.vfio import modalias

CRYPTO, OTHER_CRYPTO, BLOB = "b000000.crypto", "b001000.crypto", "b008000.blob"


def asked(board: Board, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """Return which modaliases device_info asks about, at once and then again."""
    at_once: set[str] = set()
    again: set[str] = set()
    answer = board.kmod.claimants

    def claimants_at_once(modaliases: Sequence[str]) -> None:
        at_once.update(modaliases)

    def claimants(asked_for: str) -> list[str]:
        again.add(asked_for)
        return answer(asked_for)

    monkeypatch.setattr(board.kmod, "claimants_at_once", claimants_at_once)
    monkeypatch.setattr(board.kmod, "claimants", claimants)
    board.inspect(None)
    return at_once, again


def test_which_modules_claim_a_device_is_asked_of_all_devices_at_once(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.apply(LIST, reset_required=False)
    # Nothing remembers native drivers, and one device seems to be bound manually.
    (board.files_root / RULES[1:]).unlink()
    board.kernel.write(f"bus/platform/devices/{CRYPTO}/driver_override", "\n")
    at_once, again = asked(board, monkeypatch)
    devices = {
        inspection.device.name: inspection.device for inspection in board.inspect(None).devices
    }
    by_name = {name: modalias(board.kernel, device) for name, device in devices.items()}
    assert {by_name[CRYPTO], by_name[OTHER_CRYPTO], by_name[BLOB]} <= again
    assert again == at_once


def test_what_no_forecast_needs_is_not_asked(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.apply(LIST, reset_required=False)
    at_once, again = asked(board, monkeypatch)
    assert at_once == again
