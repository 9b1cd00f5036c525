# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The devices of this machine as /sys shows them. Reads only."""

from __future__ import annotations

import posixpath
from typing import Container, Iterator, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._model.buses import BUSES, BY_NAME, is_vfio_driver
from .._model.device import Board, Identity, State
from .._model.selector import Selector, match
from .._system.sysfs import KernelBlockedError, Sysfs

# How the names of links to consumers begin in a supplier's directory.
CONSUMER = "consumer:"

_TREE = "firmware/devicetree/base"


def sysfs_dir(device: Identity) -> str:
    """Return the device's directory in /sys by way of its bus."""
    return "bus/%s/devices/%s" % (device.bus, device.name)


def target_of(sysfs: Sysfs, path: str) -> str:
    """Return where the link leads that is at a path without links, or the path itself."""
    target = sysfs.link(path)
    if target is None:
        return path
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def parent_on_bus(sysfs: Sysfs, device: Identity) -> str | None:
    """Return the name of the device above this one, if it is on the same bus; else None."""
    parents = (sysfs.link(sysfs_dir(device)) or "").split("/")[-2:-1]
    known = "bus/%s/devices/" % device.bus
    return next((parent for parent in parents if sysfs.exists(known + parent)), None)


def container_of(sysfs: Sysfs, device: Identity) -> str | None:
    """Return the device ("bus/name") without whose driver this one is not there, or None."""
    bus = BUSES.get(device.bus)
    if bus is None or bus.vfio_unit is None or not bus.vfio_unit.has_others:
        return None
    parent = parent_on_bus(sysfs, device)
    return "%s/%s" % (device.bus, parent) if parent else None


def has_devices(sysfs: Sysfs) -> bool:
    """Return whether there is a /sys with devices, which an image or a container may lack."""
    return any(sysfs.exists("bus/%s/devices" % bus) for bus in BUSES)


def snapshot(sysfs: Sysfs, fields: Container[str]) -> list[Identity]:
    """Return every device of our buses, with those of its ``fields`` that firmware gives it.

    Other fields are not read, since on a machine with 10,000 devices each file more costs.
    """
    fields_of_buses = [
        (name, [field for field in bus.identified_by if field in fields])
        for name, bus in BUSES.items()
    ]
    return [
        _identify(sysfs, bus, name, fields_of_bus)
        for bus, fields_of_bus in fields_of_buses
        for name in sysfs.names("bus/%s/devices" % bus)
    ]


def with_all_ids(sysfs: Sysfs, device: Identity) -> Identity:
    """Return the device with all its fields, whatever the snapshot read of them."""
    return _identify(sysfs, device.bus, device.name, BUSES[device.bus].identified_by)


def consumers(sysfs: Sysfs, device: Identity) -> list[str]:
    """Return those who need this device before they can have a driver, as "bus:name"."""
    names = sysfs.names(sysfs_dir(device))
    return [name[len(CONSUMER) :] for name in names if name.startswith(CONSUMER)]


class ConsumerLink(NamedTuple):
    """A device link to a bound consumer ("bus:name"), and its path below the supplier.

    If it ``is_tracked``, the kernel unbinds the consumer before the supplier.
    """

    consumer: str
    path: str
    is_tracked: bool


def used_links(sysfs: Sysfs, directory: str, names: Sequence[str]) -> list[ConsumerLink]:
    """Return the links to those who need a device now, whose ``directory`` has these ``names``.

    Links of DL_FLAG_STATELESS are not tracked and last as long as drivers use them: status_show
    in drivers/base/core.c.
    """
    links = []
    for name in names:
        if not name.startswith(CONSUMER):
            continue
        path = "%s/%s" % (directory, name)
        status = sysfs.read(path + "/status")
        if status == "active" or (
            status == "not tracked" and sysfs.link(path + "/consumer/driver") is not None
        ):
            links.append(ConsumerLink(name[len(CONSUMER) :], path, status == "active"))
    return links


