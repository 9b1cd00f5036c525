# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boards of different kinds: one list for all of them, and the example of the documentation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from extensions.simulator.description import Description, Extra
from extensions.simulator.dtb import read_file
from extensions.simulator.host import Host, Plan, start
from extensions.simulator.inventory import inventory
from extensions.simulator.machine import Machine, build
from tests.boards import device_trees
from tests.simulated.lab import Lab

EXAMPLE = Path(__file__).parents[2] / "docs/examples/mixed-fleet"
# The files of Debian's kernel, by the hosts of the example.
BOARDS = {
    "mcbin-1": "armada-8040-mcbin.dtb",
    "mcbin-2": "armada-8040-mcbin.dtb",
    "armada7040-1": "armada-7040-db.dtb",
    "overdrive-1": "amd-overdrive-rev-b1.dtb",
    "honeycomb-1": "fsl-lx2160a-honeycomb.dtb",
}
XOR = "/ap806/config-space@f0000000/xor@400000"
SECOND_XOR = "/cp1/config-space@f4000000/xor@6a0000"
RNG = "/cp0/config-space@f2000000/trng@760000"
SECOND_RNG = "/cp1/config-space@f4000000/trng@760000"
XGMAC = "/smb/xgmac@e0700000"
SATA = "/soc/sata@3200000"
VFIO, NONE = "vfio-platform", "none"
OVERRIDES: dict[str, dict[str, str]] = {
    "mcbin-1": {XOR: VFIO, SECOND_XOR: VFIO, RNG: NONE, SECOND_RNG: NONE},
    "mcbin-2": {XOR: VFIO, SECOND_XOR: VFIO, RNG: NONE, SECOND_RNG: NONE},
    "armada7040-1": {XOR: VFIO, RNG: NONE},
    "overdrive-1": {XGMAC: VFIO},
    "honeycomb-1": {SATA: NONE},
}
# Without `when_board`, every entry would be an error on the boards that it is not for.
ONE_LIST: list[dict[str, Any]] = [
    {"dt_path": XOR, "when_board": "marvell,armada-ap806", "policy": "no_autobind"},
    {"dt_path": SECOND_XOR, "when_board": "marvell,armada8040-mcbin", "policy": "no_autobind"},
    {"dt_path": XGMAC, "when_board": ["amd,seattle", "acme,next"], "policy": "no_autobind"},
    {
        "compatible": "fsl,lx2160a-ahci",
        "expect": 4,
        "when_board": "solidrun,honeycomb",
        "policy": "no_autobind",
    },
    {"acpi_hid": "ACME0001", "when_board": "Mt. Jade", "policy": "no_autobind"},
]
CLAIMED_BY_ONE_LIST = {
    "armada-8040-mcbin.dtb": {XOR, SECOND_XOR},
    "armada-7040-db.dtb": {XOR},
    "amd-overdrive-rev-b1.dtb": {XGMAC},
    "fsl-lx2160a-honeycomb.dtb": {f"/soc/sata@32{number}0000" for number in range(4)},
    "juno.dtb": set(),
}


def dtb(name: str) -> Path:
    (match,) = (path for path in device_trees() if path.name == name)
    return match


def on_no_driver(machine: Machine) -> set[str]:
    """Return the devices whose override is none, by device-tree path or by name."""
    return {
        device.of_path or device.name
        for device in machine.kernel.devices.values()
        if machine.tree.read(f"bus/{device.bus}/devices/{device.name}/driver_override") == b"none\n"
    }


@pytest.mark.parametrize("board", CLAIMED_BY_ONE_LIST)
def test_one_list_serves_boards_of_every_kind(board: str, tmp_path: Path) -> None:
    tree = read_file(dtb(board))
    lab = Lab(lambda: build(tree), tmp_path)
    lab.apply(ONE_LIST)
    assert on_no_driver(lab.machine) == CLAIMED_BY_ONE_LIST[board]
    assert (tmp_path / RULES[1:]).exists() == bool(CLAIMED_BY_ONE_LIST[board])
    lab.reboot()
    assert on_no_driver(lab.machine) == CLAIMED_BY_ONE_LIST[board]
    assert not lab.apply(ONE_LIST).is_changed


