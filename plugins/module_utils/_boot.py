# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies as files that give the same state at the next boot with no helper on the host. Pure.

What udev does with these rules is described in docs/boot.md.
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.armfleet.vfio.plugins.module_utils import _text
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import DAMAGED, PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    ALWAYS,
    AUTO,
    DEFAULT,
    NEVER,
    NO_DRIVER,
    VFIO,
    VFIO_DRIVERS,
    VFIO_PARAMETERS,
    Identity,
    NodeAccess,
    Options,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import Entry, parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._selectors import (
    Selector,
    resolve_alias,
)

RULES = "/etc/udev/rules.d/70-armfleet-vfio.rules"
MODPROBE = "/etc/modprobe.d/armfleet-vfio.conf"
MODULES_LOAD = "/etc/modules-load.d/armfleet-vfio.conf"
PATHS = (RULES, MODPROBE, MODULES_LOAD)

# There while the list last applied is for the next boot alone; that boot empties /run.
WAITS_FOR_BOOT = "/run/armfleet-vfio-reboot-required"

MARK = "# Written by armfleet.vfio.host_policy. The next run replaces it; do not edit."
_ENTRY, _NATIVE, _OPTIONS = "# policy: ", "# native: ", "# options: "
_MACHINE = "# machine: "
_BEFORE = "# before: "
_NOIOMMU = "unsafe_noiommu"

# A device lists a few compatibles; no node of the kernel's own device trees has more than nine.
_COMPATIBLES = 16
_ALIASES = 4

_NO_AUTOBIND = 'ACTION=="add", ENV{ARMFLEET_VFIO_POLICY}=="no_autobind", '
_MOVE = """\
TEST!="/sys/bus/$env{SUBSYSTEM}/drivers/$env{.armfleet_vfio_driver}/$kernel", \
TEST=="driver/unbind", ATTR{driver/unbind}="$kernel"
ATTR{subsystem/drivers_probe}="$kernel"
"""

_ON_VFIO = "|".join(VFIO_DRIVERS.values())

_KINDS_OF_LINKS = {"path": "ARMFLEET_VFIO_PATH", "tag": "ARMFLEET_VFIO_TAG"}
# udev splits a command into words after it has filled in the values, so that each value and the
# device's path are matched before they get into one.
_LINKS = """\
# Links to the nodes of what is on VFIO. An initramfs may lack these programs; what is missing
# then is made when the events come again. No name that is odd gets into a command.
ENV{ARMFLEET_VFIO_POLICY}!="vfio", GOTO="armfleet_vfio_linked"
TEST!="/usr/bin/realpath", GOTO="armfleet_vfio_linked"
DEVPATH=="*[!0-9A-Za-z/:,._+@#~!-]*", GOTO="armfleet_vfio_linked"
ENV{.armfleet_vfio_path}=="/*", ENV{.armfleet_vfio_path}!="*[!0-9A-Za-z/,._+@#-]*", \
IMPORT{program}="/bin/sed -n -e y,/,:, -e /^OF_FULLNAME=:/!d -e s//ARMFLEET_VFIO_PATH=/p -e q \
-- /sys$devpath/uevent"
ENV{.armfleet_vfio_path}=="", KERNEL!="*.auto", ATTR{firmware_node/path}!="?*[!0-9A-Z_.]*", \
IMPORT{program}="/bin/sed -n -e s/^./ARMFLEET_VFIO_PATH=/p -e q -- /sys$devpath/firmware_node/path"
# The file has lines of the firmware's own, which the properties have not.
ENV{ARMFLEET_VFIO_PATH}=="*[!0-9A-Za-z:,._+@#-]*", ENV{ARMFLEET_VFIO_PATH}=""
# A driver that comes when the override is set already binds at once, maybe before this device's
# own event: then its node did not learn from it what it is called.
ACTION=="bind", TEST=="vfio-dev/*/uevent", ATTR{vfio-dev/*/uevent}="change"
# The node of a group is no device's child, so SYMLINK cannot tell whose it is.
ACTION!="unbind", DRIVER=="vfio-platform|vfio-amba", PROGRAM=="/usr/bin/realpath \
--relative-to=/sys/kernel/iommu_groups -- /sys$devpath/iommu_group", RESULT!="*[!0-9]*", \
ENV{.armfleet_vfio_node}="$result"
ENV{.armfleet_vfio_node}!="", ATTR{iommu_group/name}=="vfio-noiommu", \
ENV{.armfleet_vfio_node}="noiommu-$env{.armfleet_vfio_node}"
"""
_LINK = """\
ENV{.armfleet_vfio_node}!="", ENV{%(key)s}!="", RUN+="/bin/mkdir -p -- /dev/vfio/by-%(kind)s", \
RUN+="/bin/ln -sfT -- ../$env{.armfleet_vfio_node} /dev/vfio/by-%(kind)s/$env{%(key)s}"
ACTION=="unbind", ENV{%(key)s}!="", RUN+="/bin/rm -f -- /dev/vfio/by-%(kind)s/$env{%(key)s} \
/dev/vfio/devices/by-%(kind)s/$env{%(key)s}"
"""


