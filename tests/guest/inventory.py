# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests as an Ansible inventory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .guest import Guest


def inventory_text(guests: Sequence[Guest]) -> str:
    """YAML; a scalar in JSON's notation is one in YAML's, whatever is in it."""
    lines = ["---", "all:", "  hosts:" if guests else "  hosts: {}"]
    for guest in guests:
        lines.append("    %s:" % guest.name)
        for key, value in guest.inventory_entry().items():
            lines.append("      %s: %s" % (key, json.dumps(value)))
    return "\n".join(lines) + "\n"


def write_inventory(path: Path | str, guests: Sequence[Guest]) -> None:
    """Write an inventory file of running guests."""
    Path(path).write_text(inventory_text(guests))
