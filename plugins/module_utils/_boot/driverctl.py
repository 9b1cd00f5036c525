# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What driverctl has stored to be set at each boot. Reads only.

Its rule 05-driverctl.rules starts a service for each device that has a file; the service sets the
override, takes the device from its driver and probes it, after the rules of everybody else.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .. import _text
from .._model.buses import BUSES, is_vfio_driver
from .._model.device import Identity
from .._model.policy import DRIVER, NO_AUTOBIND, NO_DRIVER, VFIO, Policy
from .._system.files import FileChange, Files

DIRECTORY = "/etc/driverctl.d"


class Stored(NamedTuple):
    """One stored override: the file, the device's bus and name, and the driver's name."""

    path: str
    bus: str
    name: str
    driver_override: str
    content: str

    @property
    def policy(self) -> Policy:
        """The policy that says the same."""
        if self.driver_override == NO_DRIVER:
            return Policy(NO_AUTOBIND)
        if is_vfio_driver(self.driver_override, self.bus):
            # The policy alone can mean another driver of VFIO.
            is_choice = bool(BUSES[self.bus].vfio_variants)
            return Policy(VFIO, vfio_driver=self.driver_override if is_choice else None)
        return Policy(DRIVER, self.driver_override)

    @property
    def removal(self) -> FileChange:
        """The change after which driverctl claims the device no more."""
        return FileChange(self.path, self.content, None)

    def conflict(self, device: Identity) -> str:
        """Return why a list cannot have this device, and what can be done."""
        return (
            "%s is claimed by this list and by driverctl: %s sets %s at each boot, after the "
            "rules of this collection. Set `driverctl: take_over` to replace that file with the "
            "list, or remove the device from the list"
            % (device.label, self.path, self.driver_override)
        )


def stored(files: Files) -> list[Stored]:
    """Return what is stored of devices of our buses, by file name; driverctl skips empty files."""
    overrides = []
    for file in files.names(DIRECTORY):
        device = device_of(file)
        if device:
            bus, name = device
            path = "%s/%s" % (DIRECTORY, file)
            content = files.read(path) or ""
            override = _text.stripped(content)
            if override:
                overrides.append(Stored(path, bus, name, override, content))
    return overrides


def device_of(file: str) -> tuple[str, str] | None:
    """Return bus and name of the device whose override ``file`` has; None if no bus of ours."""
    bus, _dash, name = file.partition("-")
    return (bus, name) if bus in BUSES and name else None


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