class Applied(NamedTuple):
    """A list, and what it is applied with; where it is empty that means nothing."""

    entries: list[Entry]
    options: Options = Options()


class Machine(NamedTuple):
    """What boot files are rendered from beside the list, as the machine was at that moment.

    ``aliases`` are the paths of the list's device-tree aliases, ``buses`` those of the devices
    given to VFIO, ``modules`` the modules of pinned drivers by the driver's name.
    ``initramfs_tool`` brings ``initramfs_modules`` into the initramfs; None if none does.
    """

    aliases: Mapping[str, str] = MappingProxyType({})
    buses: Sequence[str] = ()
    modules: Mapping[str, str] = MappingProxyType({})
    initramfs_tool: str | None = None
    initramfs_modules: Sequence[str] = ()


class Memory(NamedTuple):
    """What the last run wrote down: its list, and which driver each device was taken from.

    ``natives`` maps a device's stable name to its driver, None for none. ``machine`` is None where
    it cannot be read. ``noiommu_before`` is whether devices without an IOMMU were taken before a
    list asked for it, None where that is not known.
    """

    entries: list[Entry]
    natives: dict[str, str | None]
    options: Options = Options()
    machine: Machine | None = Machine()
    noiommu_before: bool | None = None

    def native_of(self, device: Identity) -> tuple[str | None] | None:
        """The driver that a device was taken from, or None where nothing is remembered of it."""
        for name in (device.name_on_bus, device.stable_name):
            if name in self.natives:
                return (self.natives[name],)
        return None


class BootPlan(NamedTuple):
    """All that the boot files are made of.

    ``resolved`` are the selectors of ``entries`` with aliases followed, None where a rule cannot
    match such a device; ``buses`` those of the devices given to
    VFIO, ``modules`` the modules of pinned drivers by the driver's name. ``aliases`` are those that
    were followed; ``initramfs_tool`` is the one that is configured to include
    ``initramfs_modules``.
    """

    entries: Sequence[Entry]
    resolved: Sequence[Selector | None]
    natives: Mapping[str, str | None]
    buses: Sequence[str]
    modules: Mapping[str, str]
    options: Options = Options()
    aliases: Mapping[str, str] = MappingProxyType({})
    initramfs_tool: str | None = None
    initramfs_modules: Sequence[str] = ()
    noiommu_before: bool | None = None


def boot_plan(memory: Memory, machine: Machine) -> BootPlan:
    """The plan that the last run rendered its files from."""
    return BootPlan(
        memory.entries,
        [resolved(entry.selector, machine.aliases) for entry in memory.entries],
        memory.natives,
        machine.buses,
        machine.modules,
        memory.options,
        machine.aliases,
        machine.initramfs_tool,
        machine.initramfs_modules,
        memory.noiommu_before,
    )


