# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a udev rule can ask of a device, as far as it is the same at each boot. Reads only."""

from __future__ import annotations

import functools
from typing import Iterator, Mapping, NamedTuple

from .._discovery.devices import aliases_of, sysfs_dir, with_all_ids
from .._discovery.vfio import modalias
from .._model.device import Identity
from .._system.sysfs import Sysfs

# What the kernel alone sets; rules and programs do not, and without it a device does not have it.
_KERNEL_PREFIXES = ("OF_", "PCI_", "AMBA_")
_KERNEL_NAMES = frozenset(
    (
        *("DEVTYPE", "DEVNAME", "MAJOR", "MINOR", "IFINDEX", "INTERFACE", "MODALIAS", "DISKSEQ"),
        *("DEVMODE", "DEVUID", "DEVGID", "DEVPATH_OLD", "PARTN", "SYNTH_UUID"),
    )
)
# Of the event and of the driver at that moment.
_NOT_KNOWN = frozenset(("SEQNUM", "DRIVER", "SYNTH_UUID", "USEC_INITIALIZED"))
# Attributes that firmware or hardware decides.
_STABLE = frozenset(
    (
        *("modalias", "vendor", "device", "class", "revision", "subsystem_vendor"),
        *("subsystem_device", "subsystem", "id", "ari_enabled", "devspec", "name", "resource"),
    )
)
_STABLE_DIRECTORIES = ("of_node/", "firmware_node/")
_STABLE_OF_FIRMWARE = frozenset(("path", "hid", "uid", "hrv", "adr", "modalias", "description"))


class Answer(NamedTuple):
    """The value of a property or an attribute.

    Without ``is_known`` it can be any, or that of a device without it. ``text`` is None if the
    device is known not to have it.
    """

    text: str | None
    is_known: bool = True


UNKNOWN = Answer(None, is_known=False)
ABSENT = Answer(None)


class UdevDevice:
    """A device in /sys, ``path`` its directory relative to that, or "" if that is not known.

    ``linked`` is where its link ``device`` leads if the device itself need not be there, else "".
    """

    linked = ""

    def __init__(self, sysfs: Sysfs, path: str, subsystem: str | None, name: str) -> None:
        self.sysfs = sysfs
        self.path = path
        # sd_device_get_sysname: / in a name is ! in sysfs.
        self.kernel = name.replace("!", "/")
        self.subsystem = subsystem

    @property
    def devpath(self) -> str | None:
        """The path as rules have it, None if it is not known."""
        return "/" + self.path if self.path else None

    @property
    def parents(self) -> Iterator[UdevDevice]:
        """The device itself, and those above it, as sd_device_get_parent gives them."""
        yield self
        path = self.path
        while "/" in path:
            path = path.rpartition("/")[0]
            if self.sysfs.exists(path + "/uevent"):
                subsystem = self.sysfs.link_name(path + "/subsystem")
                yield UdevDevice(self.sysfs, path, subsystem or "", path.rpartition("/")[2])

    def property(self, name: str) -> Answer | None:
        """Return a property that the kernel gives; None for one that only rules can set."""
        if name in _NOT_KNOWN:
            return UNKNOWN
        if name == "DEVPATH":
            return UNKNOWN if self.devpath is None else Answer(self.devpath)
        if name == "SUBSYSTEM":
            return UNKNOWN if self.subsystem is None else Answer(self.subsystem)
        return self._kernel_property(name)

    def _kernel_property(self, name: str) -> Answer | None:
        if name in _KERNEL_NAMES or name.startswith(_KERNEL_PREFIXES):
            return UNKNOWN
        return None

    def attribute(self, name: str) -> Answer:
        """Return what a file in the directory of the device has, without its last line end.

        sd_device_get_sysattr_value in src/libsystemd/sd-device/sd-device.c.
        """
        if not self.path or not _is_stable(name):
            return UNKNOWN
        path = "%s/%s" % (self.path, name)
        if name == "subsystem":
            link = self.sysfs.link_name(path)
            return Answer(link)
        content = self.sysfs.read_bytes(path)
        if content is None:
            return ABSENT
        # udev reads up to a NUL, which ends each text of the device tree.
        text = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
        return Answer(text.rstrip("\n\r"))


