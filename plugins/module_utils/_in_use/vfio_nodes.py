# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VFIO nodes that a process holds open, which is never accepted."""

from __future__ import annotations

from typing import Sequence

from .. import _text
from .._model.device import State
from .._system.processes import VFIO_DEVICE
from .kinds import OPEN_NODE, Hazard
from .use_kind import UseKind, held


class VfioNodes(UseKind):
    name = OPEN_NODE
    fatal_remedy = "Stop the process that uses it; an open device is never unbound"
    is_of_user_space = True
    ends_with_supplier = False

    def of_state(self, state: State) -> list[Hazard]:
        return self._held_open(state.vfio_nodes) if state.vfio_nodes else []

    def below(self, path: str, driver: str) -> list[Hazard]:
        """Return whether another device, bound to VFIO and unbound as well, is held open.

        Unbinding it hangs.
        """
        if "vfio" not in driver:
            return []
        group = self.sysfs.link_name(path + "/iommu_group")
        nodes = ["/dev/vfio/" + name for name in ([group, "noiommu-" + group] if group else [])]
        nodes += ["/dev/vfio/devices/" + name for name in self.sysfs.names(path + "/vfio-dev")]
        return self._held_open(nodes)

    def _held_open(self, nodes: Sequence[str]) -> list[Hazard]:
        """Return who has one of the VFIO nodes of a device open, or may have."""
        hazards = [
            Hazard(self.name, node, held(node, holders), is_fatal=True)
            for node in nodes
            for holders in [self._holders(node)]
            if holders
        ]
        unknown = self.sources.processes.holders(VFIO_DEVICE) if nodes and not hazards else []
        if unknown:
            hazards = [
                Hazard(
                    self.name,
                    nodes[0],
                    "it may be the VFIO device that is held open by %s; the kernel does not "
                    "expose which" % _text.listed(unknown),
                    is_fatal=True,
                )
            ]
        return hazards

    def _holders(self, node: str) -> list[str]:
        name = node.rpartition("/")[2]
        directory = "class/vfio-dev/" if node.startswith("/dev/vfio/devices/") else "class/vfio/"
        return self.sources.holders(node, directory + name)
