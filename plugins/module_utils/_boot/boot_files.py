# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the files for the next boot, and finds what conflicts with them. Reads only."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from .._discovery.devices import reference_path, states, sysfs_dir
from .._discovery.driver_names import misnamed
from .._discovery.vfio import is_built_in, is_in_noiommu_group
from .._errors import PolicyError
from .._model.buses import BUSES, VFIO_DRIVERS
from .._model.claimed import Claimed
from .._model.device import Identity
from .._model.plan import is_native, is_settled, is_still_applied, override_of
from .._model.policy import (
    ALWAYS,
    CONTAINER_MODULE,
    DEFAULT,
    NEVER,
    VFIO,
    VFIO_DEFAULTS,
    Claim,
)
from .._model.policy_list import Entry
from .._model.request import Request
from .._model.selector import Selector
from .._model.steps import DevicePlan, Problem
from .._system import kmod
from .._system.files import FileChange, Files
from .._system.host import Host
from .._system.kernel_parameters import KERNEL_COMMAND_LINE
from . import (
    driverctl,
    foreign_initramfs,
    foreign_node_access,
    foreign_udev,
    in_sync,
    initramfs,
    kmod_conf,
    last_applied,
    modprobe_d,
    volatile,
)
from .installed_kernels import InstalledKernels
from .last_applied import BootPlan, LastApplied
from .matched_devices import matched_devices
from .module_loading import ModuleLoading
from .vfio_parameters import is_true

_NO_CONTAINERS = (
    "%s, so vfio_iommu_type1 is not loaded at boot, and user space cannot open devices through a "
    "container (ENODEV). Remove that line or parameter, unless all programs use iommufd"
)
_MAY_LOAD = (
    "%s, so whether %s is loaded at boot depends on that command. If it sets driver_override, add "
    "its devices to this list and remove the line, so that one configuration decides"
)
_BUILT_IN = (
    "%s is built into this kernel, so modprobe.d does not set its parameters at boot. Add %s=%d to "
    "the kernel command line"
)
_ONLY_LATER = (
    "The list applies when the root file system is mounted, not in the initramfs. %s. Then set "
    "`initramfs: never`"
)
_WAITS = "The last-applied configuration of armfleet.vfio.host_policy waits for the next boot.\n"


class Initramfs(NamedTuple):
    """What builds this host's initramfs, and the command that has to; None if nothing does."""

    tool: str | None = None
    command: Sequence[str] | None = None


class BootFileChanges(NamedTuple):
    """Changes of files, and why they would not make the next boot as asked.

    ``needs_boot`` is whether that boot is to change a device of this running system; ``records``
    are files that say so, not files for the boot itself.
    """

    files: list[FileChange]
    conflicts: list[Problem]
    needs_boot: bool
    initramfs: Initramfs = Initramfs()
    records: Sequence[FileChange] = ()
    warnings: Sequence[str] = ()

    def accepts_less_than(self, allow: Sequence[str]) -> bool:
        """Return whether a boot is waited for, and fewer kinds of use were accepted for it."""
        waiting = self.records[0].after if self.records else None
        return waiting is not None and not set(allow) <= set(last_applied.accepted(waiting))


class _Judgement(NamedTuple):
    """Foreign configuration that prevents what was asked for, and warnings of what may."""

    conflicts: Sequence[Problem]
    warnings: Sequence[str]


def contents(files: Files) -> dict[str, str | None]:
    """Return our files on the host by their paths, and what somebody else wrote in their place."""
    return {path: files.read(path) for path in in_sync.PATHS}


def not_ours(files: Files, contents: Mapping[str, str | None]) -> list[str]:
    """Return why files of our names cannot be replaced; one sentence each."""
    return [
        problem
        for path, content in contents.items()
        if not in_sync.is_lost(files, path, content)
        for problem in last_applied.not_ours(path, content)
    ]


