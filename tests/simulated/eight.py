# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A board of eight devices, and a list with policies of several kinds for them."""

from __future__ import annotations

from typing import Any

from extensions.simulator.description import Description, Driver, Habits
from tests.simulated.boards import Part, device_tree

NAMES = (
    "1000.net",
    "2000.crypto",
    "3000.dma",
    "4000.timer",
    "5000.net",
    "6000.crypto",
    "7000.dma",
    "8000.timer",
)
TREE = device_tree(
    [
        # The second is on the AMBA bus, the last has no IOMMU.
        Part(name.partition(".")[2], number == 1, number != 7, number == 2, number > 3, None)
        for number, name in enumerate(NAMES)
    ]
)
DRIVERS = (Driver("acme-uio"), Driver("acme-late", module="acme_late"))
DESCRIPTION = Description(kernel=Habits(groups_at_boot=True), drivers=DRIVERS)
YAML = """
kernel: {groups_at_boot: true}
drivers:
  - {name: acme-uio}
  - {name: acme-late, module: acme_late}
"""
LIST: list[dict[str, Any]] = [
    {"name": NAMES[0], "policy": "vfio"},
    {"name": NAMES[1], "policy": "vfio"},
    {"name": NAMES[2], "policy": "no_autobind"},
    {"name": NAMES[3], "policy": "driver", "driver": "acme-uio"},
    {"name": NAMES[4], "policy": "vfio"},
    {"name": NAMES[5], "policy": "vfio"},
    {"name": NAMES[6], "policy": "no_autobind"},
    {"name": NAMES[7], "policy": "vfio"},
]
SETTINGS: dict[str, Any] = {
    "reset_required": False,
    "unsafe_noiommu": True,
    "unsafe_interrupts": True,
}
