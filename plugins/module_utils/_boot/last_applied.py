# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last-applied configuration: what the header of the udev rules records. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from types import MappingProxyType
from typing import Any, Mapping, NamedTuple, Sequence

from .. import _text
from .._errors import DAMAGED, PolicyError
from .._model.buses import VFIO_DRIVERS, bus_of_vfio_driver
from .._model.device import Identity
from .._model.node_access import NodeAccess
from .._model.policy import (
    ALWAYS,
    AUTO,
    NEVER,
    Options,
    VfioSettings,
)
from .._model.policy_list import Entry, parse_entries
from .._model.selector import Selector
from . import matched_devices
from .matched_devices import MatchedDevice

RULES = "/etc/udev/rules.d/70-armfleet-vfio.rules"
MODPROBE = "/etc/modprobe.d/armfleet-vfio.conf"
MODULES_LOAD = "/etc/modules-load.d/armfleet-vfio.conf"
PATHS = (RULES, MODPROBE, MODULES_LOAD)

# There while the last-applied configuration is for the next boot alone; that boot empties /run.
WAITS_FOR_BOOT = "/run/armfleet-vfio-reboot-required"
# The name of the rollout that changed the list and has not ended. The playbook removes the file.
UNFINISHED = "/run/armfleet-vfio-rollout"
# The last rollouts. Called so since it had one alone, format 1, which had no number.
PREVIOUS = "/var/lib/armfleet-vfio/previous.json"
# What the user accepted when that list was applied, by the kinds of allow.
ACCEPTED = "Accepted: "
MARK = "# Written by armfleet.vfio.host_policy. Do not edit: the next run replaces this file."
_ENTRY, _NATIVE, _OPTIONS = "# policy: ", "# native: ", "# options: "
_MACHINE = "# machine: "
_MACHINE_KEYS = {
    *("aliases", "buses", "modules", "variants"),
    *("initramfs_tool", "initramfs_modules"),
}
_BEFORE = "# before: "
_NUMVFS_BEFORE = "# numvfs before: "
_PCI_IDS = "# pci ids: "


class AppliedList(NamedTuple):
    """A policy list and its options, which have no meaning if the list is empty."""

    entries: list[Entry]
    options: Options = Options()


class Machine(NamedTuple):
    """What boot files are rendered from beside the list, as the machine was at that moment.

    ``aliases`` are the paths of the list's device-tree aliases, ``buses`` those of the devices
    given to VFIO, ``modules`` the modules of pinned drivers by the driver's name. ``variants`` are
    the VFIO drivers that the kernel has for some devices alone, by PCI id.
    ``initramfs_tool`` brings ``initramfs_modules`` into the initramfs; None if none does.
    """

    aliases: Mapping[str, str] = MappingProxyType({})
    buses: Sequence[str] = ()
    modules: Mapping[str, str] = MappingProxyType({})
    initramfs_tool: str | None = None
    initramfs_modules: Sequence[str] = ()
    variants: Mapping[str, str] = MappingProxyType({})


class LastApplied(NamedTuple):
    """What the last run wrote down: its list, and which driver each device was taken from.

    ``natives`` maps a device's stable name to its driver, None for none. ``machine`` is None if
    it cannot be read. ``numvfs_before`` are numbers of virtual functions before a list set them, by
    stable name. ``pci_ids`` are those of the functions that both name, because another card can
    have the address by now. ``before`` are settings before a list turned them on, as far as they
    are known. ``matched`` are the devices of each entry as they were then; empty if that is not
    known.
    """

    entries: list[Entry]
    natives: dict[str, str | None]
    options: Options = Options()
    machine: Machine | None = Machine()
    before: VfioSettings = VfioSettings()
    numvfs_before: Mapping[str, int] = MappingProxyType({})
    pci_ids: Mapping[str, str] = MappingProxyType({})
    matched: Sequence[Sequence[MatchedDevice]] = ()

    def native_of(self, device: Identity) -> tuple[str | None] | None:
        """Return the recorded native driver of a device, or None if it is unknown."""
        for name in (device.name_on_bus, device.stable_name):
            if name in self.natives and self._is_of(name, device):
                return (self.natives[name],)
        return None

    def numvfs_before_of(self, device: Identity) -> int | None:
        """Return the recorded number of virtual functions, or None if it is unknown."""
        name = device.stable_name
        return self.numvfs_before.get(name) if self._is_of(name, device) else None

    def _is_of(self, name: str, device: Identity) -> bool:
        recorded = self.pci_ids.get(name)
        return recorded is None or recorded in device.pci_id


