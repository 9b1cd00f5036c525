"""A small /sys and a host's files on disk, for tests of foreign udev rules."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import foreign_udev
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.foreign_udev import Rule
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

OTHERS = "/etc/udev/rules.d/80-others.rules"
RING = Identity("platform", "b100000.ring", "/soc/ring@b100000", ("acme,ring-v2", "acme,ring"))
ACPI = Identity("platform", "LNRO0005:00", None, (), "\\_SB_.VR00", "LNRO0005")
FUNCTION = Identity("pci", "0000:01:00.0", pci_id=("8086:1521", "8086:1521:1028:1f60"))
RING_ALIAS = "of:NringT(null)Cacme,ring-v2Cacme,ring"

_TREE = "firmware/devicetree/base"


class Machine:
    """A machine with a device of the device tree, one of ACPI, and a PCI function."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sys = root / "sys"
        self._add_ring()
        self._add_acpi()
        self._add_function()

    def _add_ring(self) -> None:
        node = f"{_TREE}/soc/ring@b100000"
        self.put(f"{node}/compatible", "acme,ring-v2\0acme,ring\0")
        self.put(f"{node}/acme,label", "left\0")
        self.put(f"{_TREE}/aliases/ring0", "/soc/ring@b100000\0")
        self.put(f"{_TREE}/aliases/console", "/soc/uart@1\0")
        self.put("devices/platform/uevent")
        self.put("devices/platform/soc/uevent")
        self.put("devices/platform/soc/modalias", "of:NsocT(null)Csimple-bus\n")
        self.link("devices/platform/soc/subsystem", "bus/platform")
        home = "devices/platform/soc/b100000.ring"
        self.put(f"{home}/uevent")
        self.put(f"{home}/modalias", RING_ALIAS + "\n")
        self.put(f"{home}/driver_override", "(null)\n")
        self.link(f"{home}/subsystem", "bus/platform")
        self.link(f"{home}/of_node", node)
        self.link("bus/platform/devices/b100000.ring", home)
        self.put("bus/platform/drivers/acme-ring/bind")

    def _add_acpi(self) -> None:
        node = "devices/LNXSYSTM:00/LNRO0005:00"
        for name, text in (("path", "\\_SB_.VR00"), ("hid", "LNRO0005"), ("uid", "7")):
            self.put(f"{node}/{name}", text + "\n")
        home = "devices/platform/LNRO0005:00"
        self.put(f"{home}/uevent")
        self.put(f"{home}/modalias", "acpi:LNRO0005:\n")
        self.link(f"{home}/subsystem", "bus/platform")
        self.link(f"{home}/firmware_node", node)
        self.link("bus/platform/devices/LNRO0005:00", home)

    def _add_function(self) -> None:
        self.put("devices/pci0000:00/uevent")
        home = "devices/pci0000:00/0000:01:00.0"
        for name, text in (
            ("uevent", ""),
            ("modalias", "pci:v00008086d00001521sv00001028sd00001F60bc02sc00i00"),
            ("vendor", "0x8086"),
            ("device", "0x1521"),
            ("subsystem_vendor", "0x1028"),
            ("subsystem_device", "0x1f60"),
            ("class", "0x020000"),
        ):
            self.put(f"{home}/{name}", text + "\n")
        self.link(f"{home}/subsystem", "bus/pci")
        self.link("bus/pci/devices/0000:01:00.0", home)

    def put(self, path: str, content: str = "") -> None:
        """Create a file in /sys."""
        file = self.sys / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def link(self, path: str, target: str) -> None:
        """Create a link in /sys, relative as those of the kernel; both are relative to it."""
        link = self.sys / path
        link.parent.mkdir(parents=True, exist_ok=True)
        (self.sys / target).mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(self.sys / target, link.parent))

    @property
    def sysfs(self) -> Sysfs:
        return Sysfs(str(self.sys))

    @property
    def files(self) -> Files:
        return Files(str(self.root))

    def write(self, path: str, content: str) -> None:
        """Create a file of the host."""
        file = self.root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode("utf-8", "surrogateescape"))

    def rules(self, device: Identity = RING, action: str | None = None) -> list[Rule]:
        """Return the foreign rules that may change the driver of the device."""
        known = foreign_udev.rules(self.files, RULES)
        return foreign_udev.of_device(self.sysfs, device, known, action)

    def overrides(
        self, content: str, device: Identity = RING, action: str | None = None
    ) -> dict[str, bool]:
        """Return which overrides the rules of a file set, and whether that is sure.

        One that is not known is an empty text.
        """
        self.write(OTHERS, content + "\n")
        return {rule.driver_override or "": rule.is_sure for rule in self.rules(device, action)}
