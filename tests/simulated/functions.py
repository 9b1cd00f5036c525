# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A board of PCI functions, and a list that creates virtual ones and has a policy for each."""

from __future__ import annotations

from typing import Any

PHYSICAL, NETWORK, FIRST, SECOND = "0000:01:00.0", "0000:02:00.0", "0000:00:03.0", "0000:00:03.1"
VIRTUAL = ("0000:01:00.1", "0000:01:00.2", "0000:01:00.3")
NAMES = (PHYSICAL, *VIRTUAL, NETWORK, FIRST, SECOND)
YAML = f"""
drivers:
  - {{name: mlx5_core, bus: pci, pci_ids: ["15b3:101d", "15b3:101e"], sriov: removed}}
  - {{name: e1000e, bus: pci, pci_ids: ["8086:10d3"]}}
pci:
  - 0000:00:01.0 1b36:000c 060400 bus=01
  - {PHYSICAL} 15b3:101d 020000 vfs=4 vf_device=101e
  - 0000:00:02.0 1b36:000c 060400 bus=02
  - {NETWORK} 8086:10d3 020000
  - {FIRST} 8086:10d3 020000 acs=no
  - {SECOND} 8086:10d3 020000 acs=no
"""
LIST: list[dict[str, Any]] = [
    {"pci_address": NETWORK, "policy": "vfio"},
    {"pci_address": PHYSICAL, "pci_id": "15b3:101d", "policy": "default", "sriov_numvfs": 3},
    {"pci_address": VIRTUAL[0], "policy": "vfio", "tag": "queue"},
    {"pci_address": VIRTUAL[1], "policy": "no_autobind"},
    {"pci_address": FIRST, "policy": "vfio"},
    {"pci_address": SECOND, "policy": "no_autobind"},
]
SETTINGS: dict[str, Any] = {}