def board(sysfs: Sysfs) -> Board:
    """Return what firmware calls this machine; nothing where that is not known."""
    compatible = sysfs.strings(_TREE + "/compatible")
    if compatible:
        return Board(compatible)
    dmi_names = [sysfs.read("class/dmi/id/" + name) for name in ("product_name", "board_name")]
    return Board((), *[_text.stripped(name or "") or None for name in dmi_names])


def for_other_boards(sysfs: Sysfs, selectors: Sequence[Selector]) -> dict[Selector, str]:
    """Return those of ``selectors`` that do not count on this board, and a sentence that says so.

    PolicyError where it is not known which board this is.
    """
    restricted = [selector for selector in selectors if selector.when_board]
    names = board(sysfs).names if restricted else []
    if restricted and not names:
        raise PolicyError(
            "%s has when_board, but the board is unknown: neither "
            "/sys/firmware/devicetree/base/compatible nor /sys/class/dmi/id identifies it, as in "
            "an image that is not running. Give only the entries for this board, without "
            "`when_board`" % restricted[0].label
        )
    return {
        selector: "%s applies to %s only, and this board is %s"
        % (selector.label, " or ".join(selector.when_board), ", ".join(names))
        for selector in restricted
        if not set(names).intersection(selector.when_board)
    }


def reference_path(sysfs: Sysfs, reference: str) -> str | None:
    """Return the path that a property of the device tree holds, or None.

    ``reference`` is an alias, or the absolute path of another property.
    """
    property_path = reference if reference.startswith("/") else "/aliases/" + reference
    paths = sysfs.strings(_TREE + property_path)
    # The node has a property "name" as every node, which is no path.
    return paths[0] if paths and paths[0].startswith("/") else None


def aliases(sysfs: Sysfs) -> dict[str, str]:
    """Return the alias of the device tree for each path that has one, the first by name."""
    by_path: dict[str, str] = {}
    for name, path in _numbered_aliases(sysfs):
        by_path.setdefault(path, name)
    return by_path


def aliases_of(sysfs: Sysfs, path: str) -> list[str]:
    """Return the aliases of a node that the kernel passes to udev, sorted."""
    return [name for name, of_path in _numbered_aliases(sysfs) if of_path == path]


def _numbered_aliases(sysfs: Sysfs) -> Iterator[tuple[str, str]]:
    """Yield each alias and its path, sorted by the alias.

    Only aliases that end in a number: the kernel passes no others to udev (of_alias_scan in
    drivers/of/base.c).
    """
    for name in sorted(sysfs.names(_TREE + "/aliases")):
        path = reference_path(sysfs, name) if name[-1:].isdigit() else None
        if path:
            yield name, path


def states(sysfs: Sysfs, devices: Sequence[Identity]) -> list[State]:
    """Return the state of each device; raise PolicyError if a hanging driver blocks one."""
    overrides = sysfs.read_locked([sysfs_dir(device) + "/driver_override" for device in devices])
    return [_state(sysfs, device, override) for device, override in zip(devices, overrides)]


def states_as_far_as_known(
    sysfs: Sysfs, devices: Sequence[Identity]
) -> list[tuple[State, str | None]]:
    """As :func:`states`, but where a driver hangs, why the override is not known beside it."""
    try:
        return [(present, None) for present in states(sysfs, devices)]
    except KernelBlockedError:
        return [_state_as_far_as_known(sysfs, device) for device in devices]


def _state_as_far_as_known(sysfs: Sysfs, device: Identity) -> tuple[State, str | None]:
    try:
        return state(sysfs, device), None
    except KernelBlockedError as error:
        return _state(sysfs, device, None), str(error)


def state(sysfs: Sysfs, device: Identity) -> State:
    return states(sysfs, [device])[0]


class Resolved(NamedTuple):
    """The devices of each selector, and what is wrong, by the selector's position."""

    devices: list[list[Identity]]
    problems: dict[int, str]


