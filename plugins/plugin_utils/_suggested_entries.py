# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of a policy list that a host suggests for its devices. Pure.

Users paste them into their inventory, whose variables are templates. So a host chooses a device
with a selector that the modules accept, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.buses import BUSES
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector import KINDS
from ansible_collections.armfleet.vfio.plugins.module_utils._model.selector_entry import parse


def entry_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with a selector alone: a host chooses no policy."""
    selector = {key: given[key] for key in (*KINDS, "acpi_uid", "bus") if given.get(key)}
    return {**selector, "policy": "vfio"}


def is_accepted(entry: Mapping[str, Any]) -> bool:
    """Return whether the modules accept the selector of an entry."""
    if not all(isinstance(value, str) for value in entry.values()):
        return False
    if "bus" in entry and entry["bus"] not in BUSES:
        return False
    try:
        parse(entry)
    except PolicyError:
        return False
    return True
