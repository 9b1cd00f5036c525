# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between two moments of a machine, but for what no program can take back."""

from __future__ import annotations

import re

# What a failed bind leaves in the kernel, and nobody can take back: the group that the device was
# given when it was tried first, that it was bound once, and the reset module that the kernel asked
# for itself, with what that needs.
LEFT_BY_THE_KERNEL = ("/iommu_group", "/waiting_for_supplier")
RESET_MODULE = "sys/module/vfio_platform_acmenet"
LEFT_WITH_IT = (
    RESET_MODULE,
    *(
        f"sys/module/{name}/"
        for name in ("vfio_platform_base", "vfio", "iommufd", "vfio_iommu_type1")
    ),
)
# A relaxed link to a supplier that has no driver goes when its consumer is bound for the first
# time: device_links_driver_bound in drivers/base/core.c.
LINKS = "sys/class/devlink/"
# Devices and groups are numbered as they come, and one that comes back can have another number.
NUMBERS = re.compile(r"(?<=/vfio)\d+|(?<=noiommu-)\d+|(?<=iommu_groups/)\d+|(?<=510:)\d+")


def differences(before: dict[str, str | None], after: dict[str, str | None]) -> dict[str, object]:
    """Return what changed, but for what nobody can take back."""
    left = LEFT_BY_THE_KERNEL
    if RESET_MODULE in after.keys() - before.keys():
        left += LEFT_WITH_IT
    for path in before.keys() - after.keys():
        if path.startswith(LINKS):
            left += traces_of_link(path[len(LINKS) :])
    # Most is the same, and takes long to compare by patterns.
    ends = [lasting(without(after, before), left), lasting(without(before, after), left)]
    return {
        path: tuple(end.get(path) for end in ends)
        for path in ends[0].keys() | ends[1].keys()
        if ends[0].get(path) != ends[1].get(path)
    }


def traces_of_link(name: str) -> tuple[str, ...]:
    """What shows a device link in /sys; it is called SUPPLIER--CONSUMER, each with its bus."""
    supplier, consumer = name.split("--")
    ends = [end.partition(":")[2] for end in (supplier, consumer)]
    return (
        f"/devlink/{name}/",
        f"/{ends[0]}/consumer:{consumer}/",
        f"/{ends[1]}/supplier:{supplier}/",
    )


def without(other: dict[str, str | None], contents: dict[str, str | None]) -> dict[str, str | None]:
    """Return what ``contents`` has otherwise than ``other``."""
    nowhere = object()
    return {
        path: content for path, content in contents.items() if other.get(path, nowhere) != content
    }


def lasting(contents: dict[str, str | None], left: tuple[str, ...]) -> dict[str, str | None]:
    """Without traces of the kernel's own, and without the numbers that it hands out."""
    return {
        NUMBERS.sub("#", path): NUMBERS.sub("#", content) if content else content
        for path, content in contents.items()
        if not any(trace in path + "/" for trace in left)
    }