class _Resolution:
    """What a selector means on this machine, and which devices that are, or what is wrong."""

    def __init__(self, sysfs: Sysfs, selector: Selector) -> None:
        self.selector = selector
        self.target: Selector | None = None
        self.devices: list[Identity] = []
        self.problem: str | None = None
        try:
            self.target = selector.resolved(lambda reference: reference_path(sysfs, reference))
        except PolicyError as error:
            self.problem = str(error) if selector.required else None

    @property
    def is_missing(self) -> bool:
        return self.target is not None and self.selector.required and not self.devices


def resolve(
    sysfs: Sysfs, selectors: Sequence[Selector], devices: Sequence[Identity] | None = None
) -> list[list[Identity]]:
    """Return the devices of each selector, references followed, in one snapshot of /sys.

    PolicyError with every problem at once, as :func:`resolve_all` reports them.
    """
    resolved = resolve_all(sysfs, selectors, devices)
    if resolved.problems:
        raise PolicyError(list(resolved.problems.values()))
    return resolved.devices


def resolve_all(
    sysfs: Sysfs, selectors: Sequence[Selector], devices: Sequence[Identity] | None = None
) -> Resolved:
    """As :func:`resolve`, with the devices of those selectors that have no problem.

    A problem is a reference that is not there, a required selector without a match (and why), or
    a number other than ``expect``.
    """
    resolutions = [_Resolution(sysfs, selector) for selector in selectors]
    _match(sysfs, resolutions, devices)
    missing = [resolution for resolution in resolutions if resolution.is_missing]
    if missing:
        _explain_missing(sysfs, missing)
    for resolution in resolutions:
        resolution.problem = resolution.problem or _other_card(sysfs, resolution)
        if resolution.devices and resolution.selector.expect not in (None, len(resolution.devices)):
            resolution.problem = _unexpected(sysfs, resolution)
    return Resolved(
        [[] if resolution.problem else resolution.devices for resolution in resolutions],
        {
            position: resolution.problem
            for position, resolution in enumerate(resolutions)
            if resolution.problem
        },
    )


def _match(
    sysfs: Sysfs, resolutions: Sequence[_Resolution], devices: Sequence[Identity] | None
) -> None:
    known = [(resolution, resolution.target) for resolution in resolutions if resolution.target]
    targets = [target for _resolution, target in known]
    if devices is None:
        devices = snapshot(sysfs, {field for target in targets for field in target.fields})
    for (resolution, _target), matches in zip(known, match(targets, devices)):
        resolution.devices = matches


def _explain_missing(sysfs: Sysfs, missing: Sequence[_Resolution]) -> None:
    # Here, because nearly all runs have not to load it.
    from .missing_device import (  # noqa: PLC0415
        MissingDevices,
    )

    explained = MissingDevices(sysfs)
    for resolution in missing:
        if resolution.target:
            resolution.problem = (
                "%s matches no device: %s. If the device may be missing, set `required: false`"
                % (
                    resolution.selector.label,
                    explained.explain(resolution.selector, resolution.target),
                )
            )


def _other_card(sysfs: Sysfs, resolution: _Resolution) -> str | None:
    """Return that another card is at an address than the one that the entry is for, or None.

    An entry that is not required then matches nothing.
    """
    selector = resolution.selector
    for device in resolution.devices if selector.pci_id else ():
        ids = with_all_ids(sysfs, device).pci_id
        if selector.pci_id in ids:
            continue
        if not selector.required:
            resolution.devices = []
            return None
        return (
            "%s is for a card with pci_id %r, but %s is there. Addresses change when cards are "
            "added or moved: correct the address, or pci_id"
        ) % (selector.label, selector.pci_id, ids[-1] if ids else "a card without an id")
    return None


def _unexpected(sysfs: Sysfs, resolution: _Resolution) -> str:
    return (
        "%s matches %d devices, but expect is %s: %s. Correct `expect`, or use a more specific "
        "selector"
    ) % (
        resolution.selector.label,
        len(resolution.devices),
        resolution.selector.expect,
        ", ".join(with_all_ids(sysfs, device).stable_name for device in resolution.devices),
    )