class BootPlan(NamedTuple):
    """All that the boot files are made of.

    ``resolved`` are the selectors of ``entries`` with aliases followed, None if a rule cannot
    match such a device; ``buses`` those of the devices given to
    VFIO, ``modules`` the modules of pinned drivers by the driver's name, ``variants`` as in
    Machine. ``aliases`` are those that were followed; ``initramfs_tool`` is the one that is
    configured to include ``initramfs_modules``.
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
    before: VfioSettings = VfioSettings()
    variants: Mapping[str, str] = MappingProxyType({})
    numvfs_before: Mapping[str, int] = MappingProxyType({})
    pci_ids: Mapping[str, str] = MappingProxyType({})
    matched: Sequence[Sequence[MatchedDevice]] = ()

    @property
    def vfio_drivers(self) -> list[str]:
        """The VFIO drivers that the list asks for."""
        named = {entry.policy.vfio_driver for entry in self.entries} - {None}
        variants = {*map(str, named), *self.variants.values()}
        of_buses = [VFIO_DRIVERS[bus] for bus in sorted(set(self.buses))]
        return [*of_buses, *sorted(variants.difference(of_buses))]


def accepted(content: str | None) -> list[str]:
    """Return the kinds of use that were accepted for the boot which a file says is waited for."""
    return [
        kind
        for line in _text.lines(content or "")
        if line.startswith(ACCEPTED)
        for kind in line[len(ACCEPTED) :].split(", ")
    ]


def boot_plan(last_applied: LastApplied, machine: Machine) -> BootPlan:
    """Return the plan that the last run rendered its files from."""
    return BootPlan(
        entries=last_applied.entries,
        resolved=[entry.selector.for_boot(machine.aliases) for entry in last_applied.entries],
        natives=last_applied.natives,
        buses=machine.buses,
        modules=machine.modules,
        options=last_applied.options,
        aliases=machine.aliases,
        initramfs_tool=machine.initramfs_tool,
        initramfs_modules=machine.initramfs_modules,
        before=last_applied.before,
        variants=machine.variants,
        numvfs_before=last_applied.numvfs_before,
        pci_ids=last_applied.pci_ids,
        matched=last_applied.matched,
    )


def not_ours(path: str, content: str | None) -> list[str]:
    """Return a sentence if there is a file of that name which this collection did not write."""
    # A script has its interpreter in the first line.
    if content is None or MARK in _text.lines(content)[:2]:
        return []
    return [
        "%s was not written by this collection, and foreign files are never edited. Move it away "
        "or delete it, and run again" % path
    ]


def parse_header(rules: str | None) -> LastApplied:
    """Return what the header of our rules file says of the last run."""
    entries: list[Mapping[str, Any]] = []
    natives: dict[str, str | None] = {}
    options: dict[str, Any] = {}
    machine: Machine | None = Machine()
    before = VfioSettings()
    numvfs_before: dict[str, int] = {}
    pci_ids: dict[str, str] = {}
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
            elif line.startswith(_NUMVFS_BEFORE):
                numvfs_before.update(_numbers(json.loads(line[len(_NUMVFS_BEFORE) :])))
            elif line.startswith(_PCI_IDS):
                pci_ids.update(_texts(json.loads(line[len(_PCI_IDS) :])))
        return LastApplied(
            entries=parse_entries(entries),
            natives=natives,
            options=to_options(**options),
            machine=machine,
            before=before,
            numvfs_before=numvfs_before,
            pci_ids=pci_ids,
            matched=matched_devices.parse(_text.lines(rules or ""), _ENTRY),
        )
    except DAMAGED as error:
        raise PolicyError(
            "The header of %s cannot be parsed (%s), so the last-applied configuration is "
            "unknown. Correct the lines that start with '%s', which were edited, or delete the "
            "file to start without one" % (RULES, error, _ENTRY.strip())
        ) from None


def _parse_machine(text: str) -> Machine | None:
    """Return what a line of the header says; None if this collection did not write it like that."""
    try:
        kept = json.loads(text)
        if not set(kept) <= _MACHINE_KEYS:
            return None
        machine = Machine(
            aliases=kept.get("aliases", {}),
            buses=kept.get("buses", ()),
            modules=kept.get("modules", {}),
            initramfs_tool=kept.get("initramfs_tool"),
            initramfs_modules=kept.get("initramfs_modules", ()),
            variants=kept.get("variants", {}),
        )
        pairs = [*machine.aliases.items(), *machine.modules.items()]
        texts = [text for pair in pairs for text in pair]
        texts += [*machine.initramfs_modules, machine.initramfs_tool or "", *machine.variants]
        is_known = all(isinstance(value, str) for value in texts) and all(
            map(bus_of_vfio_driver, machine.variants.values())
        )
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
        raise ValueError("%r is not a valid driver name" % driver)
    return {name: driver}


def _numbers(line: Mapping[str, Any]) -> dict[str, int]:
    for number in line.values():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ValueError("%r is not a number of virtual functions" % (number,))
    return dict(line)


def _texts(line: Mapping[str, Any]) -> dict[str, str]:
    for text in line.values():
        if not isinstance(text, str):
            raise ValueError("%r is not a PCI id" % (text,))
    return dict(line)


def to_mapping(entry: Entry) -> dict[str, Any]:
    """Return the entry as a user would write it."""
    selector, policy, tag, numvfs = entry
    mapping: dict[str, Any] = {selector.kind: selector.value}
    optional = {
        "pci_id": selector.pci_id,
        "acpi_uid": selector.acpi_uid,
        "bus": selector.bus or None,
        "expect": selector.expect,
    }
    mapping.update({key: value for key, value in optional.items() if value is not None})
    if not selector.required:
        mapping["required"] = False
    if selector.when_board:
        mapping["when_board"] = list(selector.when_board)
    mapping["policy"] = policy.kind
    if policy.driver:
        mapping["driver"] = policy.driver
    if policy.vfio_driver:
        mapping["vfio_driver"] = policy.vfio_driver
    if tag:
        mapping["tag"] = tag
    if numvfs is not None:
        mapping["sriov_numvfs"] = numvfs
    return mapping


def digest(entries: Sequence[Entry], options: Options) -> str:
    """Return a text that is the same for the same list and options, and for no others."""
    content: dict[str, Any] = {"devices": list(map(to_mapping, entries))}
    if entries:
        content.update(from_options(options))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_options(
    reset_required: bool | None = None,
    unsafe_noiommu: bool | None = None,
    unsafe_interrupts: bool | None = None,
    vfio_group: str | None = None,
    vfio_mode: str | None = None,
    initramfs: str = AUTO,
) -> Options:
    """Return the options of a list from parameters; raise PolicyError if they are invalid."""
    settings = VfioSettings(reset_required, unsafe_noiommu, unsafe_interrupts)
    if not {type(value) for value in settings} <= {bool, type(None)}:
        raise PolicyError(
            "`reset_required`, `unsafe_noiommu` and `unsafe_interrupts` must be true or false"
        )
    if initramfs not in (AUTO, ALWAYS, NEVER):
        raise PolicyError("`initramfs` is %r, but must be auto, always or never" % (initramfs,))
    return Options(settings, check_access(vfio_group, vfio_mode), initramfs)


def from_settings(settings: VfioSettings) -> dict[str, bool]:
    """Return the module's options for these settings, without those that are None."""
    values = {
        "reset_required": settings.reset_required,
        "unsafe_noiommu": settings.unsafe_noiommu,
        "unsafe_interrupts": settings.unsafe_interrupts,
    }
    return {name: value for name, value in values.items() if value is not None}


