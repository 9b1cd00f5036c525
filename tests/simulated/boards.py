# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generate boards for tests: device trees and drivers that hypothesis draws."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import libfdt
from hypothesis import strategies as st

from extensions.simulator.description import EPROBE_DEFER, Description, Driver, Habits, Module
from extensions.simulator.devicetree import Node
from extensions.simulator.host import Plan
from extensions.simulator.machine import Machine, build

KINDS = ("crypto", "dma", "net", "timer")
# Drivers that match no device: one of both buses, and one whose module is not loaded at boot.
PINS = ("acme-uio", "acme-late")

_IOMMU_PHANDLE = 1


class Part(NamedTuple):
    """A generated device; ``supplier`` is the index of the part that it depends on."""

    kind: str
    is_amba: bool
    has_iommu: bool
    has_second_compatible: bool
    is_below_bus: bool
    supplier: int | None

    @property
    def compatible(self) -> str:
        return f"acme,{self.kind}"


class Board(NamedTuple):
    """A board; each boot builds a new machine."""

    parts: tuple[Part, ...]
    description: Description

    @property
    def refusing(self) -> set[str]:
        """Return the drivers whose probe fails for every device."""
        return {driver.name for driver in self.description.drivers if driver.probe}

    def boot(self) -> Machine:
        return build(device_tree(self.parts), self.description)


def device_tree(parts: Sequence[Part]) -> Node:
    """Return the root of a device tree with these parts, an IOMMU and a bus."""
    root = Node("")
    root.properties["compatible"] = b"acme,board\0"
    root.properties |= {"#address-cells": _cells(1), "#size-cells": _cells(1)}
    _add(root, "iommu@9000000", "acme,iommu", phandle=_IOMMU_PHANDLE)
    root.children[0].properties["#iommu-cells"] = _cells(1)
    bus = _add(root, "soc", "simple-bus")
    bus.properties |= {"#address-cells": _cells(1), "#size-cells": _cells(1), "ranges": b""}
    aliases = Node("aliases", "/aliases", root)
    root.children.append(aliases)
    for number, part in enumerate(parts):
        name = f"{part.kind}@{number + 1:x}000"
        first = f"{part.compatible}-v{number}" if part.has_second_compatible else None
        compatible = [*filter(None, [first]), part.compatible]
        compatible += ["arm,primecell"] if part.is_amba else []
        parent = bus if part.is_below_bus else root
        node = _add(parent, name, *compatible, phandle=number + 2)
        node.properties["reg"] = _cells((number + 1) << 12, 0x1000)
        if part.is_amba:
            node.properties["arm,primecell-periphid"] = _cells(_amba_id(part.kind))
        if part.has_iommu:
            node.properties["iommus"] = _cells(_IOMMU_PHANDLE, 0x100 + number)
        if part.supplier is not None:
            node.properties["resets"] = _cells(part.supplier + 2)
        node.properties["#reset-cells"] = _cells(0)
        aliases.properties[f"{part.kind}{number}"] = node.path.encode() + b"\0"
    return root


def flattened(root: Node) -> bytes:
    """Return a tree in .dtb format."""
    writer = libfdt.FdtSw()
    writer.finish_reservemap()
    _write(writer, root)
    return bytes(writer.as_fdt().as_bytearray())


def _write(writer: libfdt.FdtSw, node: Node) -> None:
    with writer.add_node(node.name):
        for name, value in node.properties.items():
            writer.property(name, value)
        for child in node.children:
            _write(writer, child)


def _add(parent: Node, name: str, *compatible: str, phandle: int | None = None) -> Node:
    node = Node(name, f"{parent.path.rstrip('/')}/{name}", parent)
    node.properties["compatible"] = "".join(f"{value}\0" for value in compatible).encode()
    if phandle is not None:
        node.properties["phandle"] = _cells(phandle)
    parent.children.append(node)
    return node


def _amba_id(kind: str) -> int:
    return 0x41000 + KINDS.index(kind)


def _cells(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


@st.composite
def boards(draw: st.DrawFn) -> Board:
    """Draw a board of two to six parts; native drivers may be modules, fail or be missing."""
    parts: list[Part] = []
    for number in range(draw(st.integers(2, 6))):
        supplier = draw(st.none() | st.integers(0, number - 1)) if number else None
        flags = [draw(st.booleans()) for _flag in range(4)]
        parts.append(Part(draw(st.sampled_from(KINDS)), *flags, supplier))
    return Board(tuple(parts), draw(_descriptions()))


@st.composite
def _descriptions(draw: st.DrawFn) -> Description:
    modular = draw(st.sets(st.sampled_from(KINDS)))
    loaded = draw(st.booleans())
    failing = draw(st.sampled_from([{}, {}, {"*": errno.EIO}, {"*": EPROBE_DEFER}]))
    missing = draw(st.sampled_from([None, None, *KINDS]))
    drivers = [
        Driver(
            f"acme-{kind}" if bus == "platform" else f"acme-{kind}-{bus}",
            bus,
            compatible=(f"acme,{kind}",) if bus == "platform" else (),
            amba_ids=(f"{_amba_id(kind):08X}",) if bus == "amba" else (),
            module=f"acme_{kind}" if kind in modular else None,
            probe=failing if kind == "timer" else {},
        )
        for kind in KINDS
        if kind != missing
        for bus in ("platform", "amba")
    ]
    pins = [
        Driver("acme-uio"),
        Driver("acme-uio", "amba"),
        Driver("acme-late", module="acme_late"),
    ]
    habits = Habits(
        groups_at_boot=draw(st.booleans()),
        noiommu=draw(st.booleans()),
        device_cdev=draw(st.booleans()),
        vfio=draw(st.sampled_from(["module", "module", "built-in", "absent"])),
    )
    iommu = Driver("acme-iommu", compatible=("acme,iommu",), suppress_bind_attrs=True)
    modules = tuple(Module(f"acme_{kind}", loaded=loaded) for kind in sorted(modular))
    return Description(
        kernel=habits,
        natives="none",
        drivers=(iommu, *drivers, *pins),
        modules=(*modules, Module("acme_late")),
        reset_functions={"acme,net": "vfio_platform_acmenet"},
    )


def alike(directory: Path, names: Sequence[str], parts: Sequence[Part], drivers: str) -> list[Plan]:
    """Return plans of boards with the same device tree and the same description of drivers."""
    board, description = directory / "board.dtb", directory / "drivers.yml"
    board.write_bytes(flattened(device_tree(parts)))
    description.write_text(drivers)
    return [Plan(name, board, description) for name in names]
