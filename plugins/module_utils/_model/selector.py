# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device is meant: the kinds of selectors, and how they match. Pure."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Callable, Iterable, Mapping, NamedTuple, Sequence

from .._errors import PolicyError
from .buses import PCI
from .device import Identity

if TYPE_CHECKING:
    from typing import Protocol

    class Explainer(Protocol):
        """Tells of values that no device has what is known of them, as a clause."""

        def of_path(self, dt_path: str) -> str: ...
        def of_compatible(self, compatible: str) -> str: ...
        def of_acpi(self, attribute: str, value: str) -> str: ...
        def of_name(self, name: str) -> str: ...
        def of_pci_address(self, address: str) -> str: ...
        def of_pci_id(self, pci_id: str) -> str: ...


_TREE_ROOTS = ("/proc/device-tree", "/sys/firmware/devicetree/base")

_LETTERS = string.ascii_letters + string.digits
# Node names as in the Devicetree Specification 0.4, section 2.2.1, and what sysfs makes of them.
# Nothing here is special to udev, to a path or to a configuration file. Sets, because compiling
# patterns takes longer than everything else here.
_NODE = frozenset(_LETTERS + ",._+@#-")
_COMPATIBLE = frozenset(_LETTERS + ",._+/#-")
_ALIAS = frozenset(_LETTERS + ",._+-")
# The kernel takes any character but "/" for the name of a device, as in "Fixed MDIO bus.0". Not
# those of patterns and quotes, which udev cannot match, and of templates, which Ansible evaluates.
NAME_CHARACTERS = frozenset(_LETTERS + " !#$%&'()+,-.:;<=>@^_`~")
_ACPI = frozenset(string.ascii_uppercase + string.digits + "_")
_HEX = frozenset(string.digits + "abcdef")
_VENDOR = frozenset(_LETTERS + "-")
# What ACPI devices that are described by a compatible have for a hardware id, and what is before
# each compatible in their modalias.
_BY_COMPATIBLE, _SEPARATOR = "PRP0001", "C"

# The properties that our rules set for matches: all compatibles and all aliases of a device, with a
# blank around each, and its name in sysfs where udev shows another one.
UDEV_COMPATIBLES = ".armfleet_vfio_compatible"
UDEV_ALIASES = ".armfleet_vfio_alias"
UDEV_NAME = ".armfleet_vfio_name"

_OTHER_SELECTOR = "%s %r is the value of another selector: %s"


def consists_of(text: str, characters: frozenset[str]) -> bool:
    """Return whether the text has some of the characters, and no others."""
    return bool(text) and characters.issuperset(text)


class SelectorKind:
    """A key that selects devices.

    ``field`` is the field of Identity that its values are compared with. A value that is a
    ``reference`` is a name for which the device tree has a path. With ``takes_bus`` an entry may
    have a bus as well, with ``takes_uid`` the ACPI _UID of the device. With ``confirmed_by`` it may
    have the key of a later kind as well, which then does not select, but is what a device with the
    value has to have.
    """

    name = ""
    field = ""
    takes_bus = False
    takes_uid = False
    confirmed_by = ""

    def parse(self, value: str) -> str:
        """Return the value as Identity has it; PolicyError says what is wrong with it."""
        raise NotImplementedError

    def udev_match(self, value: str) -> str:
        """Return the match of a udev rule that means the same devices."""
        raise NotImplementedError

    def rules_property(self, _value: str) -> str | None:
        """Return the property of udev in ``udev_match`` that our rules have to set before it.

        None if there is none, or they set it always.
        """
        return None

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        """Return why no device has the value, as a clause."""
        raise NotImplementedError

    def recognized(self, _value: str) -> str | None:
        """Return the value as ``parse`` takes it if its form is that of this kind; else None."""
        return None

    def reference(self, _value: str) -> str | None:
        """Return the property of the device tree that has the path: below /aliases or absolute."""
        return None

    def resolved(self, value: str, path: str | None) -> Selector:
        """Return what the value means if the property is ``path``; None is an error."""
        raise NotImplementedError

    def is_known_to_udev(self, _value: str) -> bool:
        """Return whether ``udev_match`` means the same devices if the value is a reference."""
        return False


