# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies as files that give the same state at the next boot with no helper on the host. Pure.

What udev does with these rules is described in docs/boot.md.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from .._model.buses import BUSES, VFIO_DRIVERS
from .._model.policy import (
    DEFAULT,
    NO_DRIVER,
    VFIO,
    NodeAccess,
)
from .._model.policy_list import Entry
from .._model.selector import Selector
from .kmod_conf import modprobe_conf, modules_load_conf
from .last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
    BootPlan,
    header,
)

# A device lists a few compatibles; no node of the kernel's own device trees has more than nine.
_LISTS = (("compatible", "OF_COMPATIBLE", 16), ("alias", "OF_ALIAS", 4))

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
_LINKS = (
    """\
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
ACTION!="unbind", DRIVER=="%s", PROGRAM=="/usr/bin/realpath \
--relative-to=/sys/kernel/iommu_groups -- /sys$devpath/iommu_group", RESULT!="*[!0-9]*", \
ENV{.armfleet_vfio_node}="$result"
ENV{.armfleet_vfio_node}!="", ATTR{iommu_group/name}=="vfio-noiommu", \
ENV{.armfleet_vfio_node}="noiommu-$env{.armfleet_vfio_node}"
"""
    % _ON_VFIO
)
_LINK = """\
ENV{.armfleet_vfio_node}!="", ENV{%(key)s}!="", RUN+="/bin/mkdir -p -- /dev/vfio/by-%(kind)s", \
RUN+="/bin/ln -sfT -- ../$env{.armfleet_vfio_node} /dev/vfio/by-%(kind)s/$env{%(key)s}"
ACTION=="unbind", ENV{%(key)s}!="", RUN+="/bin/rm -f -- /dev/vfio/by-%(kind)s/$env{%(key)s} \
/dev/vfio/devices/by-%(kind)s/$env{%(key)s}"
"""


def render(plan: BootPlan) -> dict[str, str | None]:
    """The content of each of our files by its path; None where there shall be none."""
    return {
        RULES: _rules(plan) if plan.entries else None,
        MODPROBE: modprobe_conf(plan) if plan.entries else None,
        MODULES_LOAD: modules_load_conf(plan),
    }


def _rules(plan: BootPlan) -> str:
    lines = header(plan)
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
        'SUBSYSTEM!="%s", GOTO="armfleet_vfio_end"' % "|".join(BUSES),
    ]
    # A helper device of a driver (PLATFORM_DEVID_AUTO) can share the node of its parent; what is
    # said of a node is meant for the parent alone.
    lines.append('KERNEL!="*.auto", ENV{.armfleet_vfio_path}="$env{OF_FULLNAME}"')
    matches = [selector.udev_match for _entry, selector in claiming]
    for name, key, count in _LISTS:
        if any(match.startswith("ENV{.armfleet_vfio_%s}" % name) for match in matches):
            lines.append(_joined(name, key, count))
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
    parts = [selector.udev_match]
    parts.append('ENV{ARMFLEET_VFIO_POLICY}="%s"' % policy.kind)
    if policy.driver:
        parts.append('ENV{.armfleet_vfio_driver}="%s"' % policy.driver)
        if policy.driver in modules:
            parts.append('ENV{.armfleet_vfio_module}="%s"' % modules[policy.driver])
    if entry.tag:
        parts.append('ENV{ARMFLEET_VFIO_TAG}="%s"' % entry.tag)
    return ", ".join(parts)


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
        *[
            'ENV{ARMFLEET_VFIO_POLICY}=="vfio", SUBSYSTEM=="%s", GOTO="armfleet_vfio_end"' % bus
            for bus in BUSES
            if bus not in VFIO_DRIVERS
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
