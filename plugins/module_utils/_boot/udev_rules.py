# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies as files that give the same state at the next boot with no helper on the host. Pure.

What udev does with these rules is described in docs/boot.md.
"""

from __future__ import annotations

from typing import Container, Mapping, Sequence

from .._model.buses import BUSES, VFIO_DRIVER_PATTERNS, VFIO_DRIVERS
from .._model.node_access import NodeAccess
from .._model.policy import DEFAULT, NO_DRIVER, VFIO
from .._model.policy_list import Entry
from .._model.selector import UDEV_ALIASES, UDEV_COMPATIBLES, UDEV_NAME, Selector
from .kmod_conf import modprobe_conf, modules_load_conf
from .last_applied import MODPROBE, MODULES_LOAD, RULES, BootPlan, header

# What is between two of these lines is for lists that give devices to VFIO.
_WITH_VFIO = "<with policy vfio>\n"
# A backslash at the end of a line joins it with the next. A named place that one follows stands
# for whole lines, or for none. udev splits a command into words after it has filled in the values,
# so that each value and the device's path are matched before they get into one.
_PROGRAM = """
ACTION=="remove", GOTO="armfleet_vfio_end"
<with policy vfio>
SUBSYSTEM=="vfio-dev", IMPORT{parent}="ARMFLEET_VFIO_*"
%(node_access)s\
%(node_links)s\
<with policy vfio>
SUBSYSTEM!="%(buses)s", GOTO="armfleet_vfio_end"
%(kernel_name)s\
KERNEL!="*.auto", ENV{.armfleet_vfio_path}="$env{OF_FULLNAME}"
%(lists)s\
%(numvfs)s\

%(claims)s\

ENV{ARMFLEET_VFIO_POLICY}=="", GOTO="armfleet_vfio_end"
<with policy vfio>