def plan_boot_files(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    previous: LastApplied,
    before: Mapping[str, str | None],
    claimed: Claimed,
) -> BootFileChanges:
    """Return what a call changes for the next boot; ``before`` are our files as they are."""
    if not (request.is_whole_list and request.persistent):
        return BootFileChanges([], [], needs_boot=False)
    boot_plan, without_rule = _boot_plan(host, request, plans, previous, claimed)
    claims = claimed.by_list
    tool = None if request.initramfs == NEVER else initramfs.detect(host.files)
    if tool:
        boot_plan = _with_initramfs(host, tool, claims, boot_plan)
    rendered = in_sync.render(boot_plan)
    stored_overrides = _claimed_by_driverctl(host, claims)
    files = _changes(host, before, rendered)
    if request.takes_over:
        files += [kept.removal for kept in stored_overrides.values() if kept.removal]
    is_changed = any(change.is_needed for change in files)
    of_rules = _judge_rules(host, claims, request)
    of_modules = _judge_modules(host, request, claims, boot_plan)
    of_images = initramfs.ForeignProblems()
    if request.initramfs != NEVER and request.entries:
        contents = _image_contents(host, claims, boot_plan, rendered)
        of_images = _image_problems(host, request, tool, contents, is_changed=is_changed)
    needs_boot = not request.runtime and (
        bool(claimed.numvfs) or _needs_boot(host, claims, previous, claimed)
    )
    rebuild = _initramfs_of(host, tool, files)
    return BootFileChanges(
        files=files,
        conflicts=[
            *without_rule,
            *claimed.conflicts,
            *_driverctl_conflicts(request, stored_overrides),
            *of_rules.conflicts,
            *of_modules.conflicts,
            *([] if request.runtime else _misnamed(host, claims)),
            *map(Problem, of_images.conflicts),
        ],
        needs_boot=needs_boot,
        initramfs=rebuild,
        records=[
            _waiting(host, needs_boot, is_changed=is_changed),
            *_outdated(host, rebuild, files),
        ],
        warnings=[
            *_unreliable(host, rendered, may_be_lost=is_changed and bool(request.entries)),
            *of_rules.warnings,
            *of_images.warnings,
            *of_modules.warnings,
        ],
    )


def _changes(
    host: Host, before: Mapping[str, str | None], rendered: Mapping[str, str | None]
) -> list[FileChange]:
    """Return the changes of our files, and those of an initramfs tool that has or needs one."""
    return [
        FileChange(path, before[path], content, in_sync.damage(host.files, path, content))
        for path, content in rendered.items()
        if path in last_applied.PATHS or before[path] is not None or content
    ]


def _driverctl_conflicts(
    request: Request, stored_overrides: Mapping[Identity, driverctl.Stored]
) -> list[Problem]:
    return [
        Problem(kept.conflict(device), device)
        for device, kept in stored_overrides.items()
        if not kept.ignored and not (request.takes_over and kept.removal)
    ]


def _waiting(host: Host, needs_boot: bool, *, is_changed: bool) -> FileChange:
    """Return the change of the record that the next boot is waited for."""
    before = host.files.read_own(last_applied.WAITS_FOR_BOOT)
    # What was accepted counts as long as the list is the same.
    record = _WAITS if before is None or is_changed else before
    return FileChange(last_applied.WAITS_FOR_BOOT, before, record if needs_boot else None)


def _unreliable(host: Host, rendered: Mapping[str, str | None], *, may_be_lost: bool) -> list[str]:
    """Return warnings of files that others can replace, or that are lost if that matters."""
    written = [path for path, content in rendered.items() if content is not None]
    lost = volatile.warning(host.files, written) if may_be_lost else None
    replaceable = in_sync.unsafe_directories(host.files, written).values()
    return [*replaceable, *([lost] if lost else [])]


def _image_contents(
    host: Host,
    claims: Sequence[Claim],
    boot_plan: BootPlan,
    rendered: Mapping[str, str | None],
) -> initramfs.ImageContents:
    return initramfs.ImageContents(
        in_sync.initramfs_files(rendered),
        boot_plan.initramfs_modules or _image_modules(host, claims, boot_plan),
    )


def _image_problems(
    host: Host,
    request: Request,
    tool: initramfs.InitramfsTool | None,
    contents: initramfs.ImageContents,
    *,
    is_changed: bool,
) -> initramfs.ForeignProblems:
    """Return why the list cannot be brought into an initramfs, or not by this collection."""
    is_required = request.initramfs == ALWAYS
    if tool is None:
        if is_required:
            return initramfs.ForeignProblems([initramfs.no_tool(host.files, contents)])
        manually = None
        if is_changed:
            manually = foreign_initramfs.remedy(host.files, contents.files, contents.modules)
        return initramfs.ForeignProblems((), [_ONLY_LATER % manually] if manually else [])
    if is_required and not tool.can_rebuild:
        return initramfs.ForeignProblems([tool.image_required])
    return tool.foreign_problems(contents)


