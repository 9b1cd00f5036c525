# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps in words, for results and for the error of a step that failed. Pure."""

from __future__ import annotations

from .._model.steps import HostStep, HostStepKind, Step, StepKind

_HOST = {
    HostStepKind.LOAD_MODULE: "load module %s",
    HostStepKind.RELOAD_MODULE: "reload module %s",
    HostStepKind.SET_NOIOMMU: "set vfio.enable_unsafe_noiommu_mode to %s",
    HostStepKind.RESTORE_NOIOMMU: (
        "set vfio.enable_unsafe_noiommu_mode to %s, its value before `unsafe_noiommu: true` was "
        "applied"
    ),
    HostStepKind.SET_INTERRUPTS: "set vfio_iommu_type1.allow_unsafe_interrupts to %s",
    HostStepKind.RESTORE_INTERRUPTS: (
        "set vfio_iommu_type1.allow_unsafe_interrupts to %s, its value before `unsafe_interrupts: "
        "true` was applied"
    ),
    HostStepKind.REMOVE_LINK: "remove the link %s",
}
_DEVICE = {
    StepKind.LOAD_MODULE: "load the native driver's module %s",
    StepKind.UNBIND: "unbind from %s",
    StepKind.BIND: "bind to %s",
}


def of_host_step(step: HostStep) -> str:
    """Return what is done, in the imperative."""
    parameters = "".join(" with %s=%s" % item for item in step.parameters.items())
    return _HOST[step.kind] % step.value + parameters


def of_step(step: Step) -> str:
    """Return what is done with the device, in the imperative."""
    if step.kind is StepKind.SET_OVERRIDE:
        if step.value is None:
            return "clear driver_override (was %s)" % step.before
        return "set driver_override to %s (was %s)" % (step.value, step.before or "unset")
    if step.kind is StepKind.SET_NUMVFS:
        return "set sriov_numvfs to %s (was %s)" % (step.value, step.before)
    if step.kind is StepKind.PROBE:
        return "release to %s" % (step.value or "any driver that matches; none is known")
    if step.kind is StepKind.SET_NODE_ACCESS:
        return "set access to its nodes in /dev/vfio to %s" % (step.access and step.access.label)
    if step.kind is StepKind.LINK_NODES:
        return "link its nodes in /dev/vfio as %s" % " and ".join(step.links)
    return _DEVICE[step.kind] % step.value + step.note
