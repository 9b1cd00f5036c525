# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which settings of VFIO are restored, and why others stay. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._boot import modprobe_d
from .._boot.last_applied import MODPROBE, LastApplied
from .._discovery.vfio import NOIOMMU_GROUP, present_settings
from .._model.buses import RESETTING
from .._model.policy import VFIO
from .._model.request import Request
from .._model.steps import DevicePlan, HostStep, HostStepKind
from .._system.host import Host
from .._system.sysfs import Sysfs

_PARAMETER = "vfio.enable_unsafe_noiommu_mode"
_STAYS = "%s stays Y: %%s" % _PARAMETER


class Noiommu(NamedTuple):
    """What becomes of ``unsafe_noiommu``.

    ``before`` is what it was before a list turned it on, as far as that has to be remembered;
    ``kept`` is why it stays on though nothing here asks for it.
    """

    before: bool | None = None
    steps: Sequence[HostStep] = ()
    kept: str | None = None


def reset_kept(host: Host, request: Request, last_applied: LastApplied) -> str | None:
    """Return why ``reset_required`` stays off though the list does not ask for it any more."""
    is_given_up = not request.entries or request.settings.reset_required is None
    if (
        last_applied.options.settings.reset_required is not False
        or not (request.is_whole_list and request.runtime and is_given_up)
        or present_settings(host.sysfs).reset_required is not False
    ):
        return None
    return (
        "%s.reset_required stays N: the kernel accepts it only when the module is loaded. Unload "
        "the module once no device is bound to it ('modprobe -r %s'); it is then loaded with its "
        "configured value" % (RESETTING.vfio_module, RESETTING.vfio_driver)
    )


def noiommu(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    last_applied: LastApplied,
) -> Noiommu:
    """Turn the setting off if a list turned it on, none does now, and no device needs it.

    ``steps`` are those of the host that ``plans`` need.
    """
    if not request.is_whole_list:
        return _of_release(host, request, plans)
    is_wanted = bool(request.entries) and request.settings.unsafe_noiommu is True
    if is_wanted:
        return Noiommu(_before(host, last_applied))
    before = last_applied.noiommu_before
    is_ours = before is not None or last_applied.options.settings.unsafe_noiommu is True
    if not is_ours or not request.runtime:
        return Noiommu(before)
    is_set = any(step.kind is HostStepKind.SET_NOIOMMU for step in steps)
    if is_set or not present_settings(host.sysfs).unsafe_noiommu:
        return Noiommu()
    if before is None:
        return Noiommu(kept=_STAYS % "its previous value is unknown")
    if before:
        why = "it was Y before a list with `unsafe_noiommu: true` was applied"
        return Noiommu(before, kept=_STAYS % why)
    return _turned_off(host.sysfs, plans, before)


def _of_release(host: Host, request: Request, plans: Sequence[DevicePlan]) -> Noiommu:
    """For a module that remembers nothing of what it turned on."""
    releases = any(plan.policy.release_of and plan.policy.release_of.kind == VFIO for plan in plans)
    if not releases or not present_settings(host.sysfs).unsafe_noiommu:
        return Noiommu()
    if request.settings.unsafe_noiommu is False:
        return _turned_off(host.sysfs, plans, None)
    why = "its previous value is unknown. Set `unsafe_noiommu: false` to turn it off"
    return Noiommu(kept=_STAYS % why)


def _turned_off(sysfs: Sysfs, plans: Sequence[DevicePlan], before: bool | None) -> Noiommu:
    users = _users(sysfs, plans)
    if users:
        verb = "is" if len(users) == 1 else "are"
        why = "%s %s bound to VFIO without an IOMMU" % (", ".join(users), verb)
        return Noiommu(before, kept=_STAYS % why)
    return Noiommu(steps=[HostStep(HostStepKind.RESTORE_NOIOMMU, "N")])


def _users(sysfs: Sysfs, plans: Sequence[DevicePlan]) -> list[str]:
    """Return devices bound to VFIO without an IOMMU, as "bus/name", but those that leave it."""
    leaving = {plan.device.name_on_bus for plan in plans if not plan.is_for_vfio}
    users = []
    for group in sysfs.names("kernel/iommu_groups"):
        directory = "kernel/iommu_groups/%s" % group
        if sysfs.read(directory + "/name") == NOIOMMU_GROUP:
            for name in sysfs.names(directory + "/devices"):
                bus = sysfs.link_name("%s/devices/%s/subsystem" % (directory, name))
                users.append("%s/%s" % (bus, name))
    return [device for device in users if device not in leaving]


def _before(host: Host, last_applied: LastApplied) -> bool | None:
    """Return the setting before the list that turned it on, or None if it is unknown."""
    if (
        last_applied.noiommu_before is not None
        or last_applied.options.settings.unsafe_noiommu is True
    ):
        return last_applied.noiommu_before
    present = present_settings(host.sysfs).unsafe_noiommu
    if present is not None:
        return present
    # What vfio is loaded with, but for this collection.
    value = modprobe_d.value_at_boot(modprobe_d.lines(host.files, MODPROBE), _PARAMETER)
    return value is not None and modprobe_d.is_true(value) is True
