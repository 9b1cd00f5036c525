"""Build small device trees from dictionaries."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from extensions.simulator.devicetree import Node

# Properties of the root in most trees: one cell for addresses, one for sizes.
CELLS = {"#address-cells": 1, "#size-cells": 1}
BUS = {"compatible": "simple-bus", **CELLS, "ranges": True}


class To(str):
    """A cell of a property that is the phandle of the node at this path."""

    __slots__ = ()


def device(compatible: str = "acme,device", **properties: Any) -> dict[str, Any]:
    """Return a node that becomes a device; an underscore in a property's name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in properties.items()}
    return {"compatible": compatible, **named}


def tree(parts: Mapping[str, Any]) -> Node:
    """Return the root of a tree: a mapping is a node, True an empty property, all else a value."""
    root = Node("")
    _fill(root, parts)
    by_path = {node.path: node for node in root.walk()}
    phandles = {path: number for number, path in enumerate(by_path, start=1)}
    for path, node in by_path.items():
        node.properties["phandle"] = _cells([phandles[path]])
    _add_properties(root, parts, phandles)
    return root


def _fill(node: Node, parts: Mapping[str, Any]) -> None:
    for name, value in parts.items():
        if isinstance(value, Mapping):
            child = Node(name, f"{node.path.rstrip('/')}/{name}", node)
            node.children.append(child)
            _fill(child, value)


def _add_properties(node: Node, parts: Mapping[str, Any], phandles: Mapping[str, int]) -> None:
    for name, value in parts.items():
        if not isinstance(value, Mapping):
            node.properties[name] = _raw(value, phandles)
    for child in node.children:
        _add_properties(child, parts[child.name], phandles)


def _raw(value: Any, phandles: Mapping[str, int]) -> bytes:
    if value is True:
        return b""
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, int | To) for item in values):
        return _cells([phandles[item] if isinstance(item, To) else item for item in values])
    return b"".join(item.encode() + b"\0" for item in values)


def _cells(numbers: list[int]) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)