def resolved(selector: Selector, aliases: Mapping[str, str]) -> Selector | None:
    """The selector as a rule can match it; None if a machine with ``aliases`` has no such one."""
    alias = selector.alias
    if alias is None:
        return selector
    if alias in aliases:
        return resolve_alias(selector, aliases.get)
    # The kernel puts an alias into the device's uevent only if it ends in a number
    # (of_alias_scan in drivers/of/base.c).
    return selector if selector.value == alias and alias[-1:].isdigit() else None


def not_ours(path: str, content: str | None) -> list[str]:
    """A sentence if there is a file of that name which this collection did not write."""
    # A script has its interpreter in the first line.
    if content is None or MARK in _text.lines(content)[:2]:
        return []
    return [
        "%s was not written by this collection, and what others wrote is never edited. Move it "
        "away or delete it, and run again" % path
    ]


def memory(rules: str | None) -> Memory:
    """What the header of our rules file says of the last run."""
    entries: list[Mapping[str, Any]] = []
    natives: dict[str, str | None] = {}
    options: dict[str, Any] = {}
    machine: Machine | None = Machine()
    before = VfioSettings()
    try:
        for line in _text.lines(rules or ""):
            if line.startswith(_ENTRY):
                entries.append(json.loads(line[len(_ENTRY) :]))
            elif line.startswith(_NATIVE):
                natives.update(_native_driver(json.loads(line[len(_NATIVE) :])))
            elif line.startswith(_OPTIONS):
                options = json.loads(line[len(_OPTIONS) :])
            elif line.startswith(_MACHINE):
                machine = _parse_machine(line[len(_MACHINE) :])
            elif line.startswith(_BEFORE):
                before = to_options(**json.loads(line[len(_BEFORE) :])).settings
        return Memory(
            parse_entries(entries),
            natives,
            to_options(**options),
            machine,
            before.unsafe_noiommu,
        )
    except DAMAGED as error:
        raise PolicyError(
            "The header of %s cannot be read (%s), so it is not known what the last run claimed. "
            "Somebody edited it: put the lines that start with '%s' right, or delete the file to "
            "start anew" % (RULES, error, _ENTRY.strip())
        ) from None


def _parse_machine(text: str) -> Machine | None:
    """What a line of the header says; None if this collection did not write it like that."""
    try:
        machine = Machine(**json.loads(text))
        pairs = [*machine.aliases.items(), *machine.modules.items()]
        texts = [text for pair in pairs for text in pair]
        texts += [*machine.initramfs_modules, machine.initramfs_tool or ""]
        is_known = all(isinstance(one, str) for one in texts)
        return machine if is_known and set(machine.buses) <= set(VFIO_DRIVERS) else None
    except (ValueError, TypeError, AttributeError):
        return None


def _native_driver(line: Mapping[str, Any]) -> dict[str, str | None]:
    ((name, driver),) = line.items()
    # A driver that is there may be called as its author liked, but sysfs has no "/" in names.
    if driver is not None and (
        not isinstance(driver, str)
        or driver in ("", ".", "..")
        or "/" in driver
        or not driver.isprintable()
    ):
        raise ValueError("%r is not a driver's name" % driver)
    return {name: driver}


def render(plan: BootPlan) -> dict[str, str | None]:
    """The content of each of our files by its path; None where there shall be none."""
    return {
        RULES: _rules(plan) if plan.entries else None,
        MODPROBE: _modprobe(plan) if plan.entries else None,
        MODULES_LOAD: _modules_load(plan),
    }


def to_mapping(entry: Entry) -> dict[str, Any]:
    """The entry as a user would write it."""
    selector, policy, tag = entry
    mapping: dict[str, Any] = {selector.kind: selector.value}
    if selector.bus:
        mapping["bus"] = selector.bus
    if selector.expect is not None:
        mapping["expect"] = selector.expect
    if not selector.required:
        mapping["required"] = False
    if selector.when_board:
        mapping["when_board"] = list(selector.when_board)
    mapping["policy"] = policy.kind
    if policy.driver:
        mapping["driver"] = policy.driver
    if tag:
        mapping["tag"] = tag
    return mapping