def _outdated(host: Host, rebuild: Initramfs, files: Sequence[FileChange]) -> list[FileChange]:
    """Return the record that the images are older than the boot files, until they were rebuilt."""
    if rebuild.command is None or not any(change.is_needed for change in files):
        return []
    after = initramfs.outdated(change.after for change in files)
    return [FileChange(initramfs.OUTDATED, host.files.read_own(initramfs.OUTDATED), after)]


def accepting(change: FileChange, kinds: Sequence[str]) -> FileChange:
    """Return the change, with the accepted kinds of use if its file waits for the boot."""
    if change.path != last_applied.WAITS_FOR_BOOT or change.after is None:
        return change
    every = sorted({*kinds, *last_applied.accepted(change.after)})
    return change._replace(after="%s%s%s\n" % (_WAITS, last_applied.ACCEPTED, ", ".join(every)))


def _with_initramfs(
    host: Host, tool: initramfs.InitramfsTool, claims: Sequence[Claim], boot_plan: BootPlan
) -> BootPlan:
    names = _image_modules(host, claims, boot_plan)
    if not names and tool.includes_boot_files:
        return boot_plan
    return boot_plan._replace(initramfs_tool=tool.name, initramfs_modules=names)


def _image_modules(host: Host, claims: Sequence[Claim], boot_plan: BootPlan) -> list[str]:
    return initramfs.modules(
        host.files,
        boot_plan.vfio_drivers,
        [
            claim.device.reset_compatible
            for claim in claims
            if claim.policy.kind == VFIO and claim.device.reset_compatible
        ],
        boot_plan.modules.values(),
    )


def _initramfs_of(
    host: Host, tool: initramfs.InitramfsTool | None, files: Sequence[FileChange]
) -> Initramfs:
    if tool is None:
        return Initramfs()
    if not tool.can_rebuild:
        return Initramfs(tool.name, None)
    is_needed = any(change.is_needed for change in files) or initramfs.is_stale(
        host.files, [change.path for change in files]
    )
    return Initramfs(tool.name, tool.command if is_needed else None)


def _needs_boot(
    host: Host, claims: Sequence[Claim], previous: LastApplied, claimed: Claimed
) -> bool:
    kept = {claim.device for claim in claims}
    earlier = [
        (device, entry.policy)
        for entry, devices in zip(previous.entries, claimed.earlier)
        for device in devices
        if device not in kept
    ]
    devices = [claim.device for claim in claims] + [device for device, _policy in earlier]
    present_states = states(host.sysfs, devices)
    is_right = [
        is_settled(claim.policy, claim.device, state)
        for claim, state in zip(claims, present_states)
    ]
    is_free = [
        policy.kind == DEFAULT or not is_still_applied(policy, device.bus, state)
        for (device, policy), state in zip(earlier, present_states[len(claims) :])
    ]
    return not all(is_right + is_free)


def _boot_plan(
    host: Host,
    request: Request,
    plans: Sequence[DevicePlan],
    previous: LastApplied,
    claimed: Claimed,
) -> tuple[BootPlan, list[Problem]]:
    """Return the plan, and those entries of which no rule can be made."""
    aliases = _aliases(host, request.entries)
    resolved, problems = _resolved(request, aliases)
    recorded = _recorded(plans, claimed, previous) if request.runtime else previous
    plan = BootPlan(
        entries=request.entries,
        resolved=resolved,
        natives=recorded.natives,
        buses=_vfio_buses(request, plans, claimed),
        modules=_pinned_modules(host, request.entries),
        options=request.options,
        aliases=aliases,
        before=previous.before,
        variants=claimed.variants,
        numvfs_before=recorded.numvfs_before,
        pci_ids=recorded.pci_ids,
        matched=list(map(matched_devices, claimed.matches)),
    )
    return plan, problems


def _judge_modules(
    host: Host, request: Request, claims: Sequence[Claim], boot_plan: BootPlan
) -> _Judgement:
    """Return which foreign configuration of modules opposes the list, or may."""
    known = _foreign_lines(host, request)
    loading = ModuleLoading(host.kmod, known, InstalledKernels(host.files))
    return _Judgement(
        _module_conflicts(host, boot_plan, loading),
        [
            *_without_containers(host, claims, boot_plan, loading),
            *(_commands_instead(loading, _loadable(host, boot_plan)) if known else ()),
            *(_built_in(host, boot_plan, known) if request.runtime else ()),
        ],
    )


