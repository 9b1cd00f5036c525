# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is reported of devices that VFIO accepts, though nothing speaks against it. Reads only.

It is loaded by runs that have something to do.
"""

from __future__ import annotations

from typing import Sequence

from .. import _text
from .._boot import modprobe_d
from .._boot.last_applied import MODPROBE
from .._discovery.isolation import Isolation
from .._discovery.kernel_version import Version, running_version
from .._discovery.pci_iommus import PciIommus
from .._discovery.vfio import is_in_noiommu_group, is_resettable
from .._model.buses import BUSES, Deprecation
from .._model.device import Identity
from .._model.policy import VFIO
from .._model.steps import DevicePlan, HostStepKind
from .._system.host import Host
from .planner import Plan
from .readiness import UNSAFE_INTERRUPTS, is_set_at_boot, no_group_reason, will_be_on

_NOT_ISOLATED = (
    "The kernel does not isolate the interrupts of %%s, so%s user space that opens them through a "
    "container is refused (EPERM of vfio_iommu_type1). To accept that such a device can raise "
    "interrupts of other devices, set `unsafe_interrupts: true`; if only iommufd is used, set it "
    "to `false`"
)
_NOW, _AT_BOOT = "", " from the next boot on"
_NOT_RESETTABLE = "The kernel cannot reset %s, so each user finds it as the last one left it"
_DEPRECATED = "Linux %d.%d announces for %s: %s"
_LOGGED = "The kernel log has: %r"
# drivers/vfio/platform/reset, each when the device is reset for the first time.
_RESETS = {
    compatible: Deprecation(
        "VFIO %s platform reset is deprecated and will be removed in a future kernel release"
        % title,
        (6, 18),
    )
    for compatible, title in (
        ("calxeda,hb-xgmac", "Calxeda xgmac"),
        ("amd,xgbe-seattle-v1a", "AMD XGBE"),
        ("brcm,iproc-flexrm-mbox", "Broadcom FlexRM"),
    )
}


def find_notices(host: Host, plan: Plan, logged: Sequence[str]) -> list[str]:
    """Return sentences; ``logged`` is what the kernel announced as the plan was applied."""
    bound = [device_plan for device_plan in plan.devices if device_plan.binds_to_vfio]
    return [
        *_not_resettable(host, plan, bound),
        *_deprecated(running_version(host.files), bound, logged),
        *_not_isolated(host, plan),
    ]


def _not_resettable(host: Host, plan: Plan, bound: Sequence[DevicePlan]) -> list[str]:
    """Return which PCI functions VFIO cannot reset between two users; one sentence each."""
    created = plan.desired.claimed.created
    return [
        _NOT_RESETTABLE % device.label
        for device in [device_plan.device for device_plan in bound]
        if device.pci_address and device not in created and not is_resettable(host.sysfs, device)
    ]


def _deprecated(
    version: Version | None, bound: Sequence[DevicePlan], logged: Sequence[str]
) -> list[str]:
    """Return what the kernel announces the end of. It logs each once, at the first use."""
    labels: dict[str, list[str]] = {}
    for device in (device_plan.device for device_plan in bound):
        for deprecation in _deprecations(device):
            if deprecation.holds_for(version):
                labels.setdefault(deprecation.text, []).append(device.label)
    others = [text for text in logged if not any(known in text for known in labels)]
    return [
        *(
            _DEPRECATED % (*(version or ()), _text.listed(devices), text)
            for text, devices in labels.items()
        ),
        *(_LOGGED % text for text in others),
    ]


def _deprecations(device: Identity) -> list[Deprecation]:
    bus = BUSES[device.bus]
    reset = _RESETS.get(device.compatible[0]) if bus.vfio_resets and device.compatible else None
    return [deprecation for deprecation in (bus.vfio_deprecation, reset) if deprecation]


def _not_isolated(host: Host, plan: Plan) -> list[str]:
    """Return which devices containers refuse, unless the list says whether they are to be used."""
    wanted = plan.request.settings
    if wanted.unsafe_interrupts is not None:
        return []
    devices = _for_vfio(host, plan)
    if not devices:
        return []
    when = _refused_from(host, plan)
    if when is None:
        return []
    isolation = Isolation(host.sysfs, host.files)
    labels = [device.label for device in devices if isolation.of_group(device) is False]
    return [_NOT_ISOLATED % when % _text.listed(labels)] if labels else []


def _for_vfio(host: Host, plan: Plan) -> list[Identity]:
    """Return the devices that a call leaves to VFIO, now or at the next boot, with an IOMMU."""
    if plan.request.runtime:
        devices = [device_plan.device for device_plan in plan.devices if device_plan.is_for_vfio]
    else:
        claims = plan.desired.claimed.by_list
        devices = [claim.device for claim in claims if claim.policy.kind == VFIO]
    pci_iommus = PciIommus(host.sysfs)
    return [
        device
        for device in devices
        if not is_in_noiommu_group(host.sysfs, device)
        and not no_group_reason(host.sysfs, device, pci_iommus)
    ]


def _refused_from(host: Host, plan: Plan) -> str | None:
    """Return from when on containers refuse devices that are not isolated; None if they do not."""
    request = plan.request
    is_restored = any(step.kind is HostStepKind.RESTORE_INTERRUPTS for step in plan.host_steps)
    is_on = not is_restored and will_be_on(
        host.sysfs, host.kmod, request.settings, UNSAFE_INTERRUPTS
    )
    if request.runtime and not is_on:
        return _NOW
    if not (request.is_whole_list and request.persistent):
        return None
    foreign = modprobe_d.lines(host.files, MODPROBE)
    return None if is_set_at_boot(host.sysfs, foreign, UNSAFE_INTERRUPTS) else _AT_BOOT