class ListedDevice(UdevDevice):
    """A device that a list can have."""

    def __init__(self, sysfs: Sysfs, device: Identity) -> None:
        directory = sysfs_dir(device)
        target = sysfs.link(directory) or ""
        path = resolve_link(directory.rpartition("/")[0], target) if target else ""
        super().__init__(sysfs, path, device.bus, device.name)
        self.is_present = bool(path)
        self.identity = with_all_ids(sysfs, device) if path else device

    def _kernel_property(self, name: str) -> Answer | None:
        if name == "MODALIAS":
            alias = modalias(self.sysfs, self.identity) if self.is_present else ""
            return Answer(alias) if alias else UNKNOWN
        if name in self._properties:
            return Answer(self._properties[name])
        if name.startswith("OF_ALIAS_"):
            return self._alias(name)
        if name == "OF_TYPE":
            return self._of_type()
        if name in _KERNEL_NAMES or name.startswith(_KERNEL_PREFIXES):
            return ABSENT if self._is_complete(name) else UNKNOWN
        return None

    def _is_complete(self, name: str) -> bool:
        return not name.startswith(("PCI_CLASS", "AMBA_"))

    def _of_type(self) -> Answer:
        if not self.identity.dt_path:
            return ABSENT
        kinds = self.sysfs.strings("%s/of_node/device_type" % self.path) if self.path else ()
        return Answer(kinds[0]) if kinds else ABSENT

    def _alias(self, name: str) -> Answer:
        """Return an alias of the node.

        The kernel numbers them in the order of the device tree, which /sys does not show.
        """
        number = name[len("OF_ALIAS_") :]
        names = aliases_of(self.sysfs, self.identity.dt_path) if self.identity.dt_path else []
        if not number.isdigit() or int(number) >= len(names) or number != str(int(number)):
            return ABSENT
        return Answer(names[0]) if len(names) == 1 else UNKNOWN

    @functools.cached_property
    def _properties(self) -> Mapping[str, str]:
        """Properties of events by name: of_device_uevent in drivers/of/device.c, pci_uevent."""
        device = self.identity
        known = {}
        if device.dt_path:
            known["OF_FULLNAME"] = device.dt_path
            known["OF_NAME"] = device.dt_path.rpartition("/")[2].partition("@")[0]
            known["OF_COMPATIBLE_N"] = str(len(device.compatible))
            for number, compatible in enumerate(device.compatible):
                known["OF_COMPATIBLE_%d" % number] = compatible
        if device.pci_id:
            vendor, card, *subsystem = device.pci_id[-1].split(":")
            known["PCI_SLOT_NAME"] = device.name
            known["PCI_ID"] = ("%s:%s" % (vendor, card)).upper()
            known["PCI_SUBSYS_ID"] = ":".join(subsystem).upper()
        return known

    def attribute(self, name: str) -> Answer:
        """As that of any device; what firmware says is known of a missing device, too."""
        device = self.identity
        if name == "firmware_node/path":
            return Answer(device.acpi_path)
        if name == "firmware_node/hid":
            return Answer(device.acpi_hid)
        answer = super().attribute(name)
        if not answer.is_known and device.pci_id and name in ("vendor", "device"):
            vendor, card = device.pci_id[-1].split(":")[:2]
            return Answer("0x" + (vendor if name == "vendor" else card))
        return answer


class NodeDevice(UdevDevice):
    """A device with a node in /dev that VFIO makes; ``node`` is its path below /dev."""

    def __init__(
        self, sysfs: Sysfs, path: str, subsystem: str, node: str, parent: UdevDevice | None
    ) -> None:
        super().__init__(sysfs, path, subsystem, node.rpartition("/")[2])
        self._node = node
        self._parent = parent
        self.linked = parent.path if parent else ""

    @property
    def parents(self) -> Iterator[UdevDevice]:
        yield self
        if self._parent:
            yield from self._parent.parents

    def _kernel_property(self, name: str) -> Answer | None:
        if name == "DEVNAME":
            return Answer("/dev/" + self._node)
        if name in ("MAJOR", "MINOR"):
            return UNKNOWN
        return ABSENT if super()._kernel_property(name) else None

    def attribute(self, name: str) -> Answer:
        """As that of any device; unknown while the node is not there."""
        is_present = self.path and self.sysfs.exists(self.path)
        return super().attribute(name) if is_present else UNKNOWN


def _is_stable(name: str) -> bool:
    for directory in _STABLE_DIRECTORIES:
        if name.startswith(directory):
            rest = name[len(directory) :]
            return ".." not in rest and (directory == "of_node/" or rest in _STABLE_OF_FIRMWARE)
    return name in _STABLE


def resolve_link(directory: str, target: str) -> str:
    """Return where a relative link in a directory of /sys leads; both are relative to /sys."""
    parts = directory.split("/")
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def canonical(sysfs: Sysfs, path: str) -> str | None:
    """Return the path below /sys without links and ``..``; None if there is no such directory.

    It is relative to /sys, as ``path`` is.
    """
    parts: list[str] = []
    waiting = path.split("/")[::-1]
    followed = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
            continue
        target = sysfs.link("/".join([*parts, part]))
        if target is None:
            parts.append(part)
            continue
        followed += 1
        if followed > 40 or target.startswith("/"):
            return None
        waiting += target.split("/")[::-1]
    known = "/".join(parts)
    return known if sysfs.exists(known or ".") else None
