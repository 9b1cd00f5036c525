# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the devices that lines of a description name: by path, alias, ACPI path or name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from .acpi import becomes_device, padded
from .description import Carried, Description
from .devicetree import Node
from .errors import SimulatorError
from .lines import quoted
from .nodes import is_available
from .pci_board import PciBoard
from .population import Planned

_SUGGESTIONS = 3


def uses_by_device(
    description: Description,
    root: Node | None,
    planned: Sequence[Planned],
    aliases: Mapping[str, Sequence[str]],
    board: PciBoard,
) -> dict[str, list[Carried]]:
    """Return what each device provides, by its name; raise SimulatorError for unknown devices."""
    names = {**_names_by_address(description, planned, aliases), **board.names(aliases)}
    virtual = {str(function.address) for function in board.virtual_functions()}
    uses: dict[str, list[Carried]] = {}
    described: dict[tuple[str, str, str | None], Carried] = {}
    for use in description.carries:
        address = padded(use.device) if use.device.startswith("\\") else use.device
        name = names.get(address)
        if use.line is not None:
            if name is None:
                raise SimulatorError(f"{use.line} {_reason(use.device, root, list(names))}")
            if name in virtual and (use.mount_point or use.needs_interface or use.is_console):
                raise SimulatorError(
                    f"{use.line} describes a use of a virtual function, which does not exist at "
                    "boot"
                )
            known = described.setdefault((name, use.name, use.partition), use)
            if known is not use:
                raise SimulatorError(f"{use.line} describes {use.name} again, after {known.line}")
        uses.setdefault(name or use.device, []).append(use)
    return uses


def _names_by_address(
    description: Description, planned: Sequence[Planned], aliases: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    names: dict[str, str] = {}
    for device in planned:
        for alias in aliases.get(device.node.path, ()):
            names[alias] = device.name
    for device in planned:
        names[device.name] = names[device.node.path] = device.name
    for extra in description.devices:
        if becomes_device(extra):
            names[extra.name] = extra.name
            if extra.acpi_path:
                names[extra.acpi_path] = extra.name
    return names


def _reason(address: str, root: Node | None, known: Sequence[str]) -> str:
    node = _node(root, address)
    if node is not None:
        if not is_available(node):
            return "names a node that is disabled in the device tree"
        return "names a node for which Linux creates no device of the platform or AMBA bus"
    similar = difflib.get_close_matches(address[:200], known, _SUGGESTIONS, 0.5)
    hint = f"; similar: {', '.join(map(quoted, similar))}" if similar else ""
    return f"names a device that the board does not have{hint}"


def _node(root: Node | None, address: str) -> Node | None:
    if root is None or not address.startswith("/"):
        return None
    return next((node for node in root.walk() if node.path == address), None)
