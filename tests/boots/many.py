# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A list of 500 entries, and its cost."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import last_applied, udev_rules
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import (
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries

ENTRIES = 500
_KINDS: list[dict[str, Any]] = [
    {"dt_path": "/soc/device@%x", "policy": "vfio"},
    {"compatible": "acme,device-%x", "policy": "vfio", "required": False},
    {"acpi_path": "\\_SB_.D%03X", "policy": "no_autobind"},
    {"name": "%x.device", "policy": "driver", "driver": "acme-ring"},
]


class Figures(NamedTuple):
    """Milliseconds of the rendering, and of udev per event without and with the rules."""

    rendered: float
    without: float
    having: float

    @property
    def sentence(self) -> str:
        return (
            "rendered in %.1f ms here; udev on the guest takes %.2f ms for an event without the "
            "rules and %.2f ms with them, %.2f times as much\n"
            % (*self, self.having / self.without)
        )


def boot_files() -> dict[str, str | None]:
    """Return the boot files of the list by path; the list claims no device of a guest."""
    entries = parse_entries(
        [
            {key: value % number if "%" in str(value) else value for key, value in kind.items()}
            for number in range(ENTRIES // len(_KINDS))
            for kind in _KINDS
        ]
    )
    selectors = [entry.selector for entry in entries]
    settings = VfioSettings(reset_required=False, unsafe_noiommu=True)
    plan = last_applied.BootPlan(
        entries=entries,
        resolved=selectors,
        natives={},
        buses=["platform", "amba"],
        modules={},
        options=Options(settings),
    )
    return udev_rules.render(plan)


def milliseconds_to_render() -> float:
    begun = time.perf_counter()
    boot_files()
    return 1000 * (time.perf_counter() - begun)
