# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host has one list: a play that has two for it is refused before the second is applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.playbook import Run, play
from tests.matrix.test_role import DRIVERS, PARTS, VARIABLES
from tests.simulated.boards import alike
from tests.simulated.fleet import Fleet, fleet

ROLE = "armfleet.vfio.passthrough"
NET = [{"dt_path": "/net@1000", "policy": "vfio"}]
CRYPTO = [{"compatible": "acme,crypto", "policy": "vfio"}]
BOTH = [*NET, *CRYPTO]
REFUSED = "has applied another list or other options to board already"
WARNED = "An earlier play of this run has applied another list or other options to board"


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("lists")
    settings = {name: value for name, value in VARIABLES.items() if not name.endswith("devices")}
    with fleet(directory, alike(directory, ("board",), PARTS, DRIVERS), settings) as running:
        yield running


@pytest.fixture(autouse=True)
def release(boards: Fleet) -> Iterator[None]:
    yield
    assert run(boards, a_play({"tasks": [role(state="absent")]})).code == 0


def run(boards: Fleet, *plays: dict[str, Any], arguments: tuple[str, ...] = ()) -> Run:
    done = play(boards.inventory, plays, *arguments)
    assert "Traceback" not in done.output
    return done


def a_play(content: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Play", "hosts": "all", "become": True, "gather_facts": False, **content}


def role(devices: Any = None, action: str = "include_role", **options: Any) -> dict[str, Any]:
    return {
        "name": "Apply",
        f"ansible.builtin.{action}": {"name": ROLE},
        "vars": {f"passthrough_{key}": value for key, value in options.items()}
        | {"passthrough_devices": devices or []},
    }


def roles(*lists: Any) -> dict[str, Any]:
    return a_play(
        {"roles": [{"role": ROLE, "vars": {"passthrough_devices": entries}} for entries in lists]}
    )


def test_the_role_twice_with_two_lists_is_refused_and_flips_no_device(boards: Fleet) -> None:
    for _time in range(2):
        done = run(boards, roles(NET, CRYPTO))
        assert done.code == 2, done.output
        assert REFUSED in done.output
        assert "Merge both into one list in `passthrough_devices`, and apply it once" in done.output
        assert boards.on_vfio() == {"board": 1}
    assert done.changed == {"board": 0}
    assert run(boards, roles(NET, CRYPTO), arguments=("--check",)).code == 2


def test_a_loop_over_lists_is_refused(boards: Fleet) -> None:
    looped = {**role("{{ item }}"), "loop": [NET, BOTH]}
    done = run(boards, a_play({"tasks": [looped]}))
    assert done.code == 2
    assert REFUSED in done.output
    assert boards.on_vfio() == {"board": 1}


def test_the_very_same_list_may_be_applied_twice(boards: Fleet) -> None:
    tasks = [role(BOTH), role(BOTH, action="import_role", allow=["group"])]
    done = run(boards, a_play({"tasks": tasks}))
    assert done.code == 0, done.output
    assert done.changed == {"board": 1}
    assert boards.on_vfio() == {"board": 2}


def test_a_list_of_another_play_is_a_warning(boards: Fleet) -> None:
    done = run(boards, roles(NET), roles(BOTH))
    assert done.code == 0, done.output
    assert WARNED in " ".join(done.output.split())
    assert boards.on_vfio() == {"board": 2}


def test_to_apply_and_to_release_in_one_run_is_no_mistake(boards: Fleet) -> None:
    imported = [
        {"name": name, "import_playbook": f"armfleet.vfio.{name}", "vars": variables}
        for name, variables in {"apply": {"passthrough_devices": BOTH}, "release": {}}.items()
    ]
    again = [*imported, a_play({"tasks": [role(NET), role(state="absent")]})]
    done = run(boards, *again)
    assert done.code == 0, done.output
    assert "another list" not in done.output
    assert boards.on_vfio() == {"board": 0}


def test_a_rollout_after_the_role_begins_anew(boards: Fleet) -> None:
    given = {"passthrough_devices": BOTH, "passthrough_rollout": "test"}
    rollout = {"name": "Rollout", "import_playbook": "armfleet.vfio.rollout", "vars": given}
    done = run(boards, roles(NET), rollout)
    assert done.code == 0, done.output
    assert "another list" not in done.output
    assert boards.on_vfio() == {"board": 2}
