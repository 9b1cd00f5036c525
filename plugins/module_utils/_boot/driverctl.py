# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What driverctl has stored to be set at each boot. Reads only.

Its rule 05-driverctl.rules starts driverctl@BUS-NAME.service for each device for which there is
such a file; the service runs "driverctl load-override", which unbinds the device, sets the override
and probes it, after the rules of everybody else. Files are read here as that script reads them
(versions 0.111 to 0.121 do so in the same way).
"""

from __future__ import annotations

import re
from typing import Collection, NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES, is_vfio_driver
from .._model.device import Identity
from .._model.policy import DEFAULT, DRIVER, NO_AUTOBIND, NO_DRIVER, VFIO, Policy
from .._system.files import FileChange, Files

DIRECTORY = "/etc/driverctl.d"

# What systemd leaves as it is in the name of a unit: VALID_CHARS in src/basic/unit-name.c.
_UNIT_NAME = re.compile(r"[0-9A-Za-z:_.@-]+")

_DASH = (
    "systemd makes '/' of each '-' in the name that it passes to driverctl (%I), and there is no "
    "such device"
)
_ESCAPED = (
    "systemd escapes a character of its name, and driverctl@.service finds no file with that name"
)
_NO_MODULE = "its content is not the name of one module, so that modprobe fails"


class Stored(NamedTuple):
    """One stored override: the file, the device's bus and name, and the driver's name.

    ``driver_override`` is empty if driverctl clears the override. ``content`` is None for a
    directory. ``ignored`` is why driverctl does not set it at boot, as a clause.
    """

    path: str
    bus: str
    name: str
    driver_override: str
    content: str | None
    ignored: str | None = None

    @property
    def policy(self) -> Policy | None:
        """The policy that says the same; None if that is no driver's name."""
        if not self.driver_override:
            return Policy(DEFAULT)
        if self.ignored == _NO_MODULE:
            return None
        if self.driver_override == NO_DRIVER:
            return Policy(NO_AUTOBIND)
        if is_vfio_driver(self.driver_override, self.bus):
            # The policy alone can mean another driver of VFIO.
            is_choice = bool(BUSES[self.bus].vfio_variants)
            return Policy(VFIO, vfio_driver=self.driver_override if is_choice else None)
        return Policy(DRIVER, self.driver_override)

    @property
    def removal(self) -> FileChange | None:
        """The change after which driverctl claims the device no more; None of a directory."""
        return None if self.content is None else FileChange(self.path, self.content, None)

    def conflict(self, device: Identity) -> str:
        """Return why a list cannot have this device, and what can be done."""
        remedy = "Set `driverctl: take_over` to replace that file with the list"
        if self.content is None:
            remedy = "It is a directory, which driverctl reads as no driver: remove it"
        sets = "sets %s" % self.driver_override if self.driver_override else "clears its override"
        return (
            "%s is claimed by this list and by driverctl: %s %s at each boot, after the "
            "rules of this collection. %s, or remove the device from the list"
            % (device.label, self.path, sets, remedy)
        )


def stored(files: Files) -> list[Stored]:
    """Return what is stored of devices of our buses, by file name; driverctl skips empty files."""
    return [
        override
        for file in files.names(DIRECTORY)
        for override in [_stored(files, file)]
        if override
    ]


def _stored(files: Files, file: str) -> Stored | None:
    device = device_of(file)
    path = "%s/%s" % (DIRECTORY, file)
    # test -s, which counts a directory with an entry and no FIFO.
    version = files.version(path) if device else None
    if device is None or not version or not version[-1]:
        return None
    content = files.read_drop_in(path)
    # As "$(< file)" of bash, which gives nothing of a directory.
    override = (content or "").replace("\0", "").rstrip("\n")
    bus, name = device
    return Stored(
        path=path,
        bus=bus,
        name=name,
        driver_override=override,
        content=content,
        ignored=_ignored_reason("-".join(device), override),
    )


def _ignored_reason(file: str, override: str) -> str | None:
    if file.count("-") > 1:
        return _DASH
    if not _UNIT_NAME.fullmatch(file):
        return _ESCAPED
    return None if override in ("", *_text.words(override)) else _NO_MODULE


def device_of(file: str) -> tuple[str, str] | None:
    """Return bus and name of the device whose override ``file`` has; None if no bus of ours."""
    for bus in BUSES:
        name = file[len(bus) + 1 :]
        if name and file.startswith(bus + "-"):
            return bus, name
    return None


def of_device(device: Identity, kept: Sequence[Stored]) -> Stored | None:
    """Return what is stored of this device."""
    return next(
        (
            override
            for override in kept
            if (override.bus, override.name) == (device.bus, device.name)
        ),
        None,
    )


def notes(files: Files, kept: Sequence[Stored], devices: Collection[tuple[str, str]]) -> list[str]:
    """Return a sentence for each file by which driverctl sets no override of ``devices``.

    These are given by bus and name; ``kept`` is what :func:`stored` returned.
    """
    read = {override.path: override for override in kept}
    sentences = []
    for file in files.names(DIRECTORY):
        path = "%s/%s" % (DIRECTORY, file)
        note = _note(file, read.get(path), devices)
        if note:
            sentences.append("%s %s" % (path, note))
    return sentences


def _note(file: str, kept: Stored | None, devices: Collection[tuple[str, str]]) -> str | None:
    device = device_of(file)
    if device is None:
        return (
            "is not for a device of a bus that this collection supports, so it is left to driverctl"
        )
    if device not in devices:
        return (
            "is for the %s device %s, which this host does not have, so driverctl does not read it"
            % (BUSES[device[0]].title, device[1])
        )
    if kept is None:
        return "is empty or is no file, so driverctl ignores it"
    return "is not applied by driverctl at boot: %s" % kept.ignored if kept.ignored else None
