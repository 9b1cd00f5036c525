# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices are connected by ports: Documentation/devicetree/bindings/graph.txt. Pure data."""

from __future__ import annotations

from collections import deque
from typing import Callable, Container, Iterable, Mapping, NamedTuple, Sequence

# Properties that name the ports of other devices, or the devices: drivers/gpu/drm/drm_of.c and
# sun4i/sun4i_drv.c.
_NAMED = ("ports", "allwinner,pipelines")
# The ports of sound cards: sound/soc/generic/audio-graph-card.c.
_SOUND = frozenset({"dais", "links"})
CONNECTING = _SOUND.union(_NAMED)
# What USB-C connects with a screen (a PHY, a switch) is of use for other things as well.
ENDS = frozenset({"#phy-cells", "mode-switch", "orientation-switch", "usb-role-switch"})
_CONNECTOR = "-connector"


class Endpoint(NamedTuple):
    """An endpoint: the node of its device, its own path, and the phandle of the other end."""

    owner: str
    path: str
    remote: int


class PortGraph:
    """Connections between the nodes of devices, in both directions, but for those of sound.

    ``named`` are (property, path of its node, paths that it refers to) of the lists in CONNECTING;
    ``paths`` those of nodes by phandle; ``owners`` nodes of devices by what is in them; ``ends``
    have one of ENDS. ``compatible`` returns the compatibles of a node.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        named: Sequence[tuple[str, str, Sequence[str]]],
        paths: Mapping[int, str],
        owners: Mapping[str, str],
        ends: Container[str],
        compatible: Callable[[str], Sequence[str]],
    ) -> None:
        self._ends = ends
        self._compatible = compatible
        self._neighbours: dict[str, set[str]] = {}
        sound = {target for name, _path, targets in named if name in _SOUND for target in targets}
        for endpoint in endpoints:
            remote = paths.get(endpoint.remote)
            if remote is not None and sound.isdisjoint((_port_of(endpoint.path), _port_of(remote))):
                self._connect(endpoint.owner, owners[remote])
        for name, path, targets in named:
            for target in targets if name in _NAMED else ():
                self._connect(path, owners[target])

    def neighbours(self, path: str) -> list[str]:
        """Return the devices that the device of a node, or of one above it, is connected with."""
        while path and path not in self._neighbours:
            path = path.rpartition("/")[0]
        return sorted(self._neighbours.get(path, ()))

    def shown_through(self, card: str) -> set[str]:
        """Return the nodes of what a card with this node sends its pictures through.

        No way leads through a connector, or what it is plugged into.
        """
        parts = {card}
        waiting = deque([card])
        while waiting:
            node = waiting.popleft()
            if node == card or not self._is_end(node):
                neighbours = self._neighbours.get(node, set()) - parts
                parts |= neighbours
                waiting.extend(neighbours)
        return parts - {card}

    def _connect(self, node: str, other: str) -> None:
        if node != other:
            self._neighbours.setdefault(node, set()).add(other)
            self._neighbours.setdefault(other, set()).add(node)

    def _is_end(self, node: str) -> bool:
        return node in self._ends or any(
            compatible.endswith(_CONNECTOR) for compatible in self._compatible(node)
        )


def _port_of(endpoint: str) -> str:
    return endpoint.rpartition("/")[0]