class DtPath(SelectorKind):
    """A path of the device tree, or an alias for one with an optional rest."""

    name = field = "dt_path"

    def parse(self, value: str) -> str:
        path = value
        for root in _TREE_ROOTS:
            if path == root or path.startswith(root + "/"):
                path = path[len(root) :]
        first, *rest = path.split("/")
        if not rest and not first:
            raise PolicyError(
                (
                    "dt_path %r is the root of the device tree, not a device. Give the path of a "
                    "node below it"
                )
                % value
            )
        parts = [first, *rest] if first else rest
        bad = [part for part in parts if not consists_of(part, _NODE) or part in (".", "..")]
        if bad or (first and not consists_of(first, _ALIAS)):
            raise PolicyError(
                "dt_path %r is not a device-tree path: %s. Give an absolute path, such as "
                "/soc/ethernet@e0700000, or start with an alias, such as ethernet0"
                % (value, _path_problem(first, bad))
            )
        return path

    def recognized(self, value: str) -> str | None:
        is_path = value.startswith(("/", *_TREE_ROOTS)) and not _is_sysfs_device(value)
        return value if is_path else None

    def udev_match(self, value: str) -> str:
        if self.reference(value):
            return 'ENV{%s}=="* %s *"' % (UDEV_ALIASES, value)
        return 'ENV{.armfleet_vfio_path}=="%s"' % value

    def rules_property(self, value: str) -> str | None:
        return UDEV_ALIASES if self.reference(value) else None

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_path(value)

    def reference(self, value: str) -> str | None:
        return None if value.startswith("/") else value.partition("/")[0]

    def resolved(self, value: str, path: str | None) -> Selector:
        alias, slash, rest = value.partition("/")
        if path is None:
            proper = proper_entry(self.name, value)
            if proper:
                raise PolicyError(_OTHER_SELECTOR % (self.name, value, proper))
            raise PolicyError(
                "dt_path %r does not start with '/', and this machine has no device-tree alias "
                "%r. Use one of those in /proc/device-tree/aliases, or give the whole path"
                % (value, alias)
            )
        return Selector(self.name, path + slash + rest)

    def is_known_to_udev(self, value: str) -> bool:
        # The kernel puts an alias into the device's uevent only if it ends in a number
        # (of_alias_scan in drivers/of/base.c).
        return "/" not in value and value[-1:].isdigit()


class Compatible(SelectorKind):
    """One of the compatible strings of devices.

    With ACPI, a device has them by its _DSD and the id PRP0001, and only its modalias shows them:
    "of:N" NAME "T" and a "C" before each (create_of_modalias in drivers/acpi/device_sysfs.c).
    """

    name = field = "compatible"

    def parse(self, value: str) -> str:
        if not consists_of(value, _COMPATIBLE):
            raise PolicyError(
                "compatible %r is not valid. Use only letters, digits and , . _ + / # -, without "
                "patterns, as in 'arm,pl031'" % value
            )
        return value

    def recognized(self, value: str) -> str | None:
        vendor, _comma, product = value.partition(",")
        return value if consists_of(vendor, _VENDOR) and product else None

    def udev_match(self, value: str) -> str:
        listed = "* %s *" % value
        if _SEPARATOR not in value:
            listed += "| of:N????T*C%s | of:N????T*C%sC*" % (value, value)
        return 'ENV{%s}=="%s"' % (UDEV_COMPATIBLES, listed)

    def rules_property(self, _value: str) -> str | None:
        return UDEV_COMPATIBLES

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_compatible(value)


class AcpiPath(SelectorKind):
    """An absolute path of the ACPI namespace."""

    name = field = "acpi_path"

    def parse(self, value: str) -> str:
        segments = value[1:].split(".") if value.startswith("\\") else [""]
        if not all(
            consists_of(segment, _ACPI) and len(segment) <= 4 and not segment[0].isdigit()
            for segment in segments
        ):
            raise PolicyError(
                "acpi_path %r is not an absolute ACPI path, such as \\_SB_.VR00. Use one of "
                "those in /sys/bus/platform/devices/*/firmware_node/path" % value
            )
        # ACPICA pads each segment to four characters (ACPI 6.5, section 5.3), and so does sysfs.
        return "\\" + ".".join(segment.ljust(4, "_") for segment in segments)

    def recognized(self, value: str) -> str | None:
        return value if value.startswith("\\") else None

    def udev_match(self, value: str) -> str:
        return 'KERNEL!="*.auto", ATTR{firmware_node/path}=="%s"' % value

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_acpi("path", value)


