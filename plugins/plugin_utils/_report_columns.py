# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The columns of a report, of devices and of hosts: what is read, and what each format has. Pure.

All formats follow from these two tables. How the page renders a device is in COLUMNS of
roles/report/files/report.js, which reads the values by the keys of DEVICE_COLUMNS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypedDict

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._suggested_entries import (
    entry_of,
    is_accepted,
)

NO_DRIVER = "(none)"
DRIVER_NOT_KNOWN = "(unknown)"
_USES_NOT_KNOWN = "(unknown without root)"


class Use(TypedDict):
    """What would be hurt if the device lost its driver."""

    kind: str
    message: str


# Earlier versions of device_info return obstacles without a subject.
_USE = _answers.Record(
    _answers.HAZARD.part("kind", "message").keys, _answers.HAZARD.part("subject").keys
)
_USES: Mapping[str, _answers.Shape] = {"in_use_by": _answers.Nullable(_answers.ListOf(_USE))}


class Binding(TypedDict):
    """A driver and the override that leads to it."""

    driver: str | None
    driver_override: str | None


class NextBoot(Binding):
    """What will be after the next boot, whether that is known, and why.

    With ``in_drift`` a message of ``drift`` has the reason as well.
    """

    known: bool
    reason: str
    in_drift: bool


class Obstacle(TypedDict):
    """Why a device cannot be bound to VFIO."""

    kind: str
    message: str


class Device(TypedDict):
    """A device of a host: a value for the key of each of DEVICE_COLUMNS.

    ``device`` names it best. ``in_use_by`` is None if not known, and so is ``candidate``, whether
    it can be bound to VFIO. ``why_not`` is empty for a candidate. ``entry`` and ``settings`` are
    those of a list with a candidate, None for other devices. ``reset_function`` is None if VFIO
    asks for none.
    """

    device: str
    name: str
    bus: str
    driver: str | None
    driver_override: str | None
    desired: Binding | None
    next_boot: NextBoot
    drift: list[str]
    in_use_by: list[Use] | None
    compatible: list[str]
    acpi_hid: str | None
    pci_id: str | None
    iommu_group: str | None
    iommu_group_devices: list[str]
    reset_function: bool | None
    candidate: bool | None
    why_not: list[Obstacle]
    entry: dict[str, Any] | None
    settings: dict[str, bool] | None


class HostState(TypedDict):
    """A host as a report shows it.

    ``boot_files`` is what is wrong with them, ``lost_entries`` which entries of the list match
    nothing any more; ``notes`` is what does not count as drift.
    """

    host: str
    state: str
    message: str
    devices: list[Device]
    boot_files: list[str]
    lost_entries: list[str]
    notes: list[str]


def _unchanged(value: Any) -> Any:
    return value


class DeviceColumn(NamedTuple):
    """A column of devices.

    ``reads`` are the keys that it needs of a device as device_info returns it. ``value`` makes the
    value from them that JSON has under ``key``. ``cells`` are the columns of CSV by their names,
    each with the function that makes a text of the value. ``page_value`` makes what the page has in
    place of the value; None if the page does not show it.
    """

    key: str
    reads: _answers.Record
    value: Callable[[Mapping[str, Any]], Any]
    cells: Mapping[str, Callable[[Any], str]]
    page_value: Callable[[Any], Any] | None = _unchanged


def _as_returned(
    key: str,
    cells: Mapping[str, Callable[[Any], str]],
    page_value: Callable[[Any], Any] | None = _unchanged,
) -> DeviceColumn:
    """Return a column with the value that device_info returns under the same key."""
    reads = _answers.INSPECTED_DEVICE.part(key)
    return DeviceColumn(key, reads, itemgetter(key), cells, page_value)


def _driver(driver: str | None) -> str:
    return driver or NO_DRIVER


def _override(override: str | None) -> str:
    return override or ""


def _next_driver(binding: NextBoot) -> str | None:
    return binding["driver"] if binding["known"] else DRIVER_NOT_KNOWN


def _use_sentences(uses: list[Use] | None) -> str:
    return _USES_NOT_KNOWN if uses is None else _sentences(uses)


def _sentences(messages: Sequence[Use | Obstacle]) -> str:
    return "; ".join(message["message"] for message in messages)


def _flag(flag: bool | None) -> str:
    return "" if flag is None else "yes" if flag else "no"


def _uses(device: Mapping[str, Any]) -> list[Use] | None:
    uses = device["in_use_by"]
    return uses and [Use(kind=use["kind"], message=use["message"]) for use in uses]


def _obstacles(device: Mapping[str, Any]) -> list[Obstacle]:
    """Return ``why_not`` without the uses that ``in_use_by`` has: they are one obstacle."""
    uses = {(use["kind"], use["subject"]) for use in device["in_use_by"] or () if "subject" in use}
    obstacles = {
        ("in_use", "in use")
        if (obstacle["kind"], obstacle.get("subject")) in uses
        else (obstacle["kind"], obstacle["message"]): None
        for obstacle in device["why_not"] or ()
    }
    return [Obstacle(kind=kind, message=message) for kind, message in obstacles]


def _entry(device: Mapping[str, Any]) -> dict[str, Any] | None:
    entry = entry_of(device["entry"] or {})
    return entry if device["candidate"] and is_accepted(entry) else None


def _settings(device: Mapping[str, Any]) -> dict[str, bool] | None:
    return dict(device["settings"] or {}) if device["candidate"] else None


