# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare two states of a machine, without changes that no program can undo."""

from __future__ import annotations

import re

# State that a failed bind leaves in the kernel and that cannot be undone: the IOMMU group of the
# device, assigned at its first probe; that it was bound once; and the reset module that the kernel
# requested itself, with its dependencies.
LEFT_BY_THE_KERNEL = ("/iommu_group", "/waiting_for_supplier")
RESET_MODULE = "sys/module/vfio_platform_acmenet"
LEFT_WITH_IT = (
    RESET_MODULE,
    *(
        f"sys/module/{name}/"
        for name in ("vfio_platform_base", "vfio", "iommufd", "vfio_iommu_type1")
    ),
)
# The kernel drops a relaxed link to a supplier without a driver when the consumer is bound for the
# first time: device_links_driver_bound in drivers/base/core.c.
LINKS = "sys/class/devlink/"
# The kernel numbers devices and groups when it creates them: one that is created again can have
# another number.
NUMBERS = re.compile(r"(?<=/vfio)\d+|(?<=noiommu-)\d+|(?<=iommu_groups/)\d+|(?<=510:)\d+")


def differences(before: dict[str, str | None], after: dict[str, str | None]) -> dict[str, object]:
    """Return what changed, without changes that cannot be undone."""
    left = LEFT_BY_THE_KERNEL
    if RESET_MODULE in after.keys() - before.keys():
        left += LEFT_WITH_IT
    for path in before.keys() - after.keys():
        if path.startswith(LINKS):
            left += traces_of_link(path[len(LINKS) :])
    # Most entries are equal, and comparing them by patterns takes long.
    ends = [lasting(without(after, before), left), lasting(without(before, after), left)]
    return {
        path: tuple(end.get(path) for end in ends)
        for path in ends[0].keys() | ends[1].keys()
        if ends[0].get(path) != ends[1].get(path)
    }


def traces_of_link(name: str) -> tuple[str, ...]:
    """Return the paths in /sys of a device link, SUPPLIER--CONSUMER, each name with its bus."""
    supplier, consumer = name.split("--")
    ends = [end.partition(":")[2] for end in (supplier, consumer)]
    return (
        f"/devlink/{name}/",
        f"/{ends[0]}/consumer:{consumer}/",
        f"/{ends[1]}/supplier:{supplier}/",
    )


def without(other: dict[str, str | None], contents: dict[str, str | None]) -> dict[str, str | None]:
    """Return the entries of ``contents`` that ``other`` does not have or has with other values."""
    nowhere = object()
    return {
        path: content for path, content in contents.items() if other.get(path, nowhere) != content
    }


def lasting(contents: dict[str, str | None], left: tuple[str, ...]) -> dict[str, str | None]:
    """Return the contents without the paths in ``left``, and with the kernel's numbers masked."""
    return {
        NUMBERS.sub("#", path): NUMBERS.sub("#", content) if content else content
        for path, content in contents.items()
        if not any(trace in path + "/" for trace in left)
    }
