# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which settings of VFIO are restored, and why others stay. Reads only."""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

from .._boot import modprobe_d
from .._boot.last_applied import MODPROBE, LastApplied
from .._boot.vfio_parameters import is_true
from .._discovery.devices import with_all_ids
from .._discovery.vfio import NOIOMMU_GROUP, present_settings
from .._model.buses import BUSES, RESETTING, is_vfio_driver
from .._model.device import Identity
from .._model.policy import CONTAINER_MODULE, VFIO, VfioSettings
from .._model.request import Request
from .._model.steps import DevicePlan, HostStep, HostStepKind
from .._system.host import Host
from .._system.sysfs import Sysfs

_GROUPS = "kernel/iommu_groups"


class Unsafe(NamedTuple):
    """What becomes of the settings by which VFIO accepts more than the kernel finds safe.

    ``before`` is what they were before a list turned them on, as far as that has to be remembered;
    ``kept`` is why one stays on though nothing here asks for it.
    """

    before: VfioSettings = VfioSettings()
    steps: Sequence[HostStep] = ()
    kept: Sequence[str] = ()


class _Setting(NamedTuple):
    """One of these settings, by its ``option``.

    ``users`` returns devices that need it, as "bus/name", and ``use`` is what they are.
    """

    option: str
    parameter: str
    set_by: HostStepKind
    restored_by: HostStepKind
    users: Callable[[Host], list[str]]
    use: str

    def of(self, settings: VfioSettings) -> bool | None:
        """Return its value in ``settings``."""
        value: bool | None = getattr(settings, self.option)
        return value

    def stays(self, reason: str) -> str:
        return "%s stays Y: %s" % (self.parameter, reason)

    @property
    def stays_until_asked(self) -> str:
        reason = "its previous value is unknown. Set `%s: false` to turn it off" % self.option
        return self.stays(reason)


class _Outcome(NamedTuple):
    """The same as Unsafe, of one setting."""

    before: bool | None = None
    step: HostStep | None = None
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


def unsafe_settings(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    last_applied: LastApplied,
) -> Unsafe:
    """Turn settings off that a list turned on, if none does now and no device needs them.

    ``steps`` are those of the host that ``plans`` need.
    """
    outcomes = {
        setting.option: _of_list(
            host, request, plans, steps=steps, last_applied=last_applied, setting=setting
        )
        if request.is_whole_list
        else _of_release(host, request, plans, setting)
        for setting in _SETTINGS
    }
    return Unsafe(
        VfioSettings(**{option: outcome.before for option, outcome in outcomes.items()}),
        [outcome.step for outcome in outcomes.values() if outcome.step],
        [outcome.kept for outcome in outcomes.values() if outcome.kept],
    )


def _of_list(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    steps: Sequence[HostStep],
    last_applied: LastApplied,
    setting: _Setting,
) -> _Outcome:
    is_wanted = bool(request.entries) and setting.of(request.settings) is True
    if is_wanted:
        return _Outcome(_before(host, last_applied, setting))
    before = setting.of(last_applied.before)
    is_ours = before is not None or setting.of(last_applied.options.settings) is True
    if not request.runtime or (request.persistent and not is_ours):
        return _Outcome(before)
    is_set = any(step.kind is setting.set_by for step in steps)
    if is_set or not setting.of(present_settings(host.sysfs)):
        return _Outcome()
    if not is_ours:
        return _of_the_moment(host, request, plans, setting)
    if before is None:
        return _Outcome(kept=setting.stays("its previous value is unknown"))
    if before:
        reason = "it was Y before a list with `%s: true` was applied" % setting.option
        return _Outcome(before, kept=setting.stays(reason))
    return _turned_off(host, plans, before, setting)


def _of_release(
    host: Host, request: Request, plans: Sequence[DevicePlan], setting: _Setting
) -> _Outcome:
    """For a module that remembers nothing of what it turned on."""
    releases = any(plan.policy.release_of and plan.policy.release_of.kind == VFIO for plan in plans)
    if not releases or not setting.of(present_settings(host.sysfs)):
        return _Outcome()
    if setting.of(request.settings) is False:
        return _turned_off(host, plans, None, setting)
    return _Outcome(kept=setting.stays_until_asked)