DEVICE_COLUMNS = (
    DeviceColumn(
        "device",
        _answers.INSPECTED_DEVICE.part("dt_path", "acpi_path", "name"),
        lambda device: device["dt_path"] or device["acpi_path"] or device["name"],
        {"device": str},
    ),
    _as_returned("name", {"name": str}),
    _as_returned("bus", {"bus": str}),
    _as_returned("driver", {"driver": _driver}),
    _as_returned("driver_override", {"driver_override": _override}),
    _as_returned(
        "desired",
        {
            "desired_driver": lambda binding: _driver(binding["driver"]) if binding else "",
            "desired_driver_override": lambda binding: (
                _override(binding["driver_override"]) if binding else ""
            ),
        },
    ),
    DeviceColumn(
        "next_boot",
        _answers.INSPECTED_DEVICE.part("next_boot"),
        # Earlier versions of device_info do not return it.
        lambda device: {"in_drift": False, **device["next_boot"]},
        {
            "next_boot_driver": lambda binding: _driver(_next_driver(binding)),
            "next_boot_driver_override": lambda binding: (
                _override(binding["driver_override"]) if binding["known"] else ""
            ),
            "next_boot_reason": itemgetter("reason"),
        },
        lambda binding: {**binding, "driver": _next_driver(binding)},
    ),
    _as_returned("drift", {"drift": "; ".join}),
    DeviceColumn(
        "in_use_by",
        _answers.Record(_USES),
        _uses,
        {"in_use_by": _use_sentences},
    ),
    _as_returned("compatible", {"compatible": "; ".join}, lambda names: names[:1]),
    _as_returned("acpi_hid", {"acpi_hid": lambda hid: hid or ""}),
    _as_returned("pci_id", {"pci_id": lambda pci_id: pci_id or ""}),
    _as_returned("iommu_group", {"iommu_group": lambda group: group or ""}),
    DeviceColumn(
        "iommu_group_devices",
        _answers.INSPECTED_DEVICE.part("iommu_group_devices"),
        lambda device: device["iommu_group_devices"] or [],
        {},
        len,
    ),
    _as_returned("reset_function", {"reset_function": _flag}),
    _as_returned("candidate", {"candidate": _flag}),
    DeviceColumn(
        "why_not",
        _answers.Record({**_answers.INSPECTED_DEVICE.part("why_not").keys, **_USES}),
        _obstacles,
        {"why_not": _sentences},
    ),
    DeviceColumn(
        "entry",
        _answers.INSPECTED_DEVICE.part("entry", "candidate"),
        _entry,
        {},
        None,
    ),
    DeviceColumn(
        "settings",
        _answers.INSPECTED_DEVICE.part("settings", "candidate"),
        _settings,
        {},
        None,
    ),
)


class Heading(NamedTuple):
    """The head of a column of the page.

    ``class_name`` is how its cells are rendered and sorted: name, state, sentence or number.
    ``total`` is the title of the sum over all hosts, which JSON has too; None if there is none.
    """

    title: str
    class_name: str
    total: str | None = None


class Metric(NamedTuple):
    """A gauge of Prometheus, with the text that explains it."""

    name: str
    explanation: str


class HostColumn(NamedTuple):
    """A column of hosts, shown by each format of which it has something."""

    key: str
    value: Callable[[HostState], Any]
    is_in_csv: bool = False
    heading: Heading | None = None
    metric: Metric | None = None


def _count(is_counted: Callable[[Device], bool]) -> Callable[[HostState], int]:
    return lambda host: sum(map(is_counted, host["devices"]))


def is_new_candidate(device: Device) -> bool:
    """Return whether the device can be bound to VFIO and no list claims it."""
    return bool(device["candidate"]) and device["desired"] is None


HOST_COLUMNS = (
    HostColumn("host", itemgetter("host"), True, Heading("Host", "name")),
    HostColumn("state", itemgetter("state"), True, Heading("State", "state")),
    HostColumn("message", itemgetter("message"), True, Heading("Details", "message")),
    HostColumn(
        "devices",
        lambda host: len(host["devices"]),
        heading=Heading("Devices", "number", "Devices"),
    ),
    HostColumn(
        "listed",
        _count(lambda device: device["desired"] is not None),
        heading=Heading("In the list", "number", "In a list"),
        metric=Metric("listed_devices", "Devices in the last-applied configuration."),
    ),
    HostColumn(
        "candidates",
        _count(is_new_candidate),
        heading=Heading("Candidates", "number", "Candidates"),
        metric=Metric(
            "candidate_devices", "Devices in no list that can be bound to a VFIO driver."
        ),
    ),
    HostColumn(
        "drifting",
        _count(lambda device: bool(device["drift"])),
        heading=Heading("Drift", "number", "With drift"),
        metric=Metric(
            "drift_devices",
            (
                "Devices that differ from the last-applied configuration, now or after the next "
                "boot."
            ),
        ),
    ),
    HostColumn(
        "drifting_boot_files",
        lambda host: len(host["boot_files"]),
        metric=Metric(
            "drift_boot_files",
            "Differences of boot files from the last-applied configuration.",
        ),
    ),
    HostColumn(
        "in_use",
        _count(lambda device: bool(device["in_use_by"])),
        heading=Heading("In use", "number", "In use"),
        metric=Metric(
            "in_use_devices",
            "Devices that are in use.",
        ),
    ),
)