def to_options(
    reset_required: bool | None = None,
    unsafe_noiommu: bool | None = None,
    vfio_group: str | None = None,
    vfio_mode: str | None = None,
    initramfs: str = AUTO,
) -> Options:
    """What a list is applied with, from the module's options; PolicyError if they are not such."""
    settings = VfioSettings(reset_required, unsafe_noiommu)
    if not {type(value) for value in settings} <= {bool, type(None)}:
        raise PolicyError("`reset_required` and `unsafe_noiommu` are true or false")
    if initramfs not in (AUTO, ALWAYS, NEVER):
        raise PolicyError(
            "`initramfs` is %r, which is none of auto, always and never" % (initramfs,)
        )
    return Options(settings, check_access(vfio_group, vfio_mode), initramfs)


def from_options(options: Options) -> dict[str, Any]:
    """Those of the module's options that are not as they are by default."""
    group, mode = options.access or (None, None)
    values = {
        **options.settings._asdict(),
        "vfio_group": group,
        "vfio_mode": mode,
        "initramfs": None if options.initramfs == AUTO else options.initramfs,
    }
    return {name: value for name, value in values.items() if value is not None}


def _rules(plan: BootPlan) -> str:
    lines = [MARK, "# It was made from this list:"]
    lines += [_ENTRY + json.dumps(to_mapping(entry)) for entry in plan.entries]
    options = from_options(plan.options)
    if options:
        lines += ["# It was applied with these options:", _OPTIONS + json.dumps(options)]
    if plan.noiommu_before is not None:
        lines += [
            "# This is what it was before a list set it:",
            _BEFORE + json.dumps({_NOIOMMU: plan.noiommu_before}),
        ]
    if plan.natives:
        lines += ["# Devices were taken from these drivers:"]
        lines += [_NATIVE + json.dumps({name: plan.natives[name]}) for name in sorted(plan.natives)]
    machine = _from_machine(plan)
    if machine:
        lines += ["# It was made for a machine with:", _MACHINE + json.dumps(machine)]
    claiming = [
        (entry, selector)
        for entry, selector in zip(plan.entries, plan.resolved)
        if selector and entry.policy.kind != DEFAULT
    ]
    if claiming:
        lines += ["", *_guards(claiming, plan.options.access)]
        lines += [_claim(entry, selector, plan.modules) for entry, selector in claiming]
        lines += ["", 'ENV{ARMFLEET_VFIO_POLICY}=="", GOTO="armfleet_vfio_end"']
        lines += _links(claiming, plan.options.access)
        lines += _actions({entry.policy.driver for entry, _selector in claiming})
    return "\n".join(lines) + "\n"


def _from_machine(plan: BootPlan) -> dict[str, Any]:
    values = {
        "aliases": dict(sorted(plan.aliases.items())),
        "buses": sorted(set(plan.buses)),
        "modules": dict(sorted(plan.modules.items())),
        "initramfs_tool": plan.initramfs_tool,
        "initramfs_modules": list(plan.initramfs_modules),
    }
    return {name: value for name, value in values.items() if value}


def _access_of_devices(access: NodeAccess | None) -> list[str]:
    """Access to the nodes that devices of the list have for themselves, and to no others."""
    if access is None:
        return []
    given = (("GROUP", access.group), ("MODE", access.mode))
    settings = ['%s="%s"' % pair for pair in given if pair[1] is not None]
    return [
        'SUBSYSTEM=="vfio-dev", ENV{ARMFLEET_VFIO_POLICY}=="vfio", %s' % ", ".join(settings),
    ]


def _access_of_groups(access: NodeAccess | None) -> list[str]:
    """Access to the nodes of their groups, which udev knows by their devices alone."""
    if access is None:
        return []
    programs = (("chgrp", access.group), ("chmod", access.mode))
    return [
        'ENV{.armfleet_vfio_node}!="", RUN+="/bin/%s -- %s /dev/vfio/$env{.armfleet_vfio_node}"'
        % program
        for program in programs
        if program[1] is not None
    ]


