# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of devices that the next boot takes before they have a driver. Reads only."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._discovery.devices import has_devices, reference_path, snapshot, state, with_all_ids
from .._errors import PolicyError
from .._in_use.checker import Usage
from .._in_use.kinds import STORAGE, Hazard
from .._model.buses import BUSES
from .._model.device import Identity
from .._model.policy import DEFAULT
from .._model.policy_list import Entry
from .._model.selector import Selector
from .._system.files import Files
from .._system.host import Host
from .._system.sysfs import Sysfs

_TREE = "firmware/devicetree/base"
_CONTAINER = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")

_NO_SYS = (
    "No device was checked for use, because /sys has no devices here, as in an image. The next "
    "boot unbinds the devices that match, even if they are in use"
)
_CONFINED = (
    "Mounts and open files of the rest of the machine were not checked, because this run is in a "
    "%s. The next boot unbinds the devices that match, even if they are in use"
)


class AbsentHazard(NamedTuple):
    """A hazard of a device that has no driver yet, and how messages call the device."""

    label: str
    hazard: Hazard


def find_absent_hazards(host: Host, usage: Usage, entries: Sequence[Entry]) -> list[AbsentHazard]:
    """Return what will be needed of the devices that ``entries`` take when their drivers come.

    That is what can be known without the device: it has a node that the device tree names as the
    console or as an interface, or a name by which fstab has its disk.
    """
    taking = []
    for entry in entries:
        try:
            selector = entry.selector.resolved(lambda name: reference_path(host.sysfs, name))
        except PolicyError:
            continue
        if entry.policy.kind != DEFAULT:
            taking.append(selector)
    return _nodes(host, usage, taking) + _names(host, usage, taking)


def _nodes(host: Host, usage: Usage, selectors: Sequence[Selector]) -> list[AbsentHazard]:
    uses = {
        path: use
        for path, use in usage.configured.nodes().items()
        if any(_means(host.sysfs, selector, path) for selector in selectors)
        and _is_enabled(host.sysfs, path)
    }
    devices = (
        {device.dt_path: device for device in snapshot(host.sysfs, ("dt_path",))} if uses else {}
    )
    return [
        AbsentHazard(device.label if device else "%s (no device yet)" % path, Hazard(*use))
        for path, use in uses.items()
        for device in [_complete(host.sysfs, devices.get(path))]
        if device is None or _is_free(host.sysfs, device)
    ]


def _names(host: Host, usage: Usage, selectors: Sequence[Selector]) -> list[AbsentHazard]:
    names = [selector.value for selector in selectors if selector.field == "name"]
    return [
        AbsentHazard("Device %s (not there yet)" % name, Hazard(STORAGE, name, use))
        for name in names
        if not any(host.sysfs.exists("bus/%s/devices/%s" % (bus, name)) for bus in BUSES)
        for use in [usage.configured.absent(name)]
        if use
    ]


def _complete(sysfs: Sysfs, device: Identity | None) -> Identity | None:
    return with_all_ids(sysfs, device) if device else None


def _means(sysfs: Sysfs, selector: Selector, path: str) -> bool:
    compatible = sysfs.strings("%s%s/compatible" % (_TREE, path))
    return selector.matches(Identity("", "", path, compatible))


def _is_enabled(sysfs: Sysfs, path: str) -> bool:
    while path:
        status = sysfs.strings("%s%s/status" % (_TREE, path))
        if status and status[0] not in ("okay", "ok"):
            return False
        path = path.rpartition("/")[0]
    return True


def _is_free(sysfs: Sysfs, device: Identity) -> bool:
    """Return whether nothing was decided of the device yet."""
    present = state(sysfs, device)
    return present.driver is None and present.driver_override is None


def not_checked(host: Host) -> list[str]:
    """Return what of the machine that is to boot cannot be seen from here, in sentences."""
    if not has_devices(host.sysfs):
        return [_NO_SYS]
    confinement = _confinement(host.files)
    return [_CONFINED % confinement] if confinement else []


def _confinement(files: Files) -> str | None:
    if any(files.changed_at(path) is not None for path in _CONTAINER):
        return "container"
    # Root alone can read these links.
    if files.is_same("/proc/1/root", "/") is False:
        return "chroot"
    return None