class AcpiHid(SelectorKind):
    """An ACPI hardware id."""

    name = field = "acpi_hid"
    takes_uid = True

    def parse(self, value: str) -> str:
        if not consists_of(value, _ACPI) or not 3 <= len(value) <= 8:
            raise PolicyError(
                "acpi_hid %r is not a hardware id. Give an id such as LNRO0005" % value
            )
        if value == _BY_COMPATIBLE:
            raise PolicyError(
                "acpi_hid %r is no kind of device: firmware gives it to every device that it "
                "describes by a compatible instead. Use `compatible`, or the `acpi_path` of one "
                "device" % value
            )
        return value

    def recognized(self, value: str) -> str | None:
        return value if _is_hardware_id(value) else None

    def udev_match(self, value: str) -> str:
        return 'KERNEL!="*.auto", ATTR{firmware_node/hid}=="%s"' % value

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_acpi("hid", value)


class PciAddress(SelectorKind):
    """The address of a PCI function, with its domain."""

    name = field = "pci_address"
    # The card that has to be there.
    confirmed_by = "pci_id"

    def parse(self, value: str) -> str:
        cause = _pci_address_problem(value)
        if cause:
            raise PolicyError(
                "pci_address %r is not the address of a PCI function: %s. Give domain, bus, device "
                "and function as in /sys/bus/pci/devices, such as '0000:01:00.0'" % (value, cause)
            )
        return value

    def recognized(self, value: str) -> str | None:
        whole = value if value.count(":") > 1 else "0000:" + value
        return None if _pci_address_problem(whole) else whole

    def udev_match(self, value: str) -> str:
        return 'SUBSYSTEM=="%s", KERNEL=="%s"' % (PCI, value)

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_pci_address(value)


class PciId(SelectorKind):
    """Vendor and device of PCI functions, with or without those of their subsystem."""

    name = field = "pci_id"

    def parse(self, value: str) -> str:
        cause = _pci_id_problem(value)
        if cause:
            raise PolicyError(
                "pci_id %r is not valid: %s. Give vendor and device as 'lspci -nn' prints them, "
                "such as '8086:10d3', or those of the subsystem as well, such as "
                "'8086:10d3:8086:a01f'" % (value, cause)
            )
        return value

    def recognized(self, value: str) -> str | None:
        return None if _pci_id_problem(value.lower()) else value.lower()

    def udev_match(self, value: str) -> str:
        # pci_uevent in drivers/pci/pci-driver.c writes them with capitals.
        card, subsystem = value[:9].upper(), value[10:].upper()
        of_subsystem = ', ENV{PCI_SUBSYS_ID}=="%s"' % subsystem if subsystem else ""
        return 'SUBSYSTEM=="%s", ENV{PCI_ID}=="%s"%s' % (PCI, card, of_subsystem)

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_pci_id(value)


class Name(SelectorKind):
    """The name of a device in sysfs."""

    name = field = "name"
    takes_bus = True

    def parse(self, value: str) -> str:
        if (
            not consists_of(value, NAME_CHARACTERS)
            or value in (".", "..")
            or value != value.strip()
        ):
            raise PolicyError(
                "name %r is not a valid device name. Use a name from /sys/bus/*/devices, without "
                'patterns or paths: ASCII characters other than * ? [ ] { } | / \\ and ", with no '
                "space at an end" % value
            )
        return value

    def recognized(self, value: str) -> str | None:
        if _is_sysfs_device(value):
            return value.rstrip("/").rpartition("/")[2]
        hid, colon, instance = value.partition(":")
        if colon and _is_hardware_id(hid) and consists_of(instance, _HEX):
            return value
        address, dot, node = value.partition(".")
        is_name = dot and node and consists_of(address, _HEX) and not node.isdigit()
        return value if is_name or value.endswith(".auto") else None

    def udev_match(self, value: str) -> str:
        # sd-device shows "!" as "/" (device_set_sysname in systemd); files of the kernel do not.
        match = 'KERNEL=="%s"' % value.replace("!", "/")
        if "!" not in value:
            return match
        written = value.replace("$", "$$").replace("%", "%%")
        return '%s, ENV{%s}="%s"' % (match, UDEV_NAME, written)

    def rules_property(self, value: str) -> str | None:
        return UDEV_NAME if "!" in value else None

    def explain_missing(self, explainer: Explainer, value: str) -> str:
        return explainer.of_name(value)