def _of_the_moment(
    host: Host, request: Request, plans: Sequence[DevicePlan], setting: _Setting
) -> _Outcome:
    """For a list without persistence: what an earlier one turned on is recorded nowhere."""
    if setting.of(request.settings) is False:
        return _turned_off(host, plans, None, setting)
    if _is_on_at_boot(host, setting):
        return _Outcome()
    return _Outcome(kept=setting.stays_until_asked)


def _turned_off(
    host: Host, plans: Sequence[DevicePlan], before: bool | None, setting: _Setting
) -> _Outcome:
    leaving = {plan.device.name_on_bus for plan in plans if not plan.is_for_vfio}
    users = [device for device in setting.users(host) if device not in leaving]
    if users:
        verb = "is" if len(users) == 1 else "are"
        reason = "%s %s %s" % (", ".join(users), verb, setting.use)
        return _Outcome(before, kept=setting.stays(reason))
    return _Outcome(step=HostStep(setting.restored_by, "N"))


def _before(host: Host, last_applied: LastApplied, setting: _Setting) -> bool | None:
    """Return the setting before the list that turned it on, or None if it is unknown."""
    recorded = setting.of(last_applied.before)
    if recorded is not None or setting.of(last_applied.options.settings) is True:
        return recorded
    present = setting.of(present_settings(host.sysfs))
    if present is not None:
        return present
    return _is_on_at_boot(host, setting)


def _is_on_at_boot(host: Host, setting: _Setting) -> bool:
    """Return whether its module is loaded with it, but for this collection."""
    lines = modprobe_d.lines(host.files, MODPROBE)
    value = modprobe_d.value_at_boot(lines, setting.parameter)
    return value is not None and is_true(value) is True


def _without_iommu(host: Host) -> list[str]:
    """Return devices bound to VFIO without an IOMMU."""
    sysfs = host.sysfs
    return [
        "%s/%s" % (sysfs.link_name(path + "/subsystem"), path.rpartition("/")[2])
        for group in sysfs.names(_GROUPS)
        if _is_noiommu(sysfs, group)
        for path in _members(sysfs, group)
    ]


def _not_isolated(host: Host) -> list[str]:
    """Return devices bound to VFIO, with an IOMMU, whose interrupts may not be isolated."""
    # Here, because nearly all runs have nothing to turn off.
    from .._discovery.isolation import (  # noqa: PLC0415
        Isolation,
    )

    sysfs = host.sysfs
    isolation = Isolation(sysfs, host.files)
    bound = [
        Identity(bus, path.rpartition("/")[2])
        for group in sysfs.names(_GROUPS)
        if not _is_noiommu(sysfs, group)
        for path in _members(sysfs, group)
        for bus in [sysfs.link_name(path + "/subsystem")]
        if bus in BUSES and is_vfio_driver(sysfs.link_name(path + "/driver"), bus)
    ]
    return [
        device.name_on_bus
        for device in bound
        if isolation.of_group(with_all_ids(sysfs, device)) is not True
    ]


def _is_noiommu(sysfs: Sysfs, group: str) -> bool:
    return sysfs.read("%s/%s/name" % (_GROUPS, group)) == NOIOMMU_GROUP


def _members(sysfs: Sysfs, group: str) -> list[str]:
    directory = "%s/%s/devices" % (_GROUPS, group)
    return ["%s/%s" % (directory, name) for name in sysfs.names(directory)]


_SETTINGS = (
    _Setting(
        option="unsafe_noiommu",
        parameter="vfio.enable_unsafe_noiommu_mode",
        set_by=HostStepKind.SET_NOIOMMU,
        restored_by=HostStepKind.RESTORE_NOIOMMU,
        users=_without_iommu,
        use="bound to VFIO without an IOMMU",
    ),
    _Setting(
        option="unsafe_interrupts",
        parameter=CONTAINER_MODULE + ".allow_unsafe_interrupts",
        set_by=HostStepKind.SET_INTERRUPTS,
        restored_by=HostStepKind.RESTORE_INTERRUPTS,
        users=_not_isolated,
        use="bound to VFIO, with interrupts that may not be isolated",
    ),
)