# Symbolic links to the nodes of devices bound to VFIO. An initramfs may lack these programs; the
# links are then created when udev triggers the events again. Unusual names never reach a command;
# names can have spaces, and udev does not split what is between single quotes.
ENV{ARMFLEET_VFIO_POLICY}!="vfio", GOTO="armfleet_vfio_linked"
TEST!="/usr/bin/realpath", GOTO="armfleet_vfio_linked"
DEVPATH=="*[!0-9A-Za-z/:,._+@#~! -]*", GOTO="armfleet_vfio_linked"
ENV{.armfleet_vfio_path}=="/*", ENV{.armfleet_vfio_path}!="*[!0-9A-Za-z/,._+@#-]*", \
IMPORT{program}="/bin/sed -n -e y,/,:, -e /^OF_FULLNAME=:/!d -e s//ARMFLEET_VFIO_PATH=/p -e q \
-- '/sys$devpath/uevent'"
ENV{.armfleet_vfio_path}=="", KERNEL!="*.auto", ATTR{firmware_node/path}!="?*[!0-9A-Z_.]*", \
IMPORT{program}="/bin/sed -n -e s/^./ARMFLEET_VFIO_PATH=/p -e q -- \
'/sys$devpath/firmware_node/path'"
# The file can contain lines from the firmware that are not in the properties.
ENV{ARMFLEET_VFIO_PATH}=="*[!0-9A-Za-z:,._+@#-]*", ENV{ARMFLEET_VFIO_PATH}=""
# A driver that is loaded after the override was set binds at once, maybe before this device's own
# event. The event of its node then did not import these names.
ACTION=="bind", TEST=="vfio-dev/*/uevent", ATTR{vfio-dev/*/uevent}="change"
# The node of a group is not a child of a device, so SYMLINK cannot be used.
ACTION!="unbind", DRIVER=="%(vfio_drivers)s", PROGRAM=="/usr/bin/realpath \
--relative-to=/sys/kernel/iommu_groups -- '/sys$devpath/iommu_group'", RESULT!="*[!0-9]*", \
ENV{.armfleet_vfio_node}="$result"
ENV{.armfleet_vfio_node}!="", ATTR{iommu_group/name}=="vfio-noiommu", \
ENV{.armfleet_vfio_node}="noiommu-$env{.armfleet_vfio_node}"
%(group_access)s\
%(group_links)s\
LABEL="armfleet_vfio_linked"
<with policy vfio>

ACTION!="add|bind", GOTO="armfleet_vfio_end"
# Unbinding an open device hangs, so devices bound to VFIO are not changed.
DRIVER=="%(vfio_drivers)s", GOTO="armfleet_vfio_end"
%(vfio_of_buses)s\
ENV{ARMFLEET_VFIO_POLICY}=="no_autobind", ENV{.armfleet_vfio_driver}="none"
# An existing override was set by this rule or on purpose. Without one, most buses show (null), and
# spi shows nothing.
ACTION=="add", ENV{ARMFLEET_VFIO_POLICY}=="no_autobind", ATTR{driver_override}!="(null)", \
ATTR{driver_override}=="?*", GOTO="armfleet_vfio_end"
# A native driver whose probe started before the override was set binds after it.
# Only that driver can be bound against the override.
%(late_binds)s\

ATTR{driver_override}="$env{.armfleet_vfio_driver}"
ENV{.armfleet_vfio_module}!="", IMPORT{builtin}="kmod load $env{.armfleet_vfio_module}"
# DRIVER has the value from the start of this event; the event of another device may have
# loaded the native driver since.
TEST!="/sys/bus/$env{SUBSYSTEM}/drivers/$env{.armfleet_vfio_driver}/%(name)s", \
TEST=="driver/unbind", ATTR{driver/unbind}="%(name)s"
ATTR{subsystem/drivers_probe}="%(name)s"

LABEL="armfleet_vfio_end"
"""

# Of the nodes that devices of the list have for themselves, and of no others. Without the option, a
# link's name has "_" where a path has ",", as that of each PCI function.
_NODE_ACCESS = 'SUBSYSTEM=="vfio-dev", ENV{ARMFLEET_VFIO_POLICY}=="vfio", %s\n'
_NODE_LINK = """\
SUBSYSTEM=="vfio-dev", ENV{DEVNAME}!="", ENV{%(key)s}=="?*", \
ENV{%(key)s}!="*[!0-9A-Za-z:,._+@#-]*", OPTIONS="string_escape=none", \
SYMLINK+="vfio/devices/by-%(kind)s/$env{%(key)s}"
"""
# Of the nodes of their groups, which udev knows by their devices alone.
_GROUP_ACCESS = """\
ENV{.armfleet_vfio_node}!="", RUN+="/bin/%s -- %s /dev/vfio/$env{.armfleet_vfio_node}"
"""
_GROUP_LINK = """\
ENV{.armfleet_vfio_node}!="", ENV{%(key)s}!="", RUN+="/bin/mkdir -p -- /dev/vfio/by-%(kind)s", \
RUN+="/bin/ln -sfT -- ../$env{.armfleet_vfio_node} /dev/vfio/by-%(kind)s/$env{%(key)s}"
ACTION=="unbind", ENV{%(key)s}!="", RUN+="/bin/rm -f -- /dev/vfio/by-%(kind)s/$env{%(key)s} \
/dev/vfio/devices/by-%(kind)s/$env{%(key)s}"
"""
_LINKS = (
    {"kind": "path", "key": "ARMFLEET_VFIO_PATH"},
    {"kind": "tag", "key": "ARMFLEET_VFIO_TAG"},
)

# A helper device of a driver (PLATFORM_DEVID_AUTO) can share the node of its parent; match the
# parent alone.
_LIST = 'KERNEL!="*.auto", ENV{%s}=" %s "\n'
# With ACPI, the compatibles of a device (_DSD) are in its modalias alone, after a name of four
# characters.
_ACPI_LIST = (
    """\
KERNEL!="*.auto", ENV{OF_COMPATIBLE_0}=="", ENV{MODALIAS}=="of:N????TC*", \
ENV{%s}=" $env{MODALIAS} "
"""
    % UDEV_COMPATIBLES
)
# The properties that join numbered ones, which those are, and how many: a device lists a few
# compatibles; no node of the kernel's own device trees has more than nine.
_LISTS = (
    (UDEV_COMPATIBLES, "OF_COMPATIBLE", 16, _ACPI_LIST),
    (UDEV_ALIASES, "OF_ALIAS", 4, ""),
)
# For a name with "!", which $kernel has as "/".
_KERNEL_NAME = 'ENV{%s}="$kernel"\n' % UDEV_NAME

# The number is 0 at boot, and when the driver was unbound; only the driver of the function can
# change it. New functions have events of their own.
_NUMVFS = """\
ACTION=="add|bind", DRIVER=="?*", %s, ATTR{sriov_numvfs}=="0", ATTR{sriov_numvfs}="%d"
"""
_VFIO_OF_BUS = """\
ENV{ARMFLEET_VFIO_POLICY}=="vfio", SUBSYSTEM=="%s", ENV{.armfleet_vfio_driver}="%s", \
ENV{.armfleet_vfio_module}="%s"
"""
_VFIO_OF_PCI_ID = """\
ENV{ARMFLEET_VFIO_POLICY}=="vfio", ENV{.armfleet_vfio_variant}=="", %s, \
ENV{.armfleet_vfio_variant}="%s"
"""
_VFIO_VARIANT = """\
ENV{ARMFLEET_VFIO_POLICY}=="vfio", ENV{.armfleet_vfio_variant}!="", \
ENV{.armfleet_vfio_driver}="$env{.armfleet_vfio_variant}", \
ENV{.armfleet_vfio_module}="$env{.armfleet_vfio_variant}"
"""
_NO_VFIO_ON_BUS = """\
ENV{ARMFLEET_VFIO_POLICY}=="vfio", SUBSYSTEM=="%s", GOTO="armfleet_vfio_end"
"""
_LATE_BIND = """\
ACTION=="bind", ENV{.armfleet_vfio_driver}=="%s", ATTR{driver_override}!="%s", \
GOTO="armfleet_vfio_end"
"""


def render(plan: BootPlan) -> dict[str, str | None]:
    """Return the content of each of our files by its path; None if there shall be none."""
    return {
        RULES: _rules(plan) if plan.entries else None,
        MODPROBE: modprobe_conf(plan) if plan.entries else None,
        MODULES_LOAD: modules_load_conf(plan),
    }


def _rules(plan: BootPlan) -> str:
    comments = "\n".join(header(plan)) + "\n"
    claiming = [
        (entry, selector)
        for entry, selector in zip(plan.entries, plan.resolved)
        if selector and entry.policy.kind != DEFAULT
    ]
    has_rules = claiming or _numvfs(plan)
    return comments + _program(plan, claiming) if has_rules else comments


def _program(plan: BootPlan, claiming: Sequence[tuple[Entry, Selector]]) -> str:
    for_vfio = [entry for entry, _selector in claiming if entry.policy.kind == VFIO]
    pinned = {entry.policy.driver for entry, _selector in claiming if entry.policy.driver}
    links = _LINKS if any(entry.tag for entry in for_vfio) else _LINKS[:1]
    access = plan.options.access or NodeAccess(None, None)
    properties = {selector.rules_property for selector in plan.resolved if selector}
    has_names = UDEV_NAME in properties
    sections = _PROGRAM.split(_WITH_VFIO)
    return "".join(sections if for_vfio else sections[::2]) % {
        "node_access": _node_access(access),
        "node_links": "".join(_NODE_LINK % link for link in links),
        "buses": "|".join(BUSES),
        "kernel_name": _KERNEL_NAME if has_names else "",
        "name": "$env{%s}" % UDEV_NAME if has_names else "$kernel",
        "lists": _lists(properties),
        "numvfs": _numvfs(plan),
        "claims": "".join(_claim(entry, selector, plan.modules) for entry, selector in claiming),
        "vfio_drivers": "|".join(VFIO_DRIVER_PATTERNS),
        "group_access": _group_access(access),
        "group_links": "".join(_GROUP_LINK % link for link in links),
        "vfio_of_buses": _vfio_of_buses(plan),
        "late_binds": "".join(
            _LATE_BIND % (driver, driver)
            for driver in [
                *dict.fromkeys([*VFIO_DRIVERS.values(), *plan.vfio_drivers]),
                *(NO_DRIVER, *sorted(pinned)),
            ]
        ),
    }


def _node_access(access: NodeAccess) -> str:
    given = (("GROUP", access.group), ("MODE", access.mode))
    settings = ['%s="%s"' % pair for pair in given if pair[1] is not None]
    return _NODE_ACCESS % ", ".join(settings) if settings else ""


def _group_access(access: NodeAccess) -> str:
    programs = (("chgrp", access.group), ("chmod", access.mode))
    return "".join(_GROUP_ACCESS % program for program in programs if program[1] is not None)


def _lists(properties: Container[str | None]) -> str:
    return "".join(
        _LIST % (name, " ".join("$env{%s_%d}" % (key, number) for number in range(count))) + more
        for name, key, count, more in _LISTS
        if name in properties
    )


def _numvfs(plan: BootPlan) -> str:
    return "".join(
        _NUMVFS % (selector.udev_match, entry.sriov_numvfs)
        for entry, selector in zip(plan.entries, plan.resolved)
        if selector and entry.sriov_numvfs
    )


def _claim(entry: Entry, selector: Selector, modules: Mapping[str, str]) -> str:
    policy = entry.policy
    parts = [selector.udev_match, 'ENV{ARMFLEET_VFIO_POLICY}="%s"' % policy.kind]
    if policy.driver:
        parts.append('ENV{.armfleet_vfio_driver}="%s"' % policy.driver)
        if policy.driver in modules:
            parts.append('ENV{.armfleet_vfio_module}="%s"' % modules[policy.driver])
    if policy.vfio_driver:
        parts.append('ENV{.armfleet_vfio_variant}="%s"' % policy.vfio_driver)
    if entry.tag:
        parts.append('ENV{ARMFLEET_VFIO_TAG}="%s"' % entry.tag)
    return ", ".join(parts) + "\n"


def _vfio_of_buses(plan: BootPlan) -> str:
    drivers = [_VFIO_OF_BUS % (bus, driver, driver) for bus, driver in VFIO_DRIVERS.items()]
    drivers.append(_NO_VFIO_ON_BUS % "|".join(bus for bus in BUSES if bus not in VFIO_DRIVERS))
    for pci_id, driver in sorted(plan.variants.items()):
        drivers.append(_VFIO_OF_PCI_ID % (Selector("pci_id", pci_id).udev_match, driver))
    if plan.variants or any(entry.policy.vfio_driver for entry in plan.entries):
        drivers.append(_VFIO_VARIANT)
    return "".join(drivers)