def _guards(claiming: Sequence[tuple[Entry, Selector]], access: NodeAccess | None) -> list[str]:
    lines = [
        'ACTION=="remove", GOTO="armfleet_vfio_end"',
        *_links_of_devices(claiming, access),
        'SUBSYSTEM!="%s", GOTO="armfleet_vfio_end"' % "|".join(VFIO_DRIVERS),
    ]
    # A helper device of a driver (PLATFORM_DEVID_AUTO) can share the node of its parent; what is
    # said of a node is meant for the parent alone.
    lines.append('KERNEL!="*.auto", ENV{.armfleet_vfio_path}="$env{OF_FULLNAME}"')
    kinds = {selector.kind for _entry, selector in claiming}
    if "compatible" in kinds:
        lines.append(_joined("compatible", "OF_COMPATIBLE", _COMPATIBLES))
    if any(selector.alias for _entry, selector in claiming):
        lines.append(_joined("alias", "OF_ALIAS", _ALIASES))
    return [*lines, ""]


def _links_of_devices(
    claiming: Sequence[tuple[Entry, Selector]], access: NodeAccess | None
) -> list[str]:
    """Rules for vfio-dev, whose parent is the device that was claimed."""
    kinds = _kinds_of_links(claiming)
    lines = ['SUBSYSTEM=="vfio-dev", IMPORT{parent}="ARMFLEET_VFIO_*"'] if kinds else []
    lines += _access_of_devices(access) if kinds else []
    return lines + [
        'SUBSYSTEM=="vfio-dev", ENV{DEVNAME}!="", ENV{%s}=="?*", '
        'ENV{%s}!="*[!0-9A-Za-z:,._+@#-]*", '
        'SYMLINK+="vfio/devices/by-%s/$env{%s}"' % (key, key, kind, key)
        for kind, key in kinds.items()
    ]


def _links(claiming: Sequence[tuple[Entry, Selector]], access: NodeAccess | None) -> list[str]:
    kinds = _kinds_of_links(claiming)
    if not kinds:
        return []
    lines = ["", *_LINKS.splitlines(), *_access_of_groups(access)]
    for kind, key in kinds.items():
        lines += (_LINK % {"kind": kind, "key": key}).splitlines()
    return [*lines, 'LABEL="armfleet_vfio_linked"']


def _kinds_of_links(claiming: Sequence[tuple[Entry, Selector]]) -> dict[str, str]:
    given = [entry for entry, _selector in claiming if entry.policy.kind == VFIO]
    tagged = any(entry.tag for entry in given)
    return {
        kind: key for kind, key in _KINDS_OF_LINKS.items() if given and (kind != "tag" or tagged)
    }


def _joined(name: str, key: str, count: int) -> str:
    values = " ".join("$env{%s_%d}" % (key, number) for number in range(count))
    return 'KERNEL!="*.auto", ENV{.armfleet_vfio_%s}=" %s "' % (name, values)


def _claim(entry: Entry, selector: Selector, modules: Mapping[str, str]) -> str:
    policy = entry.policy
    parts = [_match(selector)]
    if selector.bus:
        parts.append('SUBSYSTEM=="%s"' % selector.bus)
    parts.append('ENV{ARMFLEET_VFIO_POLICY}="%s"' % policy.kind)
    if policy.driver:
        parts.append('ENV{.armfleet_vfio_driver}="%s"' % policy.driver)
        if policy.driver in modules:
            parts.append('ENV{.armfleet_vfio_module}="%s"' % modules[policy.driver])
    if entry.tag:
        parts.append('ENV{ARMFLEET_VFIO_TAG}="%s"' % entry.tag)
    return ", ".join(parts)


