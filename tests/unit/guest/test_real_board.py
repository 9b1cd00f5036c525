# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model of a board has SD cards and a network card of its own, and only Debian's kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.guest import Guest, GuestError
from tests.guest.packages import SERIES
from tests.guest.real_board import ModelMachine, build_for_model
from tests.guest.userlands import OLDEST_SUITE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def options(guest: Guest) -> list[str]:
    return guest._machine._hardware(guest.board)


def test_its_cards_are_in_its_own_slots_and_its_network_card_is_that_of_ssh() -> None:
    guest = Guest("a-model", "versal", "debian")
    assert isinstance(guest._machine, ModelMachine)
    argv = options(guest)
    assert argv[argv.index("-net") + 1] == "nic,netdev=net"
    drives = [value.split(",format=")[0] for value in argv if ",format=" in value]
    assert drives == ["if=sd,index=0", "if=sd,index=1", "if=none,id=spare2"]


def test_another_board_has_no_such_options() -> None:
    guest = Guest("no-model", "d", "debian")
    assert not isinstance(guest._machine, ModelMachine)
    assert "-net" not in options(guest)
    assert "if=sd" not in " ".join(options(guest))


@pytest.mark.parametrize("series", [name for name in SERIES if name != "debian"])
def test_a_kernel_without_its_drivers_is_refused(series: str) -> None:
    guest = Guest("a-model", "versal", series)
    with pytest.raises(GuestError, match="Add --kernel debian"):
        build_for_model(guest.board, SERIES[series], guest.userland)


def test_another_userland_is_refused() -> None:
    guest = Guest("a-model", "versal", "debian", OLDEST_SUITE)
    with pytest.raises(GuestError, match="Omit --userland"):
        build_for_model(guest.board, SERIES["debian"], guest.userland)


def test_a_reboot_starts_its_qemu_again(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest("a-model", "versal", "debian")
    started: list[str] = []
    monkeypatch.setattr(guest, "start_again", lambda: started.append(guest.name))
    guest.reboot()
    assert started == ["a-model"]
