# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry of the kinds of use. Their checks load when a device is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Container, NamedTuple

if TYPE_CHECKING:
    from .use_kind import UseKind

# Kinds that other files name as well.
CONSOLE = "console"
STORAGE = "storage"
NETWORK = "network"
CONSUMERS = "consumers"
GROUP = "group"
OPEN_NODE = "open"
# Not a reason to refuse, but what device_info reports of a device that a hanging driver holds.
BLOCKED = "blocked"

# Whether a user can accept a kind by ``allow``. The order is that of the option's choices.
_KINDS = {
    CONSOLE: True,
    STORAGE: True,
    NETWORK: True,
    CONSUMERS: True,
    "clock": True,
    "watchdog": True,
    GROUP: True,
    OPEN_NODE: False,
}
ACCEPTABLE = tuple(kind for kind, is_acceptable in _KINDS.items() if is_acceptable)


def load_kinds() -> dict[str, type[UseKind]]:
    """Return each kind by its name."""
    # Here, because nearly all runs change nothing and judge no device.
    from .clock import Clock  # noqa: PLC0415
    from .console import Console  # noqa: PLC0415
    from .consumers import Consumers  # noqa: PLC0415
    from .iommu_group import IommuGroup  # noqa: PLC0415
    from .network import Network  # noqa: PLC0415
    from .storage import Storage  # noqa: PLC0415
    from .vfio_nodes import VfioNodes  # noqa: PLC0415
    from .watchdog import Watchdog  # noqa: PLC0415

    kinds: list[type[UseKind]] = [
        Console,
        Storage,
        Network,
        Consumers,
        Clock,
        Watchdog,
        IommuGroup,
        VfioNodes,
    ]
    return {kind.name: kind for kind in kinds}


class Hazard(NamedTuple):
    """A reason not to take a device: ``kind`` of use, and the ``subject`` that is in use.

    If it ``is_fatal``, the kernel crashes or hangs when the driver goes, so that no user can
    accept it; ``fatal_remedy`` is what can be done instead, if it is not what its kind says.
    """

    kind: str
    subject: str
    sentence: str
    is_fatal: bool = False
    fatal_remedy: str = ""

    def is_accepted(self, allow: Container[str]) -> bool:
        """Return whether a user who allows these kinds accepts it."""
        return self.kind in allow and not self.is_fatal


def refusal(label: str, hazard: Hazard) -> str:
    """Return why the device that messages call ``label`` is refused, and the remedy."""
    kind = load_kinds()[hazard.kind]
    remedy = kind.fatal_remedy if hazard.is_fatal else kind.remedy
    remedy %= {"kind": hazard.kind, "subject": hazard.subject}
    if hazard.is_fatal and hazard.fatal_remedy:
        remedy = hazard.fatal_remedy
    return "%s %s: %s. %s" % (label, kind.verdict, hazard.sentence, remedy)
