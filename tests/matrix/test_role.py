# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role and the playbooks, with the first ansible-playbook in PATH."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.playbook import Run, play
from tests.simulated.boards import Part, alike
from tests.simulated.fleet import Fleet, fleet, root

if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
    pytest.skip("hosts need root and /dev/fuse", allow_module_level=True)

ROOT = Path(__file__).parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
BOARDS = ("one", "two")
PARTS = (
    Part("net", False, True, False, False, None),
    Part("crypto", True, True, False, True, None),
    Part("dma", False, False, False, True, None),
)
DRIVERS = """
kernel: {groups_at_boot: true}
drivers:
  - {name: acme-net, compatible: ["acme,net"]}
  - {name: acme-crypto, bus: amba, amba_ids: ["00041000"]}
  - {name: acme-dma, compatible: ["acme,dma"]}
"""
VARIABLES: dict[str, Any] = {
    "passthrough_devices": [
        {"dt_path": "/net@1000", "policy": "vfio"},
        {"compatible": "acme,crypto", "expect": 1, "policy": "vfio"},
        {"dt_path": "dma2", "policy": "no_autobind"},
    ],
    "passthrough_reset_required": False,
    "passthrough_initramfs": "never",
}
NATIVE = {
    "1000.net": ("acme-net", "(null)"),
    "2000.crypto": ("acme-crypto", "(null)"),
    "3000.dma": ("acme-dma", "(null)"),
}
AS_THE_LIST_SAYS = {
    "1000.net": ("vfio-platform", "vfio-platform"),
    "2000.crypto": ("vfio-amba", "vfio-amba"),
    "3000.dma": (None, "none"),
}


def run(boards: Fleet, playbook: str, *arguments: str, **variables: Any) -> Run:
    return play(boards.inventory, f"armfleet.vfio.{playbook}", *arguments, variables=variables)


def devices(boards: Fleet) -> list[dict[str, tuple[str | None, str]]]:
    """Return each board's devices with driver and override, from its /sys."""
    return [
        {name: state(root(board) / "sys/bus", name) for name in NATIVE}
        for board in boards.boards.values()
    ]


def state(buses: Path, name: str) -> tuple[str | None, str]:
    (device,) = buses.glob(f"*/devices/{name}")
    driver = device / "driver"
    bound = driver.readlink().name if driver.is_symlink() else None
    return bound, (device / "driver_override").read_text().strip()


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Fleet]:
    plans = alike(tmp_path, BOARDS, PARTS, DRIVERS)
    with fleet(tmp_path, plans, VARIABLES) as running:
        yield running


def test_the_ansible_core_is_the_one_that_is_meant(request: pytest.FixtureRequest) -> None:
    said = subprocess.run(
        ["ansible-playbook", "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    expected = request.config.getoption("--ansible-core")
    assert expected in (None, *re.findall(r"\[core ([\d.]+)\]", said))


def test_every_playbook_is_understood(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost\n")
    *others, last = (f"armfleet.vfio.{playbook}" for playbook in PLAYBOOKS)
    checked = play(tmp_path / "hosts", last, "--syntax-check", *others)
    assert checked.code == 0, checked.output
    assert checked.output.count("playbook: ") == len(PLAYBOOKS)
    assert "[WARNING]" not in checked.output


def test_boards_are_claimed_once_and_given_back(boards: Fleet) -> None:
    assert devices(boards) == [NATIVE] * len(BOARDS)

    foreseen = run(boards, "apply", "--check", "--diff")
    assert all(foreseen.changed[board] for board in BOARDS), foreseen.output
    assert devices(boards) == [NATIVE] * len(BOARDS)

    first = run(boards, "apply")
    assert first.code == 0, first.output
    assert "[DEPRECATION WARNING]" not in first.output
    assert devices(boards) == [AS_THE_LIST_SAYS] * len(BOARDS)

    again = run(boards, "apply")
    assert again.changed == dict.fromkeys(BOARDS, 0), again.output
    assert devices(boards) == [AS_THE_LIST_SAYS] * len(BOARDS)

    released = run(boards, "release")
    assert released.code == 0, released.output
    assert devices(boards) == [NATIVE] * len(BOARDS)


def test_a_refused_list_is_said_in_a_sentence_and_changes_nothing(boards: Fleet) -> None:
    absent = [{"dt_path": "/no/such@1", "policy": "vfio"}]
    refused = run(boards, "apply", passthrough_devices=absent)
    assert refused.code != 0
    assert "/no/such@1" in refused.output
    assert "Traceback" not in refused.output
    assert devices(boards) == [NATIVE] * len(BOARDS)


def test_a_refusal_names_the_options_of_the_role(boards: Fleet) -> None:
    refused = run(boards, "apply", passthrough_reset_required=True)
    assert refused.code != 0
    assert "set `passthrough_reset_required: false`" in refused.output
    assert "`reset_required" not in refused.output

    # A message about the module's arguments has the name of the role's variable.
    devices_given = [{"dt_path": "/net@1000", "compatible": "acme,net", "policy": "vfio"}]
    twice = run(boards, "apply", passthrough_devices=devices_given)
    assert "found in passthrough_devices" in twice.output
    assert "found in devices" not in twice.output
    assert devices(boards) == [NATIVE] * len(BOARDS)


def test_a_variable_that_the_role_does_not_read_has_a_warning(boards: Fleet) -> None:
    hosts = yaml.safe_load(boards.inventory.read_text())
    hosts["all"]["vars"].update(
        reset_required=False,
        passthrough_reset_require=False,
        runtime=False,
        passthrough_devices="{{ passthrough_devices_common }}",
        passthrough_devices_common=VARIABLES["passthrough_devices"],
    )
    del hosts["all"]["vars"]["passthrough_reset_required"]
    boards.inventory.write_text(yaml.safe_dump(hosts))
    checked = run(boards, "apply", "--check")
    said = " ".join(checked.output.split())
    for name, meant in (
        ("reset_required", "Set `passthrough_reset_required` instead."),
        ("passthrough_reset_require", "Did you mean `passthrough_reset_required`?"),
        ("runtime", "Set `passthrough_runtime` instead."),
    ):
        warning = f"[WARNING]: Variable {name} is ignored: the role armfleet.vfio.passthrough has "
        assert said.count(warning + f"no such option. {meant}") == 1, checked.output
    assert said.count("[WARNING]") == 3
    # The warning also appears if nothing changes on the host.
    silent = run(boards, "apply", passthrough_reset_required=False)
    assert silent.code == 0, silent.output
    again = run(boards, "apply", passthrough_reset_required=False)
    assert again.changed == dict.fromkeys(BOARDS, 0), again.output
    assert again.output.count("[WARNING]: Variable runtime is ignored") == 1
