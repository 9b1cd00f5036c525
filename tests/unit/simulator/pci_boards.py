"""Boards with PCI functions, and how tests write to and read from their /sys."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trees

from extensions.simulator.description_file import parse
from extensions.simulator.devicetree import Node
from extensions.simulator.errors import SimulatorError
from extensions.simulator.machine import Machine, build
from extensions.simulator.tree import File

HOST = "/pcie@4010000000"
PORT = "0000:00:01.0 1b36:000c 060400 bus=01"
E1000E = "0000:01:00.0 8086:10d3:8086:a01f 020000 driver=e1000e"


def yaml_of(lines: Sequence[str], **lists: Sequence[str]) -> str:
    """Return a description with lists of lines."""
    return "".join(
        f"{key}:\n" + "".join(f"- '{line}'\n" for line in entries)
        for key, entries in {"pci": lines, **lists}.items()
        if entries
    )


def booted(
    *lines: str, root: Node | None = None, more: str = "", **lists: Sequence[str]
) -> Machine:
    """Return a machine with these functions; ``more`` is the rest of its description."""
    return build(root, parse(yaml_of(lines, **lists) + more))


def error_of(*lines: str, root: Node | None = None, more: str = "") -> str:
    """Return the message with which a board is refused."""
    with pytest.raises(SimulatorError) as error:
        booted(*lines, root=root, more=more)
    message = str(error.value)
    assert message.isprintable()
    return message


def device(address: str) -> str:
    return f"bus/pci/devices/{address}"


def content(machine: Machine, path: str) -> str:
    read = machine.tree.read(path)
    assert read is not None, path
    return read.decode()


def write(machine: Machine, path: str, text: str) -> int:
    """Write to a file; return the errno, or 0."""
    file = machine.tree.find(path)
    assert isinstance(file, File), path
    try:
        file.write(text.encode())
    except OSError as error:
        return error.errno or -1
    return 0


def driver_of(machine: Machine, address: str) -> str | None:
    """Return the name of the driver to which a function is bound."""
    target = machine.tree.link(f"{device(address)}/driver")
    return target and target.rpartition("/")[2]


def group_of(machine: Machine, address: str) -> str | None:
    """Return the number of a function's IOMMU group."""
    target = machine.tree.link(f"{device(address)}/iommu_group")
    return target and target.rpartition("/")[2]


def give_to_vfio(machine: Machine, address: str, driver: str = "vfio-pci") -> int:
    """Bind a function to a VFIO driver, as an administrator does; return the errno of bind."""
    machine.modules.load(driver.replace("-", "_"))
    assert write(machine, f"{device(address)}/driver_override", driver) == 0
    if driver_of(machine, address):
        assert write(machine, f"{device(address)}/driver/unbind", address) == 0
    return write(machine, f"bus/pci/drivers/{driver}/bind", address)


def board_with_hosts(hosts: int = 1, *, status: str = "okay") -> Node:
    """Return a device tree with host bridges; ``status`` is that of the function on bus 01."""
    function = {
        "reg": [0x10000, 0, 0, 0, 0],
        "compatible": "pci8086,10d3",
        "status": status,
    }
    port = {"reg": [0x800, 0, 0, 0, 0], "device_type": "pci", "ethernet@0,0": function}
    host = {
        "compatible": "pci-host-ecam-generic",
        "device_type": "pci",
        "#address-cells": 3,
        "#size-cells": 2,
        "reg": [0x4010, 0x1000],
        "pcie@1,0": port,
    }
    path = f"{HOST}/pcie@1,0/ethernet@0,0"
    more = {
        f"pcie@{number}000": {**host, "reg": [number * 0x1000, 0x1000]}
        for number in range(1, hosts)
    }
    parts = {"compatible": "acme,board", **trees.CELLS, "aliases": {"ethernet7": path}}
    return trees.tree(
        {
            **parts,
            HOST[1:]: host,
            **more,
            "soc": {**trees.BUS, "dma@5000": trees.device("acme,dma")},
        }
    )