def _foreign_lines(host: Host, request: Request) -> list[modprobe_d.Line]:
    if not request.entries:
        return []
    return modprobe_d.lines(host.files, last_applied.MODPROBE, is_running=request.runtime)


def _without_containers(
    host: Host,
    claims: Sequence[Claim],
    boot_plan: BootPlan,
    loading: ModuleLoading,
) -> list[str]:
    """Return foreign configuration by which VFIO's containers have no module for an IOMMU."""
    lines = modprobe_d.blocking_containers(
        loading.followed([CONTAINER_MODULE]), is_vfio_built_in=is_built_in(host.sysfs, "vfio")
    )
    sentences = [_NO_CONTAINERS % line.label for line in lines]
    sentences += _commands_instead(loading, [CONTAINER_MODULE])
    if not sentences or is_built_in(host.sysfs, CONTAINER_MODULE):
        return []
    accepts_noiommu = boot_plan.options.settings.unsafe_noiommu
    has_users = any(
        not is_in_noiommu_group(host.sysfs, claim.device)
        and not (
            accepts_noiommu and host.sysfs.link(sysfs_dir(claim.device) + "/iommu_group") is None
        )
        for claim in claims
        if claim.policy.kind == VFIO
    )
    return sentences if has_users else []


def _built_in(host: Host, boot_plan: BootPlan, known: Sequence[modprobe_d.Line]) -> list[str]:
    """Return which settings of the list modprobe.d cannot bring to the next boot."""
    sentences = []
    wanted = kmod_conf.parameters(boot_plan.options.settings) if boot_plan.vfio_drivers else {}
    for parameter, value in wanted.items():
        module = parameter.partition(".")[0]
        if is_built_in(host.sysfs, module):
            lines = [line for line in known if line.location == KERNEL_COMMAND_LINE]
            given = modprobe_d.value_at_boot(lines, parameter)
            if is_true(given or VFIO_DEFAULTS[parameter]) is not value:
                sentences.append(_BUILT_IN % (module, parameter, value))
    return sentences


def _module_conflicts(host: Host, boot_plan: BootPlan, loading: ModuleLoading) -> list[Problem]:
    """Return foreign configuration that blocks the modules of the list at the next boot."""
    if not boot_plan.entries:
        return []
    parameters = kmod_conf.parameters(boot_plan.options.settings)
    wanted = modprobe_d.Requirements(_loadable(host, boot_plan), parameters)
    needed = loading.needed(wanted.modules)
    conflicts = modprobe_d.find_conflicts(
        *(loading.followed(needed), wanted, needed),
        lambda module: host.sysfs.exists("module/" + module),
    )
    return [Problem(sentence, line=(line.location, line.text)) for line, sentence in conflicts]


def _commands_instead(loading: ModuleLoading, modules: Sequence[str]) -> list[str]:
    """Return foreign commands that are run instead of loading these modules; a sentence each."""
    return [_MAY_LOAD % (line.label, line.module) for line in loading.running_commands(modules)]


def _loadable(host: Host, boot_plan: BootPlan) -> list[str]:
    """Return the modules of the list that are not built in."""
    modules = [*boot_plan.vfio_drivers, *boot_plan.modules.values()]
    return [
        module for module in modules if not is_built_in(host.sysfs, kmod.canonical_name(module))
    ]


def _claimed_by_driverctl(host: Host, claims: Sequence[Claim]) -> dict[Identity, driverctl.Stored]:
    """Return what driverctl has stored of devices that the list claims at the next boot."""
    kept = driverctl.stored(host.files) if claims else []
    pairs = ((claim.device, driverctl.of_device(claim.device, kept)) for claim in claims)
    return {device: stored for device, stored in pairs if stored}


