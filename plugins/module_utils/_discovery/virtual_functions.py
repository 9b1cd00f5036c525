# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual functions of PCI functions (SR-IOV): how many, which, and why not. Reads only.

The attributes are those of sriov_pf_dev_attrs in drivers/pci/iov.c.
"""

from __future__ import annotations

import errno

from .. import _text
from .._model.buses import PCI
from .._model.device import Identity
from .._system.sysfs import Sysfs
from .devices import sysfs_dir, with_all_ids

NUMVFS = "sriov_numvfs"
AUTOPROBE = "sriov_drivers_autoprobe"

_NO_CAPABILITY = (
    "%s has no virtual functions: it has no SR-IOV capability, or the kernel has no "
    "CONFIG_PCI_IOV. Omit `sriov_numvfs`"
)
_TOO_MANY = "%s can have %d virtual functions, but sriov_numvfs is %d. Give a smaller number"
_UNKNOWN_ADDRESSES = (
    "The kernel does not expose which addresses the virtual functions of %s get (sriov_offset, "
    "sriov_stride), so that they cannot be planned"
)


def numvfs(sysfs: Sysfs, device: Identity) -> int | None:
    """Return how many virtual functions there are, or None if there can be none."""
    return _text.number(sysfs.read("%s/%s" % (sysfs_dir(device), NUMVFS)))


def totalvfs(sysfs: Sysfs, device: Identity) -> int | None:
    """Return how many there can be."""
    return _text.number(sysfs.read(sysfs_dir(device) + "/sriov_totalvfs"))


def autoprobes(sysfs: Sysfs, device: Identity) -> bool:
    """Return whether native drivers probe new virtual functions by themselves."""
    return sysfs.read("%s/%s" % (sysfs_dir(device), AUTOPROBE)) != "0"


def is_virtual(sysfs: Sysfs, device: Identity) -> bool:
    """Return whether it is a virtual function itself."""
    return sysfs.exists(sysfs_dir(device) + "/physfn")


def why_not(sysfs: Sysfs, device: Identity, number: int) -> str | None:
    """Return why there cannot be ``number`` virtual functions, as a sentence."""
    total = totalvfs(sysfs, device)
    if total is None:
        return _NO_CAPABILITY % device.label
    if number > total:
        return _TOO_MANY % (device.label, total, number)
    if number and not _distances(sysfs, device):
        return _UNKNOWN_ADDRESSES % device.label
    return None


def present(sysfs: Sysfs, device: Identity) -> list[Identity]:
    """Return the virtual functions that there are."""
    path = sysfs_dir(device)
    links = [name for name in sysfs.names(path) if name.startswith("virtfn")]
    names = [sysfs.link_name("%s/%s" % (path, link)) for link in links]
    return [with_all_ids(sysfs, Identity(PCI, name)) for name in names if name]


def expected(sysfs: Sysfs, device: Identity, number: int) -> list[Identity]:
    """Return the first ``number`` virtual functions as they will be when they are there.

    Their addresses are those of pci_iov_virtfn_bus and pci_iov_virtfn_devfn. The subsystem is taken
    to be that of the function itself, which is all that can be known of it.
    """
    distances = _distances(sysfs, device)
    if not distances or not device.pci_id:
        return []
    first, stride = distances
    vendor, _card, *subsystem = device.pci_id[-1].split(":")
    card = sysfs.read(sysfs_dir(device) + "/sriov_vf_device") or ""
    short = "%s:%s" % (vendor, card.rjust(4, "0"))
    ids = (short, ":".join([short, *subsystem]))
    addresses = [_moved(device.name, first + stride * index) for index in range(number)]
    return [Identity(PCI, address, pci_id=ids) for address in addresses]


def _distances(sysfs: Sysfs, device: Identity) -> tuple[int, int] | None:
    path = sysfs_dir(device)
    first, stride = (
        _text.number(sysfs.read("%s/%s" % (path, name)))
        for name in ("sriov_offset", "sriov_stride")
    )
    # The stride of a single virtual function is of no use.
    return (first, stride or 0) if first else None


def _moved(address: str, distance: int) -> str:
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    number = (int(bus, 16) << 8) + (int(slot, 16) << 3) + int(function, 16) + distance
    return "%s:%02x:%02x.%x" % (domain, number >> 8, (number >> 3) & 0x1F, number & 7)


def explain_numvfs(driver: str | None, code: int) -> str:
    """Explain an errno of a write to sriov_numvfs, with a remedy: sriov_numvfs_store."""
    if code == errno.ENOENT:
        return (
            "It is bound to %s, which creates no virtual functions. Select a driver that supports "
            "SR-IOV" % (driver or "no driver")
        )
    if code in (errno.ENOMEM, errno.EBUSY, errno.ENOSPC):
        return (
            "The kernel has no bus numbers or no memory space for so many, or they are in use. "
            "Give a smaller number"
        )
    return "See 'dmesg'"