def _match(selector: Selector) -> str:
    if selector.alias:
        return 'ENV{.armfleet_vfio_alias}=="* %s *"' % selector.value
    return {
        "dt_path": 'ENV{.armfleet_vfio_path}=="%s"',
        "compatible": 'ENV{.armfleet_vfio_compatible}=="* %s *"',
        "acpi_path": 'KERNEL!="*.auto", ATTR{firmware_node/path}=="%s"',
        "acpi_hid": 'KERNEL!="*.auto", ATTR{firmware_node/hid}=="%s"',
        "name": 'KERNEL=="%s"',
    }[selector.kind] % selector.value


def _actions(pinned: set[str | None]) -> list[str]:
    drivers = [*VFIO_DRIVERS.values(), NO_DRIVER, *sorted(filter(None, pinned))]
    return [
        "",
        'ACTION!="add|bind", GOTO="armfleet_vfio_end"',
        "# An open device hangs whoever unbinds it, so one that is on VFIO is left alone.",
        'DRIVER=="%s", GOTO="armfleet_vfio_end"' % _ON_VFIO,
        *[
            'ENV{ARMFLEET_VFIO_POLICY}=="vfio", SUBSYSTEM=="%s", ENV{.armfleet_vfio_driver}="%s", '
            'ENV{.armfleet_vfio_module}="%s"' % (bus, driver, driver)
            for bus, driver in VFIO_DRIVERS.items()
        ],
        'ENV{ARMFLEET_VFIO_POLICY}=="no_autobind", ENV{.armfleet_vfio_driver}="%s"' % NO_DRIVER,
        "# An override that is set already was set by this rule or by somebody who asked for it.",
        _NO_AUTOBIND + 'ATTR{driver_override}!="(null)", GOTO="armfleet_vfio_end"',
        "# A native driver that had chosen the device before the override was set binds after it;",
        "# it is the only one that can be bound against the override.",
        *[
            'ACTION=="bind", ENV{.armfleet_vfio_driver}=="%s", ATTR{driver_override}!="%s", '
            'GOTO="armfleet_vfio_end"' % (driver, driver)
            for driver in drivers
        ],
        "",
        'ATTR{driver_override}="$env{.armfleet_vfio_driver}"',
        'ENV{.armfleet_vfio_module}!="", IMPORT{builtin}="kmod load $env{.armfleet_vfio_module}"',
        "# DRIVER is of the moment when this event began; the event of another device may have",
        "# loaded the native driver since.",
        *_MOVE.splitlines(),
        "",
        'LABEL="armfleet_vfio_end"',
    ]


def parameters(settings: VfioSettings) -> dict[str, bool]:
    """The parameters that are set at boot, by "module.parameter"."""
    named = {name: getattr(settings, option) for name, option in VFIO_PARAMETERS.items()}
    return {name: value for name, value in named.items() if value is not None}


def _modprobe(plan: BootPlan) -> str | None:
    return _plain(
        [
            "options %s=%d" % (name.replace(".", " "), value)
            for name, value in parameters(plan.options.settings).items()
        ]
    )


def _modules_load(plan: BootPlan) -> str | None:
    return _plain([VFIO_DRIVERS[bus] for bus in sorted(set(plan.buses))])


def _plain(lines: Sequence[str]) -> str | None:
    if not lines:
        return None
    return "\n".join([MARK, "# The list that it was made from is in %s." % RULES, *lines]) + "\n"


def check_access(group: str | None, mode: str | None) -> NodeAccess | None:
    """Group and mode of the nodes as they go into a rule; PolicyError if they are not such."""
    if group is not None and not re.match(r"[A-Za-z_][A-Za-z0-9_.-]*\Z", group):
        raise PolicyError("`vfio_group` %r is not the name of a group" % group)
    if mode is not None and not re.match(r"0[0-7]{3}\Z", mode):
        raise PolicyError(
            "`vfio_mode` %r is not a mode; write it in octal and in quotes, such as '0660'" % mode
        )
    return None if group is None and mode is None else NodeAccess(group, mode)