def _judge_rules(host: Host, claims: Sequence[Claim], request: Request) -> _Judgement:
    """Return which foreign rules oppose the list, or may."""
    problems: list[Problem] = []
    warnings: list[str] = []
    if not claims:
        return _Judgement(problems, warnings)
    rules = foreign_udev.rules(host.files, last_applied.RULES)
    for claim in claims if rules else ():
        wanted = override_of(claim.policy, claim.device.bus)
        for rule in foreign_udev.of_device(host.sysfs, claim.device, rules):
            if not rule.opposes(wanted):
                continue
            if rule.is_sure:
                problems.append(Problem(rule.conflict(claim.device, wanted), claim.device))
            else:
                warnings.append(rule.warning(claim.device, wanted))
    access = request.options.access
    if access:
        devices = [claim.device for claim in claims if claim.policy.kind == VFIO]
        warnings += foreign_node_access.warnings(host.sysfs, rules, devices, access)
    return _Judgement(problems, warnings)


def _misnamed(host: Host, claims: Sequence[Claim]) -> list[Problem]:
    """Return which pinned drivers cannot take their devices at the next boot either."""
    return [
        Problem(problem, claim.device)
        for claim in claims
        if claim.policy.driver
        for problem in [misnamed(host.sysfs, claim.device, claim.policy.driver)]
        if problem
    ]


def _resolved(
    request: Request, aliases: Mapping[str, str]
) -> tuple[list[Selector | None], list[Problem]]:
    """Return the selectors that udev rules can match, and those that none can."""
    resolved: list[Selector | None] = []
    problems = []
    for position, entry in request.by_position:
        try:
            resolved.append(_for_boot(entry.selector, aliases))
        except PolicyError as error:
            resolved.append(None)
            problems.append(Problem(str(error), position=position))
    return resolved, problems


def _aliases(host: Host, entries: Sequence[Entry]) -> dict[str, str]:
    """Return the paths of the list's device-tree aliases that this machine has."""
    names = {entry.selector.reference for entry in entries if entry.selector.reference}
    paths = {name: reference_path(host.sysfs, name) for name in names}
    return {name: path for name, path in paths.items() if path}


def _for_boot(selector: Selector, aliases: Mapping[str, str]) -> Selector | None:
    """Return the selector for a udev rule, or None if this machine has no such device."""
    for_boot = selector.for_boot(aliases)
    if for_boot is None and selector.required:
        raise PolicyError(
            "%s %r cannot be resolved without this machine's device tree. Give the whole path"
            % (selector.kind, selector.value)
        )
    return for_boot


def _recorded(plans: Sequence[DevicePlan], claimed: Claimed, previous: LastApplied) -> LastApplied:
    """Return what is remembered of the devices that are claimed now."""
    natives, numvfs_before = _natives(plans, previous), claimed.numvfs_before
    return previous._replace(
        natives=natives,
        numvfs_before=numvfs_before,
        pci_ids=_pci_ids(plans, {*natives, *numvfs_before}),
    )


def _natives(plans: Sequence[DevicePlan], previous: LastApplied) -> dict[str, str | None]:
    """Return which driver each claimed device was taken from: as remembered, or as seen now."""
    natives: dict[str, str | None] = {}
    for device_plan in plans:
        device = device_plan.device
        if device_plan.policy.kind == DEFAULT:
            continue
        remembered = previous.native_of(device)
        if remembered is None and is_native(device, device_plan.before):
            remembered = (device_plan.before.driver,)
        if remembered is not None:
            # Two devices can share a node, and then a path does not tell them apart.
            name = device.name_on_bus if device.stable_name in natives else device.stable_name
            natives[name] = remembered[0]
    return natives


def _pci_ids(plans: Sequence[DevicePlan], names: set[str]) -> dict[str, str]:
    ids: dict[str, str] = {}
    for device in (device_plan.device for device_plan in plans):
        for name in names.intersection((device.stable_name, device.name_on_bus)):
            if device.pci_id:
                ids.setdefault(name, device.pci_id[-1])
    return ids


def _vfio_buses(request: Request, plans: Sequence[DevicePlan], claimed: Claimed) -> list[str]:
    if request.runtime:
        return sorted({plan.device.bus for plan in plans if plan.is_for_vfio})
    return sorted(
        {
            device.bus
            for entry, devices in zip(request.entries, claimed.matches)
            if entry.policy.kind == VFIO
            for device in devices
            if device.bus in VFIO_DRIVERS
        }
    )


def _pinned_modules(host: Host, entries: Sequence[Entry]) -> dict[str, str]:
    modules = {}
    for entry in entries:
        driver = entry.policy.driver
        for bus in BUSES if driver else ():
            module = host.sysfs.link_name("bus/%s/drivers/%s/module" % (bus, driver))
            if driver and module:
                modules[driver] = module
    return modules