def test_the_same_list_serves_a_machine_with_acpi(tmp_path: Path) -> None:
    slot = Extra("ACME0001:00", acpi_path="\\_SB_.DEV0", acpi_hid="ACME0001")
    description = Description(devices=(slot,), dmi={"product_name": "Mt. Jade"})
    lab = Lab(lambda: build(None, description), tmp_path)
    lab.apply(ONE_LIST)
    assert on_no_driver(lab.machine) == {"ACME0001:00"}
    assert not lab.apply(ONE_LIST).is_changed


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[Host]]:
    """Start a simulated board for each host of the example."""
    hosts = start([Plan(name, dtb(board)) for name, board in BOARDS.items()])
    yield hosts
    for host in hosts:
        host.stop()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the example to a directory of its own."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("user") / "mixed-fleet"))


def call(example: Path, fleet: Sequence[Host], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user of the example would, except for the connection to the hosts."""
    settings = yaml.safe_load(inventory(fleet))["simulated"]["vars"]
    settings["ansible_host"] = f"{fleet[0].directory.parent}/{{{{ inventory_hostname }}}}"
    # The initramfs of this machine is not that of the hosts: do not rebuild it.
    settings["passthrough_initramfs"] = "never"
    environment = {key: value for key, value in os.environ.items() if key != "ANSIBLE_CONFIG"}
    return subprocess.run(
        [*command, "--extra-vars", json.dumps(settings)],
        cwd=example,
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def changed(run: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert run.returncode == 0, run.stdout + run.stderr
    counts = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", run.stdout, re.MULTILINE)
    return {host: int(number) for host, number in counts}


def overrides(host: Host) -> dict[str, str]:
    """Return the overrides of a host's devices by their paths, from its /sys."""
    devices = Path(f"/proc/{host.pid}/root/sys/bus/platform/devices")
    by_device = {
        device: (device / "driver_override").read_text().strip() for device in devices.iterdir()
    }
    return {
        str((device / "of_node").readlink()).partition("/devicetree/base")[2]: override
        for device, override in by_device.items()
        if override != "(null)"
    }


def test_the_example_refuses_hosts_whose_board_is_not_known(
    example: Path, fleet: list[Host]
) -> None:
    run = call(example, fleet, "ansible-playbook", "site.yml")
    assert run.returncode == 2, run.stdout
    assert not [name for name in BOARDS if f"The board of {name} is unknown" not in run.stdout]
    assert not any(overrides(host) for host in fleet)


def test_the_example_finds_the_boards_and_applies_their_lists(
    example: Path, fleet: list[Host]
) -> None:
    run = call(example, fleet, "ansible-playbook", "armfleet.vfio.boards")
    assert set(changed(run).values()) == {0}
    assert changed(call(example, fleet, "ansible-playbook", "site.yml")) == dict.fromkeys(BOARDS, 1)
    assert {host.name: overrides(host) for host in fleet} == OVERRIDES
    again = call(example, fleet, "ansible-playbook", "site.yml")
    assert changed(again) == dict.fromkeys(BOARDS, 0)


def test_the_example_groups_hosts_by_all_names_of_their_boards(
    example: Path, fleet: list[Host]
) -> None:
    groups = json.loads(call(example, fleet, "ansible-inventory", "--list").stdout)
    members = {name: set(group.get("hosts", ())) for name, group in groups.items()}
    assert members["board_marvell_armada8040_mcbin"] == {"mcbin-1", "mcbin-2"}
    assert members["board_marvell_armada_ap806"] == {"mcbin-1", "mcbin-2", "armada7040-1"}
    assert members["board_amd_seattle"] == {"overdrive-1"}
    assert members["board_solidrun_honeycomb"] == {"honeycomb-1"}
    assert not members.get("unknown_boards")


def test_a_check_says_which_entries_are_for_other_boards(example: Path, fleet: list[Host]) -> None:
    run = call(example, fleet, "ansible-playbook", "site.yml", "--check", "--limit", "overdrive-1")
    assert changed(run) == {"overdrive-1": 0}
    assert f"dt_path '{SATA}' applies to solidrun,honeycomb only" in run.stdout