def from_options(options: Options) -> dict[str, Any]:
    """Return those of the module's options that are not as they are by default."""
    group, mode = options.access or (None, None)
    values = {
        **from_settings(options.settings),
        "vfio_group": group,
        "vfio_mode": mode,
        "initramfs": None if options.initramfs == AUTO else options.initramfs,
    }
    return {name: value for name, value in values.items() if value is not None}


def _from_machine(plan: BootPlan) -> dict[str, Any]:
    values = {
        "aliases": dict(sorted(plan.aliases.items())),
        "buses": sorted(set(plan.buses)),
        "modules": dict(sorted(plan.modules.items())),
        "initramfs_tool": plan.initramfs_tool,
        "initramfs_modules": list(plan.initramfs_modules),
        "variants": dict(sorted(plan.variants.items())),
    }
    return {name: value for name, value in values.items() if value}


def check_access(group: str | None, mode: str | None) -> NodeAccess | None:
    """Return group and mode of the nodes; raise PolicyError if they are invalid."""
    if group is not None and not re.match(r"[A-Za-z_][A-Za-z0-9_.-]*\Z", group):
        raise PolicyError(
            "`vfio_group` %r is not a valid group name. Give the name of a group of the host"
            % group
        )
    if mode is not None and not re.match(r"0[0-7]{3}\Z", mode):
        raise PolicyError(
            "`vfio_mode` %r is not a valid mode. Give it in octal and in quotes, such as '0660'"
            % mode
        )
    return None if group is None and mode is None else NodeAccess(group, mode)


def header(plan: BootPlan) -> list[str]:
    """Return the lines from which :func:`parse_header` reads what was applied."""
    lines = [MARK, "# Policy list:"]
    for position, entry in enumerate(plan.entries):
        lines.append(_ENTRY + json.dumps(to_mapping(entry)))
        lines += matched_devices.to_lines(*plan.matched[position : position + 1])
    options = from_options(plan.options)
    if options:
        lines += ["# Options:", _OPTIONS + json.dumps(options)]
    before = from_settings(plan.before)
    if before:
        lines += ["# Values before the first list set them:", _BEFORE + json.dumps(before)]
    if plan.numvfs_before:
        lines += [
            "# Numbers of virtual functions before the first list set them:",
            *_one_line_each(_NUMVFS_BEFORE, plan.numvfs_before),
        ]
    if plan.natives:
        lines += ["# Native drivers of the devices:"]
        lines += _one_line_each(_NATIVE, plan.natives)
    if plan.pci_ids:
        lines += [
            "# PCI ids of these devices:",
            *_one_line_each(_PCI_IDS, plan.pci_ids),
        ]
    machine = _from_machine(plan)
    if machine:
        lines += ["# Machine:", _MACHINE + json.dumps(machine)]
    return lines


def _one_line_each(mark: str, values: Mapping[str, Any]) -> list[str]:
    """Return a line for each value: udev skips a file with a line of 16 KiB (UDEV_LINE_SIZE)."""
    return [mark + json.dumps({name: values[name]}) for name in sorted(values)]