_KINDS: dict[str, SelectorKind] = {
    kind.name: kind
    for kind in (
        *(DtPath(), Compatible(), AcpiPath(), AcpiHid()),
        *(PciAddress(), PciId(), Name()),
    )
}
KINDS = tuple(_KINDS)
# By kind, the later one that may be beside it.
CONFIRMED_BY = {kind.name: kind.confirmed_by for kind in _KINDS.values() if kind.confirmed_by}
# Beside what it is compared with, by its field of Identity.
_UID_FIELD = "acpi_uid"


class Selector(NamedTuple):
    """One way to name devices; ``kind`` is one of KINDS and ``value`` is normalised.

    ``when_board`` are the names of the boards that it is for; empty for all. ``pci_id`` is what the
    function at a pci_address has to be; None if any may be there. ``acpi_uid`` is the _UID that
    the devices with an acpi_hid have to have; None if any may.
    """

    kind: str
    value: str
    bus: str | None = None
    expect: int | None = None
    required: bool = True
    when_board: tuple[str, ...] = ()
    pci_id: str | None = None
    acpi_uid: str | None = None

    @classmethod
    def of_function(cls, device: Identity) -> Selector:
        """Return the selector of the address of a PCI function, and of no other card there."""
        return cls(PciAddress.name, device.name, pci_id=device.pci_id[0])

    @property
    def label(self) -> str:
        bus = " on bus %s" % self.bus if self.bus else ""
        uid = "" if self.acpi_uid is None else " with acpi_uid %r" % self.acpi_uid
        return "%s %r%s%s" % (self.kind, self.value, bus, uid)

    @property
    def field(self) -> str:
        """The field of Identity that the value is compared with."""
        return _KINDS[self.kind].field

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of Identity that decide which devices it means."""
        return (self.field,) if self.acpi_uid is None else (self.field, _UID_FIELD)

    @property
    def reference(self) -> str | None:
        """The property of the device tree that has the path which is meant, or None."""
        return _KINDS[self.kind].reference(self.value)

    @property
    def udev_match(self) -> str:
        """The match of a udev rule that means the same devices."""
        match = _KINDS[self.kind].udev_match(self.value)
        if self.pci_id:
            # The address is as good as a name, and the id says which bus it is on.
            match = 'KERNEL=="%s", %s' % (self.value, _KINDS[PciId.name].udev_match(self.pci_id))
        if self.acpi_uid is not None:
            match += ', ATTR{firmware_node/uid}=="%s"' % self.acpi_uid
        return '%s, SUBSYSTEM=="%s"' % (match, self.bus) if self.bus else match

    @property
    def rules_property(self) -> str | None:
        """The property of udev that our rules have to set for ``udev_match``, or None."""
        return _KINDS[self.kind].rules_property(self.value)

    def resolved(self, lookup: Callable[[str], str | None]) -> Selector:
        """Return the selector with a path for its reference; PolicyError if ``lookup`` has none."""
        if self.reference is None:
            return self
        target = _KINDS[self.kind].resolved(self.value, lookup(self.reference))
        return self._replace(kind=target.kind, value=target.value)

    def for_boot(self, paths: Mapping[str, str]) -> Selector | None:
        """Return the selector as a udev rule can match it, with the ``paths`` of references.

        None if a machine with these paths has no such device.
        """
        if self.reference is None or self.reference in paths:
            return self.resolved(paths.get)
        return self if _KINDS[self.kind].is_known_to_udev(self.value) else None

    def matches(self, device: Identity) -> bool:
        """Return whether it means the device; a reference means none before it is resolved."""
        return (
            self.value in _values(device, self.field)
            and self.is_met_by(device)
            and self.pci_id in (None, *device.pci_id)
        )

    def is_met_by(self, device: Identity) -> bool:
        """Return whether the device meets what is beside the value: the bus, the _UID."""
        return self.bus in (None, device.bus) and self.acpi_uid in (None, device.acpi_uid)

    def explain_missing(self, explainer: Explainer) -> str:
        """Return why no device has the value, as a clause."""
        return _KINDS[self.kind].explain_missing(explainer, self.value)


def kind_of(name: str) -> SelectorKind:
    """Return what all selectors with this key have in common."""
    return _KINDS[name]


def parse_value(kind: str, value: str) -> str:
    """Return the value as Identity has it; PolicyError says if it is that of another one."""
    try:
        return _KINDS[kind].parse(value)
    except PolicyError:
        proper = proper_entry(kind, value)
        if proper is None:
            raise
        raise PolicyError(_OTHER_SELECTOR % (kind, value, proper)) from None


def proper_entry(kind: str, value: str) -> str | None:
    """Return what to write for a value that has the form of another selector's, as a clause."""
    for other in _KINDS.values():
        proper = None if other.name == kind else other.recognized(value)
        if proper is None:
            continue
        try:
            parsed = other.parse(proper)
        except PolicyError:
            continue
        article = "an" if other.name.startswith("a") else "a"
        quoted = parsed.replace("'", "''")
        return "that is %s `%s`. Use `%s: '%s'`" % (article, other.name, other.name, quoted)
    return None


