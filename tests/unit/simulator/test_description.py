# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator accepts descriptions as the README documents them."""

from __future__ import annotations

import errno
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from extensions.simulator import description
from extensions.simulator.description import (
    Carried,
    Description,
    Driver,
    Extra,
    Habits,
    Module,
)
from extensions.simulator.description_file import parse
from extensions.simulator.errors import SimulatorError
from extensions.simulator.machine import build

README = Path(description.__file__).with_name("README.md").read_text()


@pytest.fixture(scope="module")
def example() -> str:
    """Return the description of the README."""
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return str(block)


def test_the_example_is_accepted_and_boots(example: str) -> None:
    parsed = parse(example)
    driver, _igb = parsed.drivers
    assert driver.probe == {
        "b002000.dma": errno.EIO,
        "b003000.dma": 0,
        "*": description.EPROBE_DEFER,
    }
    described, *lines = parsed.carries
    assert described == Carried("b004000.ethernet", "net", "eth0")
    assert [use.name for use in lines] == ["eth1", "sda"]
    machine = build(None, parsed)
    assert machine.tree.names("class/net") == ["eth1"]
    assert machine.tree.read("module/acme/parameters/mode") == b"1\n"
    assert machine.tree.resolve("bus/platform/devices/ACME0001:00/driver")
    device = "bus/platform/devices/LNRO0005:00"
    assert machine.tree.read(f"{device}/firmware_node/path") == b"\\_SB_.VR00\n"
    assert machine.tree.read("class/dmi/id/product_name") == b"Mt. Jade\n"
    assert machine.tree.names("bus/pci/devices") == ["0000:00:01.0", "0000:01:00.0"]


@pytest.mark.parametrize("part", [Description, Habits, Driver, Module, Extra])
def test_the_example_shows_every_part(example: str, part: type[Any]) -> None:
    names = {field.name for field in fields(part)}
    assert not {name for name in names if f"{name}:" not in example}


def test_the_example_has_what_holds_where_it_is_left_out(example: str) -> None:
    assert parse(example).kernel == Habits()
    assert parse("") == Description()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a description: [] is not a mapping"),
        ("drivers: {}", "drivers: {} is not a list"),
        ("drivers: [{bus: amba}]", "drivers: each entry has a name"),
        ("modules: [{name: x, needed: y}]", "modules: unknown needed; known: name, needs"),
        (
            "carries: [{device: x}]",
            "carries: each entry has a device and one of net, block, tty, dma",
        ),
        ("natives: some", "natives: 'some' is not one of each, none"),
        (
            "drivers: [{name: x, bus: pci, probe: {0000:00:08.0: EIO}}]",
            "probe: 8.0 is not the name of a device; put an address in quotes",
        ),
    ],
)
def test_what_it_is_not_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SimulatorError) as error:
        parse(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
