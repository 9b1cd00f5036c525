"""Reads /sys of a guest, independently of the code under test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.guest import Guest

    Binding = tuple[str | None, str | None]
    State = tuple[dict[str, Binding], dict[str, str]]

_READ_ALL = """
import json, os
def link(path):
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None
def content(path):
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return None
def pci_id(path):
    names = ("vendor", "device", "subsystem_vendor", "subsystem_device")
    values = [content(path + "/" + name) for name in names]
    return ":".join(value[2:] for value in values) if all(values) else None
def tree_path(path):
    try:
        return os.readlink(path + "/of_node").partition("/devicetree/base")[2]
    except OSError:
        return None
devices = {}
for bus in ("platform", "amba", "pci", "fsl-mc", "cdx"):
    top = "/sys/bus/%s/devices" % bus
    for name in os.listdir(top) if os.path.isdir(top) else ():
        # A helper device comes and goes with the driver that made it, under a new name each time.
        if name.endswith(".auto"):
            continue
        path = top + "/" + name
        with open(path + "/driver_override") as stream:
            override = stream.read().rstrip("\\n")
        devices[bus + "/" + name] = {
            "tree_path": tree_path(path),
            "driver": link(path + "/driver"),
            "override": None if override == "(null)" else override,
            "group": link(path + "/iommu_group"),
            "pci_id": pci_id(path),
            "physical_function": link(path + "/physfn"),
        }
nodes = os.listdir("/dev/vfio") if os.path.isdir("/dev/vfio") else []
print(json.dumps({"devices": devices, "nodes": nodes}))
"""


# Prints the names and contents of files that exist, each followed by a NUL.
_READ_FILES = r"""
for path in /etc/udev/rules.d/70-armfleet-vfio.rules /etc/modprobe.d/armfleet-vfio.conf \
    /etc/modules-load.d/armfleet-vfio.conf
do
    [ ! -e $path ] || { printf '%s\0' $path; cat $path; printf '\0'; }
done
"""


class Device(NamedTuple):
    """A device as /sys shows it.

    ``pci_id`` has the parts vendor, device, and those of the subsystem; ``physical_function`` is
    the address of a virtual function's physical one. Both are None for other devices.
    """

    bus: str
    name: str
    tree_path: str | None
    driver: str | None
    override: str | None
    group: str | None
    pci_id: str | None
    physical_function: str | None

    @property
    def binding(self) -> Binding:
        return self.driver, self.override


class Machine(NamedTuple):
    """All devices of five buses but drivers' helpers, and the names in /dev/vfio."""

    devices: list[Device]
    nodes: list[str]

    def at(self, tree_path: str) -> Device:
        """Return the one device of a device-tree path."""
        (match,) = [device for device in self.devices if device.tree_path == tree_path]
        return match

    def named(self, name: str) -> Device:
        (match,) = [device for device in self.devices if device.name == name]
        return match

    def group_of(self, name: str) -> set[str]:
        """Return the names of all devices in the IOMMU group of a device; empty without one."""
        group = self.named(name).group
        return {device.name for device in self.devices if group and device.group == group}

    def virtual_functions(self, address: str) -> list[str]:
        """Return the addresses of the virtual functions of a PCI function, sorted."""
        return [device.name for device in self.devices if device.physical_function == address]

    @property
    def bindings(self) -> dict[str, Binding]:
        """Return driver and override of every device, by its name."""
        return {f"{device.bus}/{device.name}": device.binding for device in self.devices}


def read_machine(guest: Guest) -> Machine:
    return _machine(guest.run("python3 -", input=_READ_ALL).stdout)


def _machine(printed: str) -> Machine:
    answer = json.loads(printed)
    devices = [Device(*key.split("/", 1), **values) for key, values in answer["devices"].items()]
    return Machine(sorted(devices), answer["nodes"])


def files(guest: Guest) -> dict[str, str]:
    """Return our files on the guest, with their contents."""
    return _files(guest.run(_READ_FILES).stdout.split("\0"))


def _files(printed: Sequence[str]) -> dict[str, str]:
    return dict(zip(printed[::2], printed[1::2], strict=False))


def state(guest: Guest) -> State:
    """Return what a call may change: driver and override of every device, and our files."""
    # By a single command, because the state is read after nearly every test.
    both = guest.run(f"{_READ_FILES}python3 -", input=_READ_ALL).stdout
    *printed, machine = both.split("\0")
    return _machine(machine).bindings, _files(printed)


def bindings(guest: Guest, paths: Sequence[str]) -> list[Binding]:
    """Return driver and override of the devices of these paths."""
    machine = read_machine(guest)
    return [machine.at(path).binding for path in paths]