def _is_sysfs_device(value: str) -> bool:
    return value.startswith(("/sys/bus/", "/sys/devices/"))


def _is_hardware_id(value: str) -> bool:
    """Return whether it is a PNP id or an ACPI id (ACPI 6.5, section 6.1.5)."""
    vendor, product = value[:-4], value[-4:]
    return (
        len(vendor) in (3, 4)
        and _ACPI.issuperset(vendor)
        and frozenset(string.digits + "ABCDEF").issuperset(product)
    )


def is_plain_path(path: str) -> bool:
    """Return whether what firmware calls a device is made of such characters as selectors have."""
    return all(consists_of(part, _NODE) for part in path.split("/"))


def match(selectors: Sequence[Selector], devices: Iterable[Identity]) -> list[list[Identity]]:
    """Return the devices of each selector, in one pass over ``devices``."""
    positions: dict[str, dict[str, list[int]]] = {}
    for position, selector in enumerate(selectors):
        by_value = positions.setdefault(selector.field, {})
        by_value.setdefault(selector.value, []).append(position)
    matches: list[list[Identity]] = [[] for _selector in selectors]
    for device in devices:
        for field, by_value in positions.items():
            for value in _values(device, field):
                for position in by_value.get(value, ()):
                    if selectors[position].is_met_by(device):
                        matches[position].append(device)
    return matches


def _values(device: Identity, field: str) -> set[str]:
    value = getattr(device, field)
    return set(value) if isinstance(value, tuple) else {value}


def _pci_address_problem(value: str) -> str | None:
    """Return what is wrong with the address of a PCI function, as a clause."""
    parts = value.replace(".", ":").split(":")
    if value.replace(".", "").isdigit():
        # PyYAML takes 0000:01:00.0 for a number with the base 60.
        return "it is a number. YAML makes one of an address without quotes"
    if not _HEX.issuperset(value.replace(".", ":").replace(":", "")):
        return _hex_problem(value)
    if value.count(":") < 2:
        return "its domain is missing"
    if "." not in value:
        return "its function is missing"
    # pci_setup_device in drivers/pci/probe.c: "%04x:%02x:%02x.%d"; a domain can be longer.
    if (
        [*map(len, parts[1:])] != [2, 2, 1]
        or value[-2] != "."
        or not (len(parts[0]) == 4 or (4 < len(parts[0]) <= 8 and parts[0][0] != "0"))
    ):
        return "it is not of the form DDDD:BB:DD.F"
    if int(parts[2], 16) > 0x1F or int(parts[3], 16) > 7:
        return "a bus has devices 00 to 1f, and a device has functions 0 to 7"
    return None


def _pci_id_problem(value: str) -> str | None:
    """Return what is wrong with a PCI id, as a clause."""
    parts = value.split(":")
    if not _HEX.issuperset(value.replace(":", "")):
        return _hex_problem(value)
    if len(parts) not in (2, 4):
        return "it has to have two or four parts, not %d" % len(parts)
    if {*map(len, parts)} != {4}:
        return "each part has to have four digits"
    return None


def _hex_problem(value: str) -> str:
    if any(character in "*?[]" for character in value):
        return "patterns are not supported"
    if _HEX.issuperset(value.lower().replace(".", "").replace(":", "")):
        return "its letters have to be lower case"
    return "it may contain only the digits 0 to 9 and a to f"


def _path_problem(first: str, bad: Sequence[str]) -> str:
    if "" in bad:
        return "one of its components is empty"
    if ".." in bad or "." in bad:
        return "'.' and '..' are not allowed"
    return "%r is not a valid node name" % (bad[0] if bad else first)