def _identify(sysfs: Sysfs, bus: str, name: str, fields: Container[str]) -> Identity:
    path = "bus/%s/devices/%s" % (bus, name)
    dt_path: str | None = None
    compatible: tuple[str, ...] = ()
    acpi_path: str | None = None
    acpi_hid: str | None = None
    acpi_uid: str | None = None
    # A driver can make a helper device that shares its parent's node (device_set_of_node_from_dev)
    # and is named by PLATFORM_DEVID_AUTO; what is said of a node means the parent.
    if name.endswith(".auto"):
        return Identity(bus, name)
    if "dt_path" in fields:
        dt_path = node_path(sysfs, path)
    if "compatible" in fields:
        compatible = sysfs.strings(path + "/of_node/compatible")
        if not compatible and BUSES[bus].match_kind == BY_NAME:
            compatible = _acpi_compatible(sysfs.read(path + "/modalias") or "")
    if ("acpi_path" in fields or "acpi_hid" in fields) and not dt_path:
        acpi_path = sysfs.read(path + "/firmware_node/path")
        acpi_hid = sysfs.read(path + "/firmware_node/hid")
        if "acpi_uid" in fields:
            acpi_uid = sysfs.read(path + "/firmware_node/uid")
    pci_ids = _pci_ids(sysfs.read(path + "/modalias") or "") if "pci_id" in fields else ()
    return Identity(
        bus=bus,
        name=name,
        dt_path=dt_path,
        compatible=compatible,
        acpi_path=acpi_path,
        acpi_hid=acpi_hid,
        pci_id=pci_ids,
        acpi_uid=acpi_uid and acpi_uid.rstrip(),
    )


def _acpi_compatible(modalias: str) -> tuple[str, ...]:
    """Return the compatibles of the _DSD of a device that ACPI describes by them; else none.

    "of:NnameT", where the name has four characters and no type is after it, and a "C" before each
    compatible: create_of_modalias in drivers/acpi/device_sysfs.c.
    """
    line = modalias.rpartition("\n")[2]
    is_of_acpi = line.startswith("of:N") and line[8:10] == "TC"
    return tuple(filter(None, line[10:].split("C"))) if is_of_acpi else ()


def _pci_ids(modalias: str) -> tuple[str, ...]:
    """Return vendor and device, without and with those of the subsystem; none if unknown.

    "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00": modalias_show in
    drivers/pci/pci-sysfs.c, which is one file instead of four.
    """
    digits = [modalias[start : start + 4].lower() for start in (9, 18, 28, 38)]
    if not modalias.startswith("pci:v") or len(digits[3]) < 4:
        return ()
    return ":".join(digits[:2]), ":".join(digits)


def node_path(sysfs: Sysfs, path: str) -> str | None:
    """Return the device-tree path of the device with this directory in /sys, or None."""
    target = sysfs.link(path + "/of_node")
    if target is None:
        return None
    return target.partition("/" + _TREE)[2] or None


def _state(sysfs: Sysfs, device: Identity, override: str | None) -> State:
    path = sysfs_dir(device)
    driver = sysfs.link_name(path + "/driver")
    group = sysfs.link_name(path + "/iommu_group")
    return State(
        driver,
        None if override in (None, "", "(null)") else override,
        group,
        _vfio_nodes(sysfs, path, group) if is_vfio_driver(driver, device.bus) else (),
    )


def _vfio_nodes(sysfs: Sysfs, path: str, group: str | None) -> tuple[str, ...]:
    nodes = [
        "/dev/vfio/" + name
        for name in ([group, "noiommu-" + group] if group else [])
        if sysfs.exists("class/vfio/" + name)
    ]
    nodes += [
        "/dev/vfio/devices/" + name
        for name in sysfs.names(path + "/vfio-dev")
        if sysfs.exists("%s/vfio-dev/%s/dev" % (path, name))
    ]
    return tuple(nodes)
